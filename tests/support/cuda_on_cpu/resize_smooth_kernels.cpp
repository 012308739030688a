#include "cuda_on_cpu.h"
// After it, for it defines what a CUDA compiler knows by itself.
#include "resize_smooth.cu"

CUDA_ON_CPU_KERNEL(resize_smooth_float);
CUDA_ON_CPU_KERNEL(resize_smooth_half);
