/* Camera frame -> model input: Pillow's antialiased bilinear resize and the channel order, in one pass over the frame.
 *
 * The arithmetic is Pillow's own for 8-bit pictures: weights are whole multiples of 2^-22, columns come first and are
 * rounded to 8 bit, rows follow. All sums are of 32-bit integers, so every compiler and processor gets the same levels.
 *
 * Weights belong to outputs, so 16 rows of the frame are resized in width at the same time: turned on their side, what
 * one weight is multiplied with lies side by side for all of them. In height, neighbouring columns do.
 *
 * There is nothing of Python in here: edge_ad/image/resize/native.py calls `edge_ad_resize_1` through ctypes, without the
 * interpreter lock. The inner loops are plain, for that is what compilers make the best of.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#ifndef __GNUC__
#error "needs the vector types of GCC or Clang; without this file edge-ad resizes with Pillow"
#endif

/* The loader takes the copy that suits the processor, with the help of the C library, which musl does not give. Clang
 * exports the function under other names then. AVX-512 is not faster here. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "sse4.1", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

#define INLINE static inline __attribute__((always_inline)) /* into each copy */

enum { SIDE = 16, STRETCH = 32, CHANNELS = 3, WEIGHT_BITS = 22, HALF = 1 << (WEIGHT_BITS - 1) };

/* Mirrored by `_Job` in native.py. Pitches count bytes, everything else pixels. Whoever changes it also changes the number
 * in the function's name, so that no Python calls what was compiled for another one. */
typedef struct {
  const uint8_t *frame;
  ptrdiff_t frame_pitch;
  uint8_t *image; /* RGB, rows x columns */
  ptrdiff_t image_pitch;
  const int32_t *row_starts, *row_weights;       /* (rows), (rows, row_taps) */
  const int32_t *column_starts, *column_weights; /* (columns), (columns, column_taps) */
  int32_t rows, row_taps, columns, column_taps;
  int32_t red; /* place of red in a pixel of the frame, 0 or 2 */
} Job;

typedef uint8_t Bytes __attribute__((vector_size(SIDE), aligned(1), may_alias));

#if defined(__clang__)
#define LOW(a, b) \
  __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH(a, b) \
  __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#else
#define LOW(a, b) __builtin_shuffle(a, b, (Bytes){0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23})
#define HIGH(a, b) __builtin_shuffle(a, b, (Bytes){8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31})
#endif

/* 16 x 16 bytes on their side: interleaving the first half of the rows with the second, four times over, does it. */
INLINE void turn(const uint8_t *from, ptrdiff_t from_pitch, uint8_t *to, ptrdiff_t to_pitch) {
  Bytes rows[SIDE], mixed[SIDE];
  for (int i = 0; i < SIDE; i++) rows[i] = *(const Bytes *)(from + i * from_pitch);
  for (int step = 0; step < 4; step++) {
    for (int i = 0; i < SIDE / 2; i++) {
      mixed[2 * i] = LOW(rows[i], rows[i + SIDE / 2]);
      mixed[2 * i + 1] = HIGH(rows[i], rows[i + SIDE / 2]);
    }
    for (int i = 0; i < SIDE; i++) rows[i] = mixed[i];
  }
  for (int i = 0; i < SIDE; i++) *(Bytes *)(to + i * to_pitch) = rows[i];
}

/* `height` x `width` bytes on their side: `to` has `width` lines of `height` bytes. */
INLINE void turn_all(
    const uint8_t *from, ptrdiff_t from_pitch, ptrdiff_t height, ptrdiff_t width, uint8_t *to, ptrdiff_t to_pitch) {
  const ptrdiff_t whole_height = height / SIDE * SIDE, whole_width = width / SIDE * SIDE;
  for (ptrdiff_t y = 0; y < whole_height; y += SIDE)
    for (ptrdiff_t x = 0; x < whole_width; x += SIDE)
      turn(from + y * from_pitch + x, from_pitch, to + x * to_pitch + y, to_pitch);
  for (ptrdiff_t y = 0; y < height; y++)
    for (ptrdiff_t x = y < whole_height ? whole_width : 0; x < width; x++)
      to[x * to_pitch + y] = from[y * from_pitch + x];
}

/* Weights are not negative and the shares of a sample add up to 1 within their rounding, so no sum leaves 0 ... 255. */
#define ROUNDED(sum) ((uint8_t)((sum) >> WEIGHT_BITS))

