"""The frames of a measurement: a picture of the user's, or one that is the same on every machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from edge_ad.image.frame import ImageArray
from edge_ad.image.pictures import read_picture

MADE = "made:1"
TILE = 24


def frame_of(image: Path | None, frame_hw: tuple[int, int]) -> tuple[ImageArray, str]:
    """A decoded frame, (H, W, 3) uint8 RGB, and what it is called in a baseline.

    Raises: ImageError for a picture that cannot be read.
    """
    if image is None:
        return made_frame(frame_hw), MADE
    picture = read_picture(str(image))
    return picture, f"sha256:{hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()}"


def made_frame(frame_hw: tuple[int, int]) -> ImageArray:
    """Tiles of any brightness with grain on them: neither black nor flat, and the same for the same size."""
    height, width = frame_hw
    rng = np.random.default_rng(1)
    tiles = rng.integers(60, 190, (-(-height // TILE), -(-width // TILE), 3), dtype=np.uint8)
    large = tiles.repeat(TILE, axis=0)[:height].repeat(TILE, axis=1)[:, :width]
    return np.ascontiguousarray(large + rng.integers(0, 40, (height, width, 3), dtype=np.uint8))
