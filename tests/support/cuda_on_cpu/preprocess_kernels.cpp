#include "cuda_on_cpu.h"
// After it, for it defines what a CUDA compiler knows by itself.
#include "preprocess.cu"

CUDA_ON_CPU_KERNEL(preprocess_packed_u8);
CUDA_ON_CPU_KERNEL(preprocess_packed_half);
CUDA_ON_CPU_KERNEL(preprocess_nv12_u8);
CUDA_ON_CPU_KERNEL(preprocess_nv12_half);
