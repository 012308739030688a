"""Builds TensorRT engines from a bundle's graph.

A *plan* is the file that TensorRT's builder writes. One code serves TensorRT 8.6, 10 and 11 and TensorRT-RTX; nothing
here imports either of them before it is needed.
"""
