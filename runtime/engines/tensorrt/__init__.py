"""TensorRT on NVIDIA GPUs. `builder` compiles plans, `kernels` are our own CUDA code, `runner` computes with both.

The files here are what builder and runner have in common: which flavour of TensorRT, which GPU, which plan fits.
"""
