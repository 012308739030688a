// Patch map -> anomaly map, score and mask in one launch: Y = A_h . Z . A_w^T, the maximum of Y, and Y >= threshold.
//
// A_h and A_w are the banded matrices of edge_ad/image/operators.py (bilinear resize followed by the Gaussian); each of their
// rows is stored as a first column and `taps` weights, padded with zeros and shifted so that every tap lies inside of
// Z. Nothing is checked per tap for that reason. runtime/engines/tensorrt/kernels/resize_smooth.py makes the tables and the launch.
//
// A block of 32 x 8 threads makes 32 x 16 values of Y for one image:
//   1. the rows: (A_h . Z) for its 16 rows and the few columns of Z that its tile reaches, into shared memory;
//   2. the columns: 2 values of Y per thread, stored with the mask as whole 128-byte and 32-byte segments;
//   3. the maximum: through the warp, the block, and one atomic per block.
//
// The maximum across blocks needs no second launch and no reset from outside. Values are compared as keys, unsigned
// integers in the order of the floats; 0 lies below all of them. Each block takes the maximum of its key and
// state->best, fences, and counts itself in; atomicInc wraps the count back to 0 at the last block, which is the only
// one to see all others done: it takes the best key, leaves 0 in its place, and stores the score. So `state` is zeroed
// once, when it is allocated, and every launch leaves it zeroed. Launches that share a `state` must follow one another
// (same stream); two streams need two states.
//
// A value that is not finite makes the score NaN, so that a broken patch cannot hide behind the maximum.
//
// Padding: only the box counts for score and mask, and where it is smaller than the map the tables hold A . C, with C
// the selection that continues the shown patches outwards: the same as edge_ad.runtime.judge.postprocess.without_padding.
//
// Work for one image at 36 x 36 patches, 288 x 288 pixels, sigma 4 (6 taps, tiles that reach 10 columns):
//   bytes      5 KiB patches, 16 KiB tables, 324 KiB map, 81 KiB mask: 0.44 MB, nearly all of it written
//   operations 0.50 M multiply-adds for the columns, 0.16 M for the rows (9 tiles across repeat them)
//   expected   Jetson AGX Orin, 204 GB/s: 2.1 us; RTX 4090, 1008 GB/s: 0.43 us; arithmetic below 0.3 us on both.
//              A launch alone takes 3 to 5 us, so it is the launch that counts; without the map (null) 0.5 and 0.1 us.
//              Computed from the figures above. Measured on an H200 in a CUDA graph: 4.6 us, of which a launch alone
//              takes 3.0; 64 images 41 us.
//
// Needs no header, so NVRTC compiles it as it stands. Not to be compiled with --use_fast_math: it flushes small halves.

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

#define TILE_COLUMNS 32
#define TILE_ROWS 16
#define BLOCK_ROWS 8
#define THREADS (TILE_COLUMNS * BLOCK_ROWS)
#define ROWS_PER_THREAD (TILE_ROWS / BLOCK_ROWS)
#define NOT_FINITE 0xffffffffu

// All counts are of elements; boxes are half open. Mirrored by SHAPE_FIELDS in resize_smooth.py.
struct ResizeSmoothShape {
  int patch_rows, patch_columns;
  int rows, columns;
  int row_taps, column_taps;
  int tile_span;         // columns of Z that a tile reaches
  int score_on_patches;  // 0: the score is the maximum of Y inside of the box, 1: of Z inside of the patch box
  int left, top, right, bottom;
  int patch_left, patch_top, patch_right, patch_bottom;
};

struct ResizeSmoothState {
  unsigned int best, blocks_done;
};

