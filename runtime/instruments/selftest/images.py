"""The frames that a self-test looks at: the user's own, or made up so that nothing of the path is left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import ImageError, SourceError
from edge_ad.image.frame import ImageArray
from edge_ad.image.pictures import read_picture
from edge_ad.runtime.sources.listing import pictures_in_folder

MOST_PICTURES = 48  # of the user's: enough for every figure here, and they are held in memory
QUARTER_HW = (270, 480)  # of 1080 x 1920, as cameras give it
TIMED_PICTURES = 4


@dataclass(frozen=True)
class FrameSet:
    """What is judged, and what is timed.

    Attributes:
        title: what they are, in words.
        judged: (H, W, 3) uint8 RGB each, of several sizes.
        timed: frames in turn for the timing, of the size that a camera gives.
        left_out: pictures that could not be read, one line each.
    """

    title: str
    judged: tuple[ImageArray, ...]
    timed: tuple[ImageArray, ...]
    left_out: tuple[str, ...] = ()


def frames_below(folder: Path) -> FrameSet:
    """The user's own pictures: at most 48, evenly chosen. Raises: SourceError when none can be read."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise SourceError(f"images {folder}: {what}; wanted a folder of pictures")
    paths = pictures_in_folder(str(folder))
    places = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), MOST_PICTURES)).round().astype(int))
    frames, left_out = [], []
    for place in places:
        try:
            frames.append(read_picture(paths[place]))
        except ImageError as exc:
            left_out.append(str(exc))
    if not frames:
        raise SourceError(f"images {folder}: none of {len(places)} pictures can be read: {left_out[0]}")
    count = f"{len(frames)} of {len(paths)} pictures" if len(frames) < len(paths) else f"{len(frames)} pictures"
    return FrameSet(
        f"{count} of {folder.name or folder}", tuple(frames), tuple(frames[:TIMED_PICTURES]), tuple(left_out)
    )


def made_up_frames(size_hw: tuple[int, int], seed: int) -> FrameSet:
    """Frames drawn from a seed: texture, edges, faint and full contrast, in sizes around that of the model.

    Args:
        size_hw: of the model's input. Frames have that size, are larger and smaller, wide, tall, and of odd sizes.
    """
    rng = np.random.default_rng(seed)
    height, width = size_hw
    sizes = [
        (height, width),
        (2 * height, 2 * width),
        (height + 13, 2 * width + 7),
        (2 * height + 7, width + 13),
        (max(1, height // 2 - 1), max(1, width // 2 + 1)),
        (3 * height + 1, 3 * width + 2),
    ]
    judged = []
    for number, frame_hw in enumerate(sizes):
        judged.append(_texture(rng, frame_hw, contrast=(60, 6, 110)[number % 3]))
        judged.append(_part(rng, frame_hw, faint=number % 2 == 1))
    quarters = (_part(rng, QUARTER_HW, faint=number % 2 == 1) for number in range(TIMED_PICTURES))
    timed = tuple(quarter.repeat(4, axis=0).repeat(4, axis=1) for quarter in quarters)
    return FrameSet(f"{len(judged)} made-up pictures, seed {seed}", tuple(judged), timed)


def _texture(rng: np.random.Generator, frame_hw: tuple[int, int], contrast: float) -> ImageArray:
    """Blotches of several sizes on a slope."""
    height, width = frame_hw
    field = np.zeros((height, width, 3))
    for cells in (3, 9, 31):
        field += _enlarged(rng.standard_normal((cells, cells, 3)), frame_hw) / np.log2(cells)
    rows, columns = np.linspace(-30, 30, height)[:, None, None], np.linspace(-20, 20, width)[None, :, None]
    return _grey_levels(128 + rows + columns + contrast * field + rng.normal(0, 2, field.shape))


def _part(rng: np.random.Generator, frame_hw: tuple[int, int], faint: bool) -> ImageArray:
    """A bright disc on a dark ground, with a scratch, a row of checks and a blot: sharp edges, faint ones at will."""
    height, width = frame_hw
    rows, columns = np.mgrid[:height, :width]
    picture = np.full((height, width, 3), 60.0) + rng.uniform(-15, 15, 3)
    unit = min(frame_hw)
    inside = np.hypot(rows - height / 2, columns - width / 2) < 0.4 * unit
    picture[inside] = rng.uniform(140, 210, 3)
    strength = 12.0 if faint else 90.0
    scratch = (
        np.abs(rows - height * rng.uniform(0.3, 0.7) - rng.uniform(-0.5, 0.5) * (columns - width / 2)) < 1 + unit / 90
    )
    picture[scratch & inside] -= strength
    size = max(1, unit // 24)
    checks = (rows // size + columns // size) % 2 == 0
    picture[checks & (np.abs(columns - width * rng.uniform(0.35, 0.65)) < 2 * size) & inside] += strength / 2
    blot = np.hypot(rows - height * rng.uniform(0.3, 0.7), columns - width * rng.uniform(0.3, 0.7))
    picture += (strength * np.exp(-((blot / (0.05 * unit + 1)) ** 2)))[..., None] * [1.0, 0.4, -0.6]
    return _grey_levels(picture + rng.normal(0, 2, picture.shape))


def _enlarged(field: NDArray[np.float64], frame_hw: tuple[int, int]) -> NDArray[np.float64]:
    """The nearest cell for every pixel: blotches with edges."""
    rows, columns = (np.arange(n) * cells // n for n, cells in zip(frame_hw, field.shape, strict=False))
    enlarged: NDArray[np.float64] = field[rows][:, columns]
    return enlarged


def _grey_levels(picture: NDArray[np.float64]) -> ImageArray:
    return np.clip(picture.round(), 0, 255).astype(np.uint8)
