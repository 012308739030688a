// Camera frame -> model input: Pillow's antialiased bilinear resize, crop or padding, channel order; one launch.
//
// The arithmetic is that of edge_ad/image/preprocess.py, step for step: weights as whole multiples of 2^-22, the columns
// first, rounded to 8 bit, then the rows. The two agree but for single grey levels (see runtime/engines/tensorrt/kernels/preprocess.py).
//
// Frames are packed 8-bit RGB or BGR, or NV12 (a plane of Y, and one of interleaved U, V at half the resolution), with
// any number of bytes between rows. NV12 becomes RGB as cv2.cvtColor does it: BT.601, limited range, chroma repeated
// 2 x 2, in 20-bit fixed point; see `Nv12Row`. A camera that delivers BT.709 or full range needs another conversion.
// The result is NHWC RGB: bytes, or halves that hold the same whole grey levels 0 ... 255.
//
// A block of 32 x 8 threads makes 32 columns x `tile_rows` rows of the model input: the source rows that these need are
// resized in width into shared memory, then in height from there. Neighbouring tiles share some source rows.
// Pixels outside of the content box take the padding's colour.
//
// Work for a 1920 x 1080 frame whose centre 1080 x 1080 becomes 288 x 288 (scale 3.75, 9 taps per axis, 16-row tiles):
//   bytes      packed 3.5 MB once from memory (rows shared by two tiles, 13 %, come from the cache), NV12 1.75 MB;
//              written 0.25 MB, as halves 0.5 MB
//   operations 9.5 M integer multiply-adds for the columns, 2.2 M for the rows; NV12 adds 5 per pixel read, 16 M
//   expected   Jetson AGX Orin, 204 GB/s: 18 us packed, 10 us NV12; RTX 4090, 1008 GB/s: 3.7 us and 2 us.
//              Computed from the figures above. Measured on an H200 in a CUDA graph: 8.7 us, of which a launch alone
//              takes 3.0; at 162 blocks it is latency that counts there. Where the frame has to cross PCIe first, that
//              counts: the 3.5 MB that are read take 135 us at 26 GB/s.
//
// Needs no header, so NVRTC compiles it as it stands.

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

#define TILE_COLUMNS 32
#define BLOCK_ROWS 8
#define THREADS (TILE_COLUMNS * BLOCK_ROWS)
#define WEIGHT_BITS 22

// Counts are of pixels, pitches of bytes; the content box is half open. Mirrored by SHAPE_FIELDS in preprocess.py.
struct PreprocessShape {
  int pitch, chroma_pitch;  // the second is of NV12 only
  int red;                  // of packed frames: the place of red in a pixel, 0 or 2
  int rows, columns;        // of the model input
  int left, top, right, bottom;
  int row_taps, column_taps;
  int tile_rows;  // rows of the model input that a block makes
  int tile_span;  // source rows that it reads for them
  int pad_red, pad_green, pad_blue;
};

namespace {

__device__ __forceinline__ int to_level(int value) { return min(max(value, 0), 255); }

struct Rgb {
  int red, green, blue;
};

struct PackedRow {
  const unsigned char* pixels;
  int red_at;

  __device__ __forceinline__ PackedRow(
      const unsigned char* frame, const unsigned char*, const PreprocessShape& shape, int row)
      : pixels(frame + static_cast<size_t>(row) * shape.pitch), red_at(shape.red) {}

  __device__ __forceinline__ Rgb operator[](int column) const {
    const unsigned char* pixel = pixels + 3 * column;
    return {pixel[red_at], pixel[1], pixel[2 - red_at]};
  }
};

// OpenCV's constants: 1.164, 2.018, -0.391, -0.813 and 1.596 times 2^20 (modules/imgproc/src/color_yuv.simd.hpp).
struct Nv12Row {
  const unsigned char* luma;
  const unsigned char* chroma;

  __device__ __forceinline__ Nv12Row(
      const unsigned char* frame, const unsigned char* chroma_plane, const PreprocessShape& shape, int row)
      : luma(frame + static_cast<size_t>(row) * shape.pitch),
        chroma(chroma_plane + static_cast<size_t>(row / 2) * shape.chroma_pitch) {}

