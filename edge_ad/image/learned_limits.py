"""What a line's good frames look like → from what on a frame of it shows too little to be judged.

A limit lies far beyond the good frames, and farther the fewer of them there are: a defect, another lot or a lamp that
ages must not make a frame unusable. Single good frames that are black or blurred are no measure: they were taken
wrongly. Where a tenth of them is black, that is how the line looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import UsabilityLimits
from edge_ad.image.frame import ImageArray
from edge_ad.image.preprocess import ModelInput
from edge_ad.image.sharpness import LOWEST, sharpness
from edge_ad.image.usability import EVERY_LINE, SHARE, colour_extremes, has_one_colour, shown

MIN_IMAGES = 5  # to say anything about sharpness
MANY_IMAGES = 20  # from which on the margin is not widened
MOTION_STEPS = {(0, 1): 9, (1, 0): 9, (1, 1): 7, (1, -1): 7}  # about 9 pixels in all directions: blur to be noticed
MOTION_QUANTILE, MOTION_RESERVE = 0.95, 1.15  # of the good frames, and for directions in between
LEAST_MARGIN, MOST_MARGIN = 2.0, 3.0  # of the lowest sharpness among the good frames to the limit
SPREAD_POWER = 1.5  # of median to lowest sharpness: where good frames differ much, others differ more
STRAY_RATIO = 3.0  # below the median by this, and not usual: a blurred picture among the good ones
USUAL_SHARE = 0.1  # of the good frames; and two of them at least, unless there is only one


@dataclass(frozen=True)
class FrameLooks:
    """What limits are learned from.

    Attributes:
        sharpness: see `edge_ad.image.sharpness`; None where it cannot be told.
        moved: the highest sharpness that it has when it is blurred by a motion of about 9 pixels, of four directions.
        bright: grey level that all but 0.1 % of the pixels stay at or below, in their strongest colour.
        dark: grey level that all but 0.1 % of the pixels stay at or above, in their weakest colour.
        one_colour: whether all pixels are the same.
    """

    sharpness: float | None
    moved: float | None
    bright: int
    dark: int
    one_colour: bool


def looks_of(model_input: ModelInput) -> FrameLooks:
    """Measure the part of a model input that shows the frame."""
    image = shown(model_input)
    highest, lowest = colour_extremes(image)
    rank = int((1 - SHARE) * highest.size)
    return FrameLooks(
        sharpness(image),
        _moved_sharpness(image),
        255 - _ranked(255 - highest, rank),
        _ranked(lowest, rank),
        has_one_colour(image),
    )


@dataclass(frozen=True)
class Learned:
    """Limits, and what the user should know of them, one line each."""

    limits: UsabilityLimits
    notes: tuple[str, ...]


def learn_limits(frames: Sequence[FrameLooks]) -> Learned:
    """Limits for a line whose good frames look like these; those of every line where there are none."""
    if not frames:
        return Learned(EVERY_LINE, ())
    notes: list[str] = []
    lowest = _usual_end([frame.bright for frame in frames], EVERY_LINE.black_below, min)
    highest = _usual_end([frame.dark for frame in frames], EVERY_LINE.saturated_above, max)
    share = 2 if len(frames) >= MANY_IMAGES else 4
    black = min(EVERY_LINE.black_below, lowest // share)
    saturated = max(EVERY_LINE.saturated_above, 255 - (255 - highest) // share)
    if black < EVERY_LINE.black_below:
        what = (
            f"is black only below grey level {black}" if black else "is never too dark, so a covered lens is not seen"
        )
        notes.append(f"good frames are dark (the darkest reaches grey level {lowest}): a frame {what}")
    if saturated > EVERY_LINE.saturated_above:
        what = f"is saturated only above grey level {saturated}" if saturated < 255 else "is never too bright"
        notes.append(f"good frames are bright (the brightest begins at grey level {highest}): a frame {what}")
    one_colour = _usual(sum(frame.one_colour for frame in frames), len(frames))
    if one_colour:
        notes.append("good frames of one colour are usual: a camera that gives no picture is not seen")
    visible = [frame for frame in frames if frame.bright >= black and frame.dark <= saturated]
    measured = [frame.sharpness for frame in visible if frame.sharpness is not None]
    moved = [frame.moved for frame in visible if frame.moved is not None]
    least = _sharpness_min(measured, moved, len(frames), notes)
    return Learned(UsabilityLimits(len(frames), least, black, saturated, one_colour), tuple(notes))


def _sharpness_min(measured: list[float], moved: list[float], frames: int, notes: list[str]) -> float | None:
    """The least sharpness that is no blur; None, and why in `notes`, where good frames do not tell.

    It lies where motion would bring good frames, but never near them.
    """
    if len(measured) < max(MIN_IMAGES, frames / 2):
        notes.append(
            f"blur is not looked for: of {frames} good images {len(measured)} show enough structure to measure"
            f" sharpness, wanted {max(MIN_IMAGES, -(-frames // 2))}"
        )
        return None
    middle = median(measured)
    kept = [value for value in measured if value >= middle / STRAY_RATIO]
    strays = len(measured) - len(kept)
    if strays > USUAL_SHARE * len(measured):
        kept, strays = measured, 0
    lowest = min(kept)
    noticed = MOTION_RESERVE * sorted(moved)[int(MOTION_QUANTILE * (len(moved) - 1))] if moved else 0.0
    margin = min(max(lowest / noticed, LEAST_MARGIN), MOST_MARGIN) if noticed else MOST_MARGIN
    margin = max(margin, (middle / lowest) ** SPREAD_POWER) * max(1.0, (MANY_IMAGES / len(measured)) ** 0.5)
    limit: float = lowest / margin
    if limit <= 2 * LOWEST:
        notes.append(
            f"blur is not looked for: the sharpness of good images goes down to {lowest:.2g} (median {middle:.2g}),"
            " which blurred ones have too"
        )
        return None
    if strays:
        notes.append(f"{strays} of {frames} good images are far blurrier than the others and were left out")
    notes.append(
        f"a frame is too blurred to be judged below sharpness {limit:.2g}; {len(measured)} good images have"
        f" {lowest:.2g} to {max(kept):.2g}"
    )
    return limit


def _moved_sharpness(image_hwc: ImageArray) -> float | None:
    found = []
    for (dy, dx), steps in MOTION_STEPS.items():
        height, width = image_hwc.shape[0] - dy * (steps - 1), image_hwc.shape[1] - abs(dx) * (steps - 1)
        if min(height, width) < 1:
            return None
        left = (steps - 1) * (dx < 0)
        total = np.zeros((height, width, 3), np.uint16)
        for step in range(steps):
            top, start = step * dy, left + step * dx
            total += image_hwc[top : top + height, start : start + width]
        found.append(sharpness(((total + steps // 2) // steps).astype(np.uint8)))
    return max((value for value in found if value is not None), default=None)


def _usual_end(levels: list[int], limit: int, end: Callable[[Sequence[int]], int]) -> int:
    """The outermost level of the good frames; those beyond the limit count where they are usual."""
    within = [level for level in levels if end((level, limit)) == limit]
    return end(levels) if _usual(len(levels) - len(within), len(levels)) else end(within)


def _usual(count: int, frames: int) -> bool:
    return count >= max(min(2, frames), USUAL_SHARE * frames)


def _ranked(values: NDArray[np.uint8], rank: int) -> int:
    return int(np.partition(values, rank, axis=None)[rank])
