"""Whether good pictures show the same part at several angles, found out by laying them over one another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.datasets import Sample, read_image
from edge_ad.errors import ImageError
from edge_ad.models.training.options import OptionsT
from edge_ad.models.training.variations import Turn

LOOKED_AT = 16
"""Pictures, spread evenly over all."""
ROOMY = 8  # times SIDE: the longer side at which pictures wait until it is known what size most of them have
SIDE, REACH = 96, 10
"""Longer side of a picture that is compared, and how far it is moved in search of the best place, in pixels."""
STEP_DEG, UPRIGHT_DEG = 10, 10
"""Angles that are tried lie so far apart, and count as upright up to the second."""
CLEARLY = 0.07
"""By how much the correlation at another angle has to exceed that upright."""
ALIKE = 0.5
"""Correlation from which on two pictures show the same at all: of textures, some angle always fits best by chance."""
LEAST_SHARE = 0.4
"""Of the pairs that are clearly turned, from which on parts are taken to lie at several angles: of parts at random
angles 17 in 18 pairs are; pictures in which a few parts were laid down otherwise are left below."""
QUARTERS_SHARE = 0.9
"""Of the turned pairs that lie a quarter of a turn or two apart, from which on all are taken to."""


def angles_of(samples: Sequence[Sample]) -> Turn:
    """At which angles parts lie in good pictures; `none` where that cannot be told, as of what looks alike at all."""
    turns = [turn for before, after in pairwise(_small(samples)) if (turn := turn_between(before, after)) is not None]
    turned = [turn for turn in turns if turn != 0]
    if len(turned) < LEAST_SHARE * max(len(turns), 2):
        return "none"
    quarters = sum(min(turn % 90, -turn % 90) <= STEP_DEG for turn in turned)
    return "90" if quarters >= QUARTERS_SHARE * len(turned) else "any"


def with_angles(options: OptionsT, samples: Sequence[Sample]) -> OptionsT:
    """The options with the angles chosen, where the pictures are to choose them."""
    return options.varying(angles_of(samples)) if options.rotate == "auto" else options


def turn_between(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> int | None:
    """By how many degrees the second of two grey pictures is turned against the first.

    0 where no other angle fits well, and clearly better than upright; None where a picture is all of one grey.
    """
    height, width = after.shape
    field = cv2.copyMakeBorder(before, *(REACH,) * 4, cv2.BORDER_REFLECT)
    if before.std() < 1 or after.std() < 1:
        return None
    found = {}
    for angle in range(0, 360, STEP_DEG):
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        turned = cv2.warpAffine(after, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
        found[angle] = float(cv2.matchTemplate(field, turned, cv2.TM_CCOEFF_NORMED).max())
    upright = max(value for angle, value in found.items() if min(angle, 360 - angle) <= UPRIGHT_DEG)
    best = max(found, key=lambda angle: found[angle])
    return best if found[best] >= max(ALIKE, upright + CLEARLY) else 0


def _small(samples: Sequence[Sample]) -> list[NDArray[np.uint8]]:
    """Some of the pictures that can be read, grey, all of the size that most of their shapes have."""
    count = min(len(samples), LOOKED_AT)
    shapes: list[tuple[int, int]] = []
    reduced: list[NDArray[np.uint8]] = []
    for index in range(count):
        try:
            image = read_image(samples[index * len(samples) // count])
        except ImageError:
            continue
        shapes.append((image.shape[0], image.shape[1]))
        # One at a time, for pictures may be large; the common size is not known yet.
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        reduced.append(_resized(grey, _within(shapes[-1], min(ROOMY * SIDE, max(shapes[-1])))))
    if not shapes:
        return []
    size_hw = _within(sorted(shapes)[len(shapes) // 2], SIDE)
    return [_resized(grey, size_hw) for grey in reduced]


def _within(size_hw: tuple[int, int], side: int) -> tuple[int, int]:
    """A size of the same shape whose longer side is `side`."""
    scale = side / max(size_hw)
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))


def _resized(grey: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(grey, size_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)
