"""What `preprocess.cu` needs: Pillow's filter as taps, the placement on the canvas, arguments and launch geometry.

The kernel computes with Pillow's own fixed-point weights, as `edge_ad/image/resize/resize.c` does. A difference is left
on machines where that was not compiled only: see `edge_ad/image/resize/strips.py`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.errors import EngineError
from edge_ad.image.banded import Banded, resize_taps
from edge_ad.image.frame import Box
from edge_ad.image.geometry import place
from edge_ad.runtime.engines.tensorrt.kernels.launch import GRID_LIMIT, SHARED_LIMIT_BYTES, Launch, Tables

FrameFormat = Literal["rgb", "bgr", "nv12"]
ImageType = Literal["uint8", "float16"]

TILE_COLUMNS, BLOCK_ROWS = 32, 8
TILE_ROWS = (16, 8, 4, 2, 1)  # the first that fits is taken
SHAPE_FIELDS = 16  # int32 fields of PreprocessShape
FORMAT = f"{'P' * 8}{4 * SHAPE_FIELDS}s"
SUFFIX: dict[ImageType, str] = {"uint8": "u8", "float16": "half"}


@dataclass(frozen=True)
class PreprocessBuffers:
    """Device addresses for one launch.

    Attributes:
        tables: a copy of `PreprocessPlan.tables.data`.
        frame: first byte of the packed pixels, or of NV12's Y plane.
        image: where the model input goes, (H, W, 3).
        pitch: bytes from one row of the frame to the next; 0 when rows follow each other.
        chroma: first byte of NV12's UV plane.
        chroma_pitch: as `pitch`, of that plane.
    """

    tables: int
    frame: int
    image: int
    pitch: int = 0
    chroma: int = 0
    chroma_pitch: int = 0


class PreprocessPlan:
    """Frames of one size and format → model inputs: (H, W, 3) RGB, 0 to 255.

    Args:
        spec: target size and mode.
        frame_hw: rows and columns of the frame.
        frame_format: `rgb` and `bgr` are packed; `nv12` is BT.601, limited range.
        image_type: element type of the model input; float16 holds the same whole grey levels as uint8.

    Attributes:
        geometry: where the pixels of the model input lie in the frame.
        kernel: name of the entry point.
        tables: what has to be copied to the device.
        tile_rows: rows of the model input that a block makes.
        source_box: the pixels of the frame that the kernel reads, half open: left, top, right, bottom. No others need
            to be there.

    Raises: EngineError where a frame is so much larger than the model input that a block's shared memory does not do.
    """

    def __init__(
        self,
        spec: PreprocessSpec,
        frame_hw: tuple[int, int],
        frame_format: FrameFormat = "bgr",
        image_type: ImageType = "uint8",
    ) -> None:
        self.geometry = place(spec, frame_hw)
        self.frame_format: FrameFormat = frame_format
        self._pad_rgb = spec.pad_rgb
        left, top, right, bottom = self._box = self.geometry.content_box
        (frame_rows, frame_columns), (resized_rows, resized_columns) = frame_hw, self.geometry.resized_hw
        rows = _on_canvas(resize_taps(frame_rows, resized_rows), self.geometry.top, top, bottom, spec.height)
        columns = _on_canvas(resize_taps(frame_columns, resized_columns), self.geometry.left, left, right, spec.width)
        self.tile_rows, tile_starts, self._tile_span = _tiles(rows)
        self.tables = Tables(
            row_starts=rows.starts,
            row_weights=rows.weights,
            column_starts=columns.starts,
            column_weights=columns.weights.T,
            tile_starts=tile_starts,
        )
        self.source_box: Box = (
            int(columns.starts.min()),
            int(tile_starts.min()),
            int(columns.starts.max()) + columns.taps,
            int(tile_starts.max()) + self._tile_span,
        )
        self._taps = rows.taps, columns.taps
        self.kernel = f"preprocess_{'nv12' if frame_format == 'nv12' else 'packed'}_{SUFFIX[image_type]}"
        self._grid = -(-spec.width // TILE_COLUMNS), len(tile_starts)
        if self._grid[1] > GRID_LIMIT:
            raise EngineError(f"preprocess: got a model input of {spec.height} rows, too many; resize on the CPU")

    def launch(self, buffers: PreprocessBuffers) -> Launch:
        """The launch for one frame."""
        frame_columns = self.geometry.frame_hw[1]
        packed = self.frame_format != "nv12"
        shape = struct.pack(
            f"{SHAPE_FIELDS}i",
            buffers.pitch or frame_columns * (3 if packed else 1),
            buffers.chroma_pitch or (frame_columns + 1) // 2 * 2,
            2 if self.frame_format == "bgr" else 0,
            *self.geometry.model_hw,
            *self._box,
            *self._taps,
            self.tile_rows,
            self._tile_span,
            *self._pad_rgb,
        )
        return Launch(
            kernel=self.kernel,
            grid=(*self._grid, 1),
            block=(TILE_COLUMNS, BLOCK_ROWS, 1),
            shared_bytes=_shared_bytes(self._tile_span),
            format=FORMAT,
            values=(buffers.frame, buffers.chroma, *self.tables.addresses(buffers.tables), buffers.image, shape),
        )


def _on_canvas(taps: Banded, offset: int, first: int, last: int, length: int) -> Banded:
    """Banded for every sample of a canvas that shows the resized axis in [first, last); padding repeats the nearest."""
    shown = np.clip(np.arange(length), first, last - 1) + offset
    return Banded(taps.starts[shown], taps.weights[shown], taps.n_in)


def _tiles(rows: Banded) -> tuple[int, NDArray[np.int32], int]:
    """Rows of a tile, the first source row of each, and how many source rows each reads."""
    for tile_rows in TILE_ROWS:
        starts, span = rows.reach(tile_rows)
        if _shared_bytes(span) <= SHARED_LIMIT_BYTES:
            return tile_rows, starts, span
    raise EngineError(
        f"preprocess: one row of the model input needs {span} rows of the frame, the kernel holds"
        f" {SHARED_LIMIT_BYTES // (3 * TILE_COLUMNS)}; resize on the CPU"
    )


def _shared_bytes(tile_span: int) -> int:
    return tile_span * TILE_COLUMNS * 3
