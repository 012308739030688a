"""What `resize_smooth.cu` needs: the operator's bands, the box that counts, arguments and launch geometry."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PostprocessSpec, ScoreKind
from edge_ad.errors import EngineError
from edge_ad.image.banded import Banded
from edge_ad.image.frame import Box
from edge_ad.image.geometry import FrameGeometry
from edge_ad.image.operators import Float64Array, frame_matrix, resize_smooth_matrix
from edge_ad.runtime.engines.tensorrt.kernels.launch import GRID_LIMIT, SHARED_LIMIT_BYTES, Launch, Tables

PatchType = Literal["float32", "float16"]

STATE_BYTES = 8  # of an image, zeroed once when they are allocated

KERNELS: dict[PatchType, str] = {"float32": "resize_smooth_float", "float16": "resize_smooth_half"}
TILE_ROWS, TILE_COLUMNS, BLOCK_ROWS = 16, 32, 8
SHAPE_FIELDS = 16  # int32 fields of ResizeSmoothShape
FORMAT = f"{'P' * 11}{4 * SHAPE_FIELDS}s"


KERNEL_SCORES = ("map_max", "patch_max")


def kernel_fault(postprocess: PostprocessSpec) -> str | None:
    """Why the kernel cannot make an anomaly map and a score of a patch map as a model does; None where it can."""
    if postprocess.frame_map == "anomaly_map":
        return "this family's anomaly map is no smoothing of its patch map"
    if postprocess.score not in KERNEL_SCORES:
        return f"the score {postprocess.score!r} is none of its own"
    return None


@dataclass(frozen=True)
class ResizeSmoothBuffers:
    """Device addresses for one launch. 0 leaves an output out; without a score there is no need of a state.

    Attributes:
        tables: a copy of `ResizeSmoothPlan.tables.data`.
        patch_map: (N, h, w) float32 or float16, as the plan says.
        threshold: one float32; from this value on a pixel is in the mask. Infinity leaves the mask empty.
        state: N · STATE_BYTES, zero before the first launch, then left alone; of one stream only.
        anomaly_map: (N, H, W) float32.
        mask: (N, H, W) uint8, 255 where the map reaches the threshold inside of the box, else 0.
        score: (N,) float32; NaN when a value that counts is not finite.
    """

    tables: int
    patch_map: int
    threshold: int
    state: int = 0
    anomaly_map: int = 0
    mask: int = 0
    score: int = 0


class ResizeSmoothPlan:
    """Patch maps → anomaly maps, scores and masks, in one launch for a batch.

    Args:
        rows, columns: (H, h) and (W, w) float64: the operator of each axis.
        box: part of the map that counts for score and mask, half open; elsewhere the mask is 0.
        patch_box: part of the patch map that counts for the score `patch_max`.
        score: what the score is the maximum of.
        patch_type: element type of the patch map.

    Attributes:
        kernel: name of the entry point.
        tables: what has to be copied to the device.
        map_hw: rows and columns of the map.

    Raises: EngineError where the operator is too wide for a block's shared memory, or the map too large for a grid.
    """

    def __init__(
        self,
        rows: Float64Array,
        columns: Float64Array,
        *,
        box: Box,
        patch_box: Box,
        score: ScoreKind,
        patch_type: PatchType = "float32",
    ) -> None:
        row_taps, column_taps = (Banded.of(axis.astype(np.float32)) for axis in (rows, columns))
        tile_columns, tile_span = column_taps.reach(TILE_COLUMNS)
        self.map_hw = len(rows), len(columns)
        self.tables = Tables(
            row_starts=row_taps.starts,
            row_weights=row_taps.weights,
            column_starts=column_taps.starts,
            column_weights=column_taps.weights.T,
            tile_columns=tile_columns,
        )
        if score not in KERNEL_SCORES:
            raise EngineError(
                f"resize_smooth: the score {score!r} is none of its own; take the map of the engine's graph"
            )
        self.kernel = KERNELS[patch_type]
        self._grid = len(tile_columns), -(-len(rows) // TILE_ROWS)
        self._shared_bytes = 4 * (TILE_ROWS * tile_span + BLOCK_ROWS)
        if self._shared_bytes > SHARED_LIMIT_BYTES or self._grid[1] > GRID_LIMIT:
            raise EngineError(
                f"resize_smooth: a map of {len(rows)}x{len(columns)} from {rows.shape[1]}x{columns.shape[1]} patches"
                f" needs {self._shared_bytes} bytes of shared memory and {self._grid[1]} rows of blocks, a GPU has"
                f" {SHARED_LIMIT_BYTES} and {GRID_LIMIT}; take the map of the engine's graph"
            )
        sizes = (rows.shape[1], columns.shape[1], *self.map_hw, row_taps.taps, column_taps.taps, tile_span)
        self._shape = struct.pack(f"{SHAPE_FIELDS}i", *sizes, score == "patch_max", *box, *patch_box)

    @classmethod
    def on_model_grid(
        cls,
        geometry: FrameGeometry,
        patch_hw: tuple[int, int],
        postprocess: PostprocessSpec,
        patch_type: PatchType = "float32",
    ) -> ResizeSmoothPlan:
        """The map on which scores are defined, at model size. Padding counts nowhere.

        Args:
            geometry: where the frame lies on the model's canvas.
            patch_hw: rows and columns of the patch map.
            postprocess: the smoothing, and the kind of score.
        """
        if fault := kernel_fault(postprocess):
            raise EngineError(f"resize_smooth: {fault}; take the map of the engine's graph")
        rows, columns = (
            resize_smooth_matrix(n_in, n_out, postprocess)
            for n_in, n_out in zip(patch_hw, geometry.model_hw, strict=True)
        )
        shown = _shown_patches(geometry, patch_hw)
        return cls(
            _continued(rows, shown[1], shown[3]),
            _continued(columns, shown[0], shown[2]),
            box=geometry.content_box,
            patch_box=shown,
            score=postprocess.score,
            patch_type=patch_type,
        )

    @classmethod
    def on_frame(
        cls,
        geometry: FrameGeometry,
        patch_hw: tuple[int, int],
        postprocess: PostprocessSpec,
        patch_type: PatchType = "float32",
    ) -> ResizeSmoothPlan:
        """The map in frame pixels over `geometry.inspected_box`, as `edge_ad.image.operators.FrameMap.inside` makes it.

        Scores are not defined on it: launch it without one, or take it for what it is, the maximum of this map.
        """
        x_0, y_0 = geometry.region[:2]
        x_min, y_min, x_max, y_max = (edge - (x_0, y_0)[axis % 2] for axis, edge in enumerate(geometry.inspected_box))
        shown = _shown_patches(geometry, patch_hw)
        axes = []
        for n_patch, n_model, span, scale, offset, kept in (
            (patch_hw[0], geometry.model_hw[0], (y_min, y_max), geometry.scale_y, geometry.top, shown[1::2]),
            (patch_hw[1], geometry.model_hw[1], (x_min, x_max), geometry.scale_x, geometry.left, shown[0::2]),
        ):
            axis = frame_matrix(*span, scale, offset, n_model, n_patch, postprocess)
            axes.append(_continued(axis, *kept))
        return cls(
            *axes,
            box=(0, 0, x_max - x_min, y_max - y_min),
            patch_box=shown,
            score=postprocess.score,
            patch_type=patch_type,
        )

    def launch(self, batch: int, buffers: ResizeSmoothBuffers) -> Launch:
        """The launch for `batch` patch maps. Raises: EngineError for a batch that no grid holds."""
        if not 1 <= batch <= GRID_LIMIT:
            raise EngineError(f"resize_smooth: got a batch of {batch}, wanted 1 to {GRID_LIMIT}")
        return Launch(
            kernel=self.kernel,
            grid=(*self._grid, batch),
            block=(TILE_COLUMNS, BLOCK_ROWS, 1),
            shared_bytes=self._shared_bytes,
            format=FORMAT,
            values=(
                buffers.patch_map,
                *self.tables.addresses(buffers.tables),
                buffers.threshold,
                buffers.state,
                buffers.anomaly_map,
                buffers.mask,
                buffers.score,
                self._shape,
            ),
        )


def _continued(axis: Float64Array, first: int, last: int) -> Float64Array:
    """The operator for an input of which only [first, last) is known: the rest takes the value of the nearest one."""
    known: NDArray[np.float64] = np.zeros_like(axis)
    known[:, first:last] = axis[:, first:last]
    known[:, first] += axis[:, :first].sum(axis=1)
    known[:, last - 1] += axis[:, last:].sum(axis=1)
    return known


def _shown_patches(geometry: FrameGeometry, patch_hw: tuple[int, int]) -> Box:
    """Patches that show some of the frame, half open."""
    (rows, columns), (height, width) = patch_hw, geometry.model_hw
    x_min, y_min, x_max, y_max = geometry.content_box
    return (
        x_min * columns // width,
        y_min * rows // height,
        -(-x_max * columns // width),
        -(-y_max * rows // height),
    )
