"""TensorRT engines: building them from a bundle's graph, keeping them, and telling which one fits a machine.

A *plan* is the file that TensorRT's builder writes. One code serves TensorRT 8.6, 10 and 11 and TensorRT-RTX; nothing
here imports either of them before it is needed.
"""