namespace {

__device__ __forceinline__ float to_float(float value) { return value; }

// IEEE half, exact for every bit pattern.
__device__ __forceinline__ float to_float(unsigned short half) {
  const unsigned int magnitude = (half & 0x7fffu) << 13;
  const unsigned int sign = (half & 0x8000u) << 16;
  if (magnitude >= 0x0f800000u) return __uint_as_float(sign | 0x7f800000u | magnitude);
  const float value = __uint_as_float(magnitude) * 5192296858534827628530496329220096.0f;  // 2^112: the two biases
  return __uint_as_float(sign | __float_as_uint(value));
}

// The order of the keys is that of the values.
__device__ __forceinline__ unsigned int key_of(float value) {
  const unsigned int bits = __float_as_uint(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return NOT_FINITE;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float value_of(unsigned int key) {
  if (key == NOT_FINITE) return __uint_as_float(0x7fc00000u);
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

template <typename Patch>
__device__ __forceinline__ void resize_smooth(
    const Patch* __restrict__ patch_map, const int* __restrict__ row_starts, const float* __restrict__ row_weights,
    const int* __restrict__ column_starts, const float* __restrict__ column_weights,
    const int* __restrict__ tile_columns, const float* __restrict__ threshold, ResizeSmoothState* state,
    float* __restrict__ anomaly_map, unsigned char* __restrict__ mask, float* __restrict__ score,
    const ResizeSmoothShape& shape) {
  DYNAMIC_SHARED(shared);
  float* tile = reinterpret_cast<float*>(shared);  // TILE_ROWS x tile_span
  unsigned int* warp_keys = reinterpret_cast<unsigned int*>(tile + TILE_ROWS * shape.tile_span);

  const int thread = threadIdx.y * TILE_COLUMNS + threadIdx.x;
  const int first_row = blockIdx.y * TILE_ROWS;
  const int reached = tile_columns[blockIdx.x];
  const Patch* patches = patch_map + static_cast<size_t>(blockIdx.z) * shape.patch_rows * shape.patch_columns;

  for (int i = thread; i < TILE_ROWS * shape.tile_span; i += THREADS) {
    const int row = first_row + i / shape.tile_span;
    if (row >= shape.rows) break;
    const Patch* from = patches + row_starts[row] * shape.patch_columns + reached + i % shape.tile_span;
    const float* weights = row_weights + row * shape.row_taps;
    float sum = 0.0f;
    for (int k = 0; k < shape.row_taps; ++k) sum = fmaf(weights[k], to_float(from[k * shape.patch_columns]), sum);
    tile[i] = sum;
  }
  __syncthreads();

  unsigned int best = 0;
  const int column = blockIdx.x * TILE_COLUMNS + threadIdx.x;
  if (column < shape.columns) {
    const float* from = tile + threadIdx.y * shape.tile_span + (column_starts[column] - reached);
    float sums[ROWS_PER_THREAD] = {};
    for (int k = 0; k < shape.column_taps; ++k) {
      const float weight = column_weights[k * shape.columns + column];
#pragma unroll
      for (int r = 0; r < ROWS_PER_THREAD; ++r) {
        sums[r] = fmaf(weight, from[r * BLOCK_ROWS * shape.tile_span + k], sums[r]);
      }
    }
    const float limit = *threshold;
#pragma unroll
    for (int r = 0; r < ROWS_PER_THREAD; ++r) {
      const int row = first_row + threadIdx.y + r * BLOCK_ROWS;
      if (row >= shape.rows) continue;
      const bool counts =
          row >= shape.top && row < shape.bottom && column >= shape.left && column < shape.right;
      const size_t at = (static_cast<size_t>(blockIdx.z) * shape.rows + row) * shape.columns + column;
      if (anomaly_map) anomaly_map[at] = sums[r];
      if (mask) mask[at] = counts && sums[r] >= limit ? 255 : 0;
      if (counts && !shape.score_on_patches) best = max(best, key_of(sums[r]));
    }
  }
  if (!score) return;

  if (shape.score_on_patches) {
    const int width = shape.patch_right - shape.patch_left;
    const int patches_that_count = width * (shape.patch_bottom - shape.patch_top);
    const int stride = gridDim.x * gridDim.y * THREADS;
    for (int i = (blockIdx.y * gridDim.x + blockIdx.x) * THREADS + thread; i < patches_that_count; i += stride) {
      const int row = shape.patch_top + i / width;
      best = max(best, key_of(to_float(patches[row * shape.patch_columns + shape.patch_left + i % width])));
    }
  }
#pragma unroll
  for (int offset = TILE_COLUMNS / 2; offset > 0; offset /= 2) {
    best = max(best, __shfl_xor_sync(0xffffffffu, best, offset));
  }
  if (threadIdx.x == 0) warp_keys[threadIdx.y] = best;
  __syncthreads();
  if (thread > 0) return;
  for (int warp = 1; warp < BLOCK_ROWS; ++warp) best = max(best, warp_keys[warp]);

  ResizeSmoothState* own = state + blockIdx.z;
  const unsigned int last = gridDim.x * gridDim.y - 1;
  atomicMax(&own->best, best);
  __threadfence();
  if (atomicInc(&own->blocks_done, last) == last) {
    __threadfence();
    score[blockIdx.z] = value_of(atomicExch(&own->best, 0u));
  }
}

}  // namespace

#define RESIZE_SMOOTH(name, Patch)                                                                                  \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
      name(const Patch* patch_map, const int* row_starts, const float* row_weights, const int* column_starts,       \
           const float* column_weights, const int* tile_columns, const float* threshold, ResizeSmoothState* state,  \
           float* anomaly_map, unsigned char* mask, float* score, ResizeSmoothShape shape) {                        \
    resize_smooth<Patch>(patch_map, row_starts, row_weights, column_starts, column_weights, tile_columns, threshold, \
                         state, anomaly_map, mask, score, shape);                                                   \
  }

RESIZE_SMOOTH(resize_smooth_float, float)
RESIZE_SMOOTH(resize_smooth_half, unsigned short)
