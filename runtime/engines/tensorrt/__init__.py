"""TensorRT on NVIDIA GPUs: what its builder and its runner have in common."""
