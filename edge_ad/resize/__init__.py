"""Pillow's antialiased bilinear resize of the part of a frame that the model sees, in two ways.

`native` is compiled when edge-ad is installed. It gives, bit for bit, what Pillow makes of the whole frame, cropped.
`strips` asks Pillow itself; it is for machines without a compiler, and several times as slow.
"""