  __device__ __forceinline__ Rgb operator[](int column) const {
    const int y = max(luma[column] - 16, 0) * 1220542 + (1 << 19);
    const int u = chroma[column / 2 * 2] - 128;
    const int v = chroma[column / 2 * 2 + 1] - 128;
    return {to_level((y + 1673527 * v) >> 20), to_level((y - 852492 * v - 409993 * u) >> 20),
            to_level((y + 2116026 * u) >> 20)};
  }
};

__device__ __forceinline__ void store(unsigned char* out, int level) { *out = static_cast<unsigned char>(level); }

// Whole numbers up to 255 need 8 of the half's 11 significant bits, so dropping the float's last 13 is exact.
__device__ __forceinline__ void store(unsigned short* out, int level) {
  const unsigned int bits = __float_as_uint(static_cast<float>(level));
  *out = static_cast<unsigned short>(level ? (bits >> 13) - (112u << 10) : 0u);
}

__device__ __forceinline__ int rounded(int sum) { return to_level((sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS); }

template <typename Row, typename Level>
__device__ __forceinline__ void preprocess(
    const unsigned char* __restrict__ frame, const unsigned char* __restrict__ chroma,
    const int* __restrict__ row_starts, const int* __restrict__ row_weights, const int* __restrict__ column_starts,
    const int* __restrict__ column_weights, const int* __restrict__ tile_starts, Level* __restrict__ image,
    const PreprocessShape& shape) {
  DYNAMIC_SHARED(narrow);  // tile_span x 32 x 3 bytes: the source rows, resized in width

  const int column = blockIdx.x * TILE_COLUMNS + threadIdx.x;
  const int first_row = blockIdx.y * shape.tile_rows;
  const int source_row = tile_starts[blockIdx.y];

  if (column < shape.columns) {
    const int start = column_starts[column];
    for (int r = threadIdx.y; r < shape.tile_span; r += BLOCK_ROWS) {
      const Row pixels(frame, chroma, shape, source_row + r);
      int red = 0, green = 0, blue = 0;
      for (int k = 0; k < shape.column_taps; ++k) {
        const int weight = column_weights[k * shape.columns + column];
        const Rgb pixel = pixels[start + k];
        red += weight * pixel.red;
        green += weight * pixel.green;
        blue += weight * pixel.blue;
      }
      unsigned char* to = narrow + (r * TILE_COLUMNS + threadIdx.x) * 3;
      to[0] = static_cast<unsigned char>(rounded(red));
      to[1] = static_cast<unsigned char>(rounded(green));
      to[2] = static_cast<unsigned char>(rounded(blue));
    }
  }
  __syncthreads();

  if (column >= shape.columns) return;
  for (int r = threadIdx.y; r < shape.tile_rows; r += BLOCK_ROWS) {
    const int row = first_row + r;
    if (row >= shape.rows) break;
    Level* out = image + (static_cast<size_t>(row) * shape.columns + column) * 3;
    if (row < shape.top || row >= shape.bottom || column < shape.left || column >= shape.right) {
      store(out, shape.pad_red);
      store(out + 1, shape.pad_green);
      store(out + 2, shape.pad_blue);
      continue;
    }
    const unsigned char* from = narrow + ((row_starts[row] - source_row) * TILE_COLUMNS + threadIdx.x) * 3;
    int red = 0, green = 0, blue = 0;
    for (int k = 0; k < shape.row_taps; ++k) {
      const int weight = row_weights[row * shape.row_taps + k];
      const unsigned char* pixel = from + k * TILE_COLUMNS * 3;
      red += weight * pixel[0];
      green += weight * pixel[1];
      blue += weight * pixel[2];
    }
    store(out, rounded(red));
    store(out + 1, rounded(green));
    store(out + 2, rounded(blue));
  }
}

}  // namespace

#define PREPROCESS(name, Row, Level)                                                                              \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                           \
      name(const unsigned char* frame, const unsigned char* chroma, const int* row_starts, const int* row_weights, \
           const int* column_starts, const int* column_weights, const int* tile_starts, Level* image,             \
           PreprocessShape shape) {                                                                               \
    preprocess<Row, Level>(frame, chroma, row_starts, row_weights, column_starts, column_weights, tile_starts,    \
                           image, shape);                                                                         \
  }

PREPROCESS(preprocess_packed_u8, PackedRow, unsigned char)
PREPROCESS(preprocess_packed_half, PackedRow, unsigned short)
PREPROCESS(preprocess_nv12_u8, Nv12Row, unsigned char)
PREPROCESS(preprocess_nv12_half, Nv12Row, unsigned short)