/* `turned` and `narrow` are lines of 16 bytes, one of each of 16 rows: channels of the frame's pixels from the first that
 * is read on, and of the resized ones. */
INLINE void narrow_16_rows(const Job *job, const uint8_t *turned, uint8_t *narrow) {
  for (int32_t column = 0; column < job->columns; column++) {
    const int32_t *weights = job->column_weights + (ptrdiff_t)column * job->column_taps;
    const uint8_t *pixel = turned + (ptrdiff_t)(job->column_starts[column] - job->column_starts[0]) * CHANNELS * SIDE;
    int32_t sums[CHANNELS * SIDE];
    for (int i = 0; i < CHANNELS * SIDE; i++) sums[i] = HALF;
    for (int32_t tap = 0; tap < job->column_taps; tap++, pixel += CHANNELS * SIDE)
      for (int i = 0; i < CHANNELS * SIDE; i++) sums[i] += weights[tap] * pixel[i];
    uint8_t *to = narrow + (ptrdiff_t)column * CHANNELS * SIDE;
    for (int i = 0; i < SIDE; i++) {
      to[i] = ROUNDED(sums[job->red * SIDE + i]);
      to[SIDE + i] = ROUNDED(sums[SIDE + i]);
      to[2 * SIDE + i] = ROUNDED(sums[(2 - job->red) * SIDE + i]);
    }
  }
}

/* One row of the image from `taps` rows of `width` bytes. */
INLINE void lower(const uint8_t *rows, ptrdiff_t width, const int32_t *weights, int32_t taps, uint8_t *to) {
  ptrdiff_t x = 0;
  for (; x + STRETCH <= width; x += STRETCH) {
    int32_t sums[STRETCH];
    for (int i = 0; i < STRETCH; i++) sums[i] = HALF;
    for (int32_t tap = 0; tap < taps; tap++)
      for (int i = 0; i < STRETCH; i++) sums[i] += weights[tap] * rows[tap * width + x + i];
    for (int i = 0; i < STRETCH; i++) to[x + i] = ROUNDED(sums[i]);
  }
  for (; x < width; x++) {
    int32_t sum = HALF;
    for (int32_t tap = 0; tap < taps; tap++) sum += weights[tap] * rows[tap * width + x];
    to[x] = ROUNDED(sum);
  }
}

/* Returns 0, or 1 when there is no memory. Starts must not fall from one output to the next. */
FOR_EACH_PROCESSOR int edge_ad_resize_1(const Job *job) {
  const ptrdiff_t width = (ptrdiff_t)job->columns * CHANNELS;
  const int32_t first_column = job->column_starts[0], first_row = job->row_starts[0];
  const ptrdiff_t read =
      (ptrdiff_t)(job->column_starts[job->columns - 1] + job->column_taps - first_column) * CHANNELS;
  const ptrdiff_t height = job->row_starts[job->rows - 1] + job->row_taps - first_row;
  const ptrdiff_t groups = (height + SIDE - 1) / SIDE;
  uint8_t *turned = calloc((size_t)read, SIDE); /* of the last rows there may be fewer than 16 */
  uint8_t *on_side = malloc((size_t)(width * SIDE));
  uint8_t *narrow = malloc((size_t)(groups * SIDE * width));
  const int failed = turned == NULL || on_side == NULL || narrow == NULL;
  if (!failed) {
    const uint8_t *frame = job->frame + first_row * job->frame_pitch + (ptrdiff_t)first_column * CHANNELS;
    for (ptrdiff_t row = 0; row < height; row += SIDE) {
      const ptrdiff_t rows = height - row < SIDE ? height - row : SIDE;
      turn_all(frame + row * job->frame_pitch, job->frame_pitch, rows, read, turned, SIDE);
      narrow_16_rows(job, turned, on_side);
      turn_all(on_side, SIDE, width, SIDE, narrow + row * width, width);
    }
    for (int32_t row = 0; row < job->rows; row++)
      lower(narrow + (job->row_starts[row] - first_row) * width, width,
            job->row_weights + (ptrdiff_t)row * job->row_taps, job->row_taps, job->image + row * job->image_pitch);
  }
  free(turned);
  free(on_side);
  free(narrow);
  return failed;
}
