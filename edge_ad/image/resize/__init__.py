"""Pillow's antialiased bilinear resize of the part of a frame that the model sees, in two ways.

`native` is compiled when edge-ad is installed. It gives, bit for bit, what Pillow makes of the whole frame with the
columns first, cropped. `strips` asks Pillow itself for the part alone; it is for machines without a compiler, several
times as slow, and one grey level off in a few values of some sizes.
"""
