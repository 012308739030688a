"""Linear operators of the post-process: resize and smoothing of a map as one matrix per axis.

Both steps are linear and separable, so the anomaly map of a patch map Z is ``A_h · Z · A_wᵀ`` with
``A = G · B`` (smoothing after resize) computed once in float64. The border rule, the truncation and the
interpolation weights are all inside A, which makes the result exact at the border as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import Border, PostprocessSpec
from edge_ad.image.geometry import FrameGeometry

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

DEFAULT_POSTPROCESS = PostprocessSpec()
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


def nearest_matrix(n_in: int, n_out: int) -> Float64Array:
    """The nearest sample of one axis, as torch's `interpolate(mode="nearest")` takes it: (n_out, n_in) float64."""
    matrix = np.zeros((n_out, n_in))
    matrix[np.arange(n_out), np.arange(n_out) * n_in // n_out] = 1
    return matrix


def box_matrix(n: int, size: int) -> Float64Array:
    """Mean of `size` samples of one axis, an odd number; what lies outside counts as 0: (n, n) float64."""
    distance = np.abs(np.arange(n)[:, None] - np.arange(n)[None, :])
    return np.where(distance <= size // 2, 1 / size, 0.0)


def gaussian_matrix(n: int, sigma: float, truncate: float, border: Border = "repeat") -> Float64Array:
    """Gaussian blur of one axis as `scipy.ndimage.gaussian_filter1d` computes it.

    With `repeat` (SciPy's "reflect") the edge sample is repeated (``d c b a | a b c d | d c b a``), with `reflect101`
    (SciPy's "mirror") it is not (``d c b | a b c d | c b a``), however often the kernel overhangs.
    Returns: (n, n) float64; every row sums to 1.
    """
    if sigma == 0:
        return np.eye(n)
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    taps /= taps.sum()
    period = 2 * n if border == "repeat" else max(1, 2 * n - 2)
    columns = (np.arange(n)[:, None] + offsets[None, :]) % period
    columns = np.minimum(columns, period - (border == "repeat") - columns)
    matrix = np.zeros((n, n))
    np.add.at(matrix, (np.broadcast_to(np.arange(n)[:, None], columns.shape), columns), taps)
    return matrix


def resize_smooth_matrix(n_in: int, n_out: int, spec: PostprocessSpec) -> Float64Array:
    """Resize followed by smoothing for one axis: (n_out, n_in) float64."""
    resize = nearest_matrix(n_in, n_out) if spec.resize == "nearest" else resize_matrix(n_in, n_out)
    if spec.smoothing == "none":
        return resize
    if spec.size is not None:
        return box_matrix(n_out, spec.size) @ resize
    return gaussian_matrix(n_out, spec.sigma, spec.truncate, spec.border) @ resize


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
    """Patch map → anomaly map: resize to `size_hw`, then smoothing, as `spec` says.

    Args:
        patch_hw: rows and columns of the patch map.
        size_hw: rows and columns of the anomaly map.
    """

    def __init__(
        self, patch_hw: tuple[int, int], size_hw: tuple[int, int], spec: PostprocessSpec = DEFAULT_POSTPROCESS
    ) -> None:
        self.patch_hw = patch_hw
        self.size_hw = size_hw
        self.rows, self.columns = (
            _model_axis(n_in, n_out, spec) for n_in, n_out in zip(patch_hw, size_hw, strict=True)
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
        spec: as in ResizeSmooth; its lengths count in MODEL pixels whatever the size of the frame. None resamples a
            map that is of the model's size and smooth already.
    """

    def __init__(
        self,
        geometry: FrameGeometry,
        patch_hw: tuple[int, int],
        spec: PostprocessSpec | None = DEFAULT_POSTPROCESS,
    ) -> None:
        self.box_xyxy = geometry.inspected_box
        x_0, y_0, _, _ = geometry.region
        x_min, y_min, x_max, y_max = self.box_xyxy
        rows, columns = geometry.model_hw
        self._frame_hw = geometry.frame_hw
        self._rows = _frame_axis(y_min - y_0, y_max - y_0, geometry.scale_y, geometry.top, rows, patch_hw[0], spec)
        self._columns = _frame_axis(
            x_min - x_0, x_max - x_0, geometry.scale_x, geometry.left, columns, patch_hw[1], spec
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
def _model_axis(n_in: int, n_out: int, spec: PostprocessSpec) -> BandedMatrix:
    return BandedMatrix(resize_smooth_matrix(n_in, n_out, spec))


@lru_cache(maxsize=32)
def _frame_axis(
    first: int, last: int, scale: float, offset: int, n_model: int, n_patch: int, spec: PostprocessSpec | None
) -> BandedMatrix:
    return BandedMatrix(frame_matrix(first, last, scale, offset, n_model, n_patch, spec))


def frame_matrix(
    first: int, last: int, scale: float, offset: int, n_model: int, n_patch: int, spec: PostprocessSpec | None
) -> Float64Array:
    """What `FrameMap` does on one axis: (last - first, n_patch) float64.

    Args:
        first, last: samples of the frame, from the corner of the part that was resized.
        scale: frame pixels per model pixel.
        offset: of the canvas in the resized frame, model pixels.
        n_model, n_patch: samples of the model's input and of the map.
        spec: None for a map of the model's size that is smooth already.
    """
    smooth = np.eye(n_model) if spec is None else resize_smooth_matrix(n_patch, n_model, spec)
    positions = (np.arange(first, last) + 0.5) / scale - offset - 0.5
    parts = (positions[at : at + AXIS_PART] for at in range(0, len(positions), AXIS_PART))
    return np.concatenate([sampling_matrix(part, n_model) @ smooth for part in parts])
