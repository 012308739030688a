"""Linear operators of the post-process: bilinear resize and Gaussian blur as one matrix per axis.

Both steps are linear and separable, so the anomaly map of a patch map Z is ``A_h · Z · A_wᵀ`` with
``A = G · B`` (blur after resize) computed once in float64. The border rule, the truncation and the
interpolation weights are all inside A, which makes the result exact at the border as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.geometry import FrameGeometry

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

BLOCK_ROWS = 96  # of a banded product; 72 to 144 measure the same
AXIS_PART = 8192  # frame pixels of an axis at once; a line scan of 100,000 rows would take half a gigabyte
BLOCK_COLUMNS = 512  # keeps a block product below a million multiplications, where BLAS libraries start to use threads


def resize_matrix(n_in: int, n_out: int) -> Float64Array:
    """Bilinear resampling of one axis, half-pixel centres, no antialias (torch `align_corners=False`).

    Returns: (n_out, n_in) float64; every row sums to 1.
    """
    return sampling_matrix((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, n_in)


def sampling_matrix(positions: NDArray[np.floating[Any]], n_in: int) -> Float64Array:
    """Linear interpolation of an axis of `n_in` samples at `positions` (sample centres are whole numbers).

    Positions outside the axis take the value at its end. Returns: (len(positions), n_in) float64; rows sum to 1.
    """
    centres = np.clip(positions, 0, n_in - 1)
    low = np.floor(centres).astype(np.intp)
    fraction = centres - low
    matrix = np.zeros((len(centres), n_in))
    rows = np.arange(len(centres))
    np.add.at(matrix, (rows, low), 1 - fraction)
    np.add.at(matrix, (rows, np.minimum(low + 1, n_in - 1)), fraction)
    return matrix


def gaussian_matrix(n: int, sigma: float, truncate: float) -> Float64Array:
    """Gaussian blur of one axis as `scipy.ndimage.gaussian_filter1d(..., mode="reflect")` computes it.

    The edge sample is repeated (``d c b a | a b c d | d c b a``), however often the kernel overhangs.
    Returns: (n, n) float64; every row sums to 1.
    """
    if sigma == 0:
        return np.eye(n)
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    taps /= taps.sum()
    columns = (np.arange(n)[:, None] + offsets[None, :]) % (2 * n)
    columns = np.minimum(columns, 2 * n - 1 - columns)
    matrix = np.zeros((n, n))
    np.add.at(matrix, (np.broadcast_to(np.arange(n)[:, None], columns.shape), columns), taps)
    return matrix


def resize_smooth_matrix(n_in: int, n_out: int, sigma: float, truncate: float) -> Float64Array:
    """Resize followed by blur for one axis: (n_out, n_in) float64."""
    return gaussian_matrix(n_out, sigma, truncate) @ resize_matrix(n_in, n_out)


class BandedMatrix:
    """A matrix whose non-zeros lie in a band, as a few dense blocks. Safe to share between threads.

    The blocks are small enough for a BLAS library to stay on the calling thread: a product takes a twentieth of a
    millisecond, and waking other threads for it costs more, on a busy machine a thousand times more.

    Args:
        matrix: (n_out, n_in) float64; kept as float32.
    """

    def __init__(self, matrix: Float64Array) -> None:
        self.dense: Float32Array = np.ascontiguousarray(matrix, dtype=np.float32)
        self.dense.setflags(write=False)
        self._blocks = []
        for first in range(0, len(matrix), BLOCK_ROWS):
            rows = slice(first, min(first + BLOCK_ROWS, len(matrix)))
            used = np.flatnonzero(matrix[rows].any(axis=0))
            columns = slice(int(used[0]), int(used[-1]) + 1)
            self._blocks.append((rows, columns, np.ascontiguousarray(self.dense[rows, columns])))

    def times(self, operand: Float32Array) -> Float32Array:
        """(…, n_in, k) → (…, n_out, k)."""
        product = np.empty((*operand.shape[:-2], len(self.dense), operand.shape[-1]), np.float32)
        for first in range(0, operand.shape[-1], BLOCK_COLUMNS):
            part = slice(first, first + BLOCK_COLUMNS)
            for rows, columns, block in self._blocks:
                np.matmul(block, operand[..., columns, part], out=product[..., rows, part])
        return product

    def strips(self, operand: Float32Array) -> Iterator[tuple[int, Float32Array]]:
        """(n_in, k) → (n_out, k) as `times` gives it, some rows at a time: the first row, and (rows, k)."""
        for rows, columns, block in self._blocks:
            product = np.empty((rows.stop - rows.start, operand.shape[-1]), np.float32)
            for first in range(0, operand.shape[-1], BLOCK_COLUMNS):
                part = slice(first, first + BLOCK_COLUMNS)
                np.matmul(block, operand[columns, part], out=product[:, part])
            yield rows.start, product

    def times_transposed(self, operand: Float32Array) -> Float32Array:
        """(…, k, n_in) → (…, k, n_out): the operand times this matrix transposed."""
        product = np.empty((*operand.shape[:-1], len(self.dense)), np.float32)
        for rows, columns, block in self._blocks:
            np.matmul(operand[..., columns], block.T, out=product[..., rows])
        return product


class ResizeSmooth:
    """Patch map → anomaly map: bilinear resize to `size_hw`, then a Gaussian of `sigma` model pixels.

    Args:
        patch_hw: rows and columns of the patch map.
        size_hw: rows and columns of the anomaly map.
        sigma: standard deviation in pixels of `size_hw`; GLASS uses 4.
        truncate: kernel radius in standard deviations; GLASS uses SciPy's 4.
    """

    def __init__(self, patch_hw: tuple[int, int], size_hw: tuple[int, int], sigma: float = 4.0, truncate: float = 4.0):
        self.patch_hw = patch_hw
        self.size_hw = size_hw
        self.rows, self.columns = (
            _model_axis(n_in, n_out, sigma, truncate) for n_in, n_out in zip(patch_hw, size_hw, strict=True)
        )

    def __call__(self, patch_map: Float32Array) -> Float32Array:
        """(…, h, w) float32 → (…, H, W) float32, in a new array."""
        if patch_map.shape[-2:] != self.patch_hw:
            raise ValueError(f"patch map: got {patch_map.shape[-2:]}, this operator was made for {self.patch_hw}")
        return self.rows.times(self.columns.times_transposed(patch_map))


class FrameMap:
    """Patch map → anomaly map in frame pixels: the model-size map, resampled; still one matrix per axis.

    Args:
        geometry: where the model's canvas lies in the frame.
        patch_hw: rows and columns of the patch map.
        sigma, truncate: as in ResizeSmooth; they count in MODEL pixels whatever the size of the frame.
    """

    def __init__(self, geometry: FrameGeometry, patch_hw: tuple[int, int], sigma: float = 4.0, truncate: float = 4.0):
        self.box_xyxy = geometry.inspected_box
        x_0, y_0, _, _ = geometry.region
        x_min, y_min, x_max, y_max = self.box_xyxy
        rows, columns = geometry.model_hw
        self._frame_hw = geometry.frame_hw
        self._rows = _frame_axis(
            y_min - y_0, y_max - y_0, geometry.scale_y, geometry.top, rows, patch_hw[0], sigma, truncate
        )
        self._columns = _frame_axis(
            x_min - x_0, x_max - x_0, geometry.scale_x, geometry.left, columns, patch_hw[1], sigma, truncate
        )

    def inside(self, patch_map: Float32Array) -> Float32Array:
        """(h, w) float32 → the map over `box_xyxy` only, float32."""
        return self._rows.times(self._columns.times_transposed(patch_map))

    def strips(self, patch_map: Float32Array) -> Iterator[tuple[int, Float32Array]]:
        """The same in strips from the top, for frames that are large: the first frame row, and (rows, columns)."""
        for first, values in self._rows.strips(self._columns.times_transposed(patch_map)):
            yield self.box_xyxy[1] + first, values

    def __call__(self, patch_map: Float32Array, outside: float = 0.0) -> Float32Array:
        """(h, w) float32 → (H_frame, W_frame) float32, `outside` where the model did not look."""
        x_min, y_min, x_max, y_max = self.box_xyxy
        full = np.full(self._frame_hw, outside, np.float32)
        full[y_min:y_max, x_min:x_max] = self.inside(patch_map)
        return full


@lru_cache(maxsize=32)
def _model_axis(n_in: int, n_out: int, sigma: float, truncate: float) -> BandedMatrix:
    return BandedMatrix(resize_smooth_matrix(n_in, n_out, sigma, truncate))


@lru_cache(maxsize=32)
def _frame_axis(
    first: int, last: int, scale: float, offset: int, n_model: int, n_patch: int, sigma: float, truncate: float
) -> BandedMatrix:
    smooth = resize_smooth_matrix(n_patch, n_model, sigma, truncate)
    positions = (np.arange(first, last) + 0.5) / scale - offset - 0.5
    parts = (positions[at : at + AXIS_PART] for at in range(0, len(positions), AXIS_PART))
    return BandedMatrix(np.concatenate([sampling_matrix(part, n_model) @ smooth for part in parts]))
