"""Variations of good pictures that count as good as well: turned, mirrored, moved, lit differently.

Each picture is learned from as it is, and in some variations of it, which are drawn once from the seed: a picture has
the same ones in every epoch, so features can be kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import ImageArray
from edge_ad.models.training.drawing import VARIATION, generator

Turn = Literal["none", "90", "any"]
"""Angles at which parts lie: all alike, in quarters of a turn, or any."""
Flip = Literal["none", "across", "down", "both"]
"""Which mirror images count as good."""

ANY_ANGLE, FEW = 11, 3
"""Variations of a picture where parts lie at any angle (30 degrees apart, on average), and where they do not."""
ENOUGH_PICTURES, MANY_PICTURES = 300, 2000
"""Turned copies are drawn up to so many pictures in all; of more pictures than that still FEW, up to the second."""


@dataclass(frozen=True)
class Variation:
    """What is done to one picture.

    Attributes:
        angle_deg: by which it is turned about its centre, counter-clockwise.
        flip_across, flip_down: whether it is mirrored left to right, and top to bottom.
        shift_yx: how far it is moved then, as shares of its height and width.
        gain: what its values are multiplied by.
    """

    angle_deg: float = 0.0
    flip_across: bool = False
    flip_down: bool = False
    shift_yx: tuple[float, float] = (0.0, 0.0)
    gain: float = 1.0

    def of_picture(self, image_hwc: ImageArray) -> ImageArray:
        """(H, W, 3) uint8 → the same size, newly allocated; what comes in at an edge mirrors what lies there."""
        moved = np.asarray(self._moved(image_hwc, cv2.INTER_LINEAR), np.uint8)
        if self.gain == 1:
            return moved
        return np.asarray(np.rint(moved * np.float32(self.gain)).clip(0, 255), np.uint8)

    def of_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(H, W) bool → what the variation makes of it."""
        return self._moved(mask.astype(np.uint8), cv2.INTER_NEAREST).astype(np.bool_)

    def _moved(self, pixels: NDArray[np.uint8], interpolation: int) -> NDArray[Any]:
        height, width = pixels.shape[:2]
        flipped = pixels[:: -1 if self.flip_down else 1, :: -1 if self.flip_across else 1]
        quarters = self.angle_deg / 90
        if quarters.is_integer() and self.shift_yx == (0.0, 0.0) and (height == width or quarters % 2 == 0):
            return np.ascontiguousarray(np.rot90(flipped, int(quarters)))  # exact: nothing is interpolated
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), self.angle_deg, 1.0)
        matrix[:, 2] += self.shift_yx[1] * width, self.shift_yx[0] * height
        return cv2.warpAffine(
            np.ascontiguousarray(flipped), matrix, (width, height), flags=interpolation, borderMode=cv2.BORDER_REFLECT
        )


@dataclass(frozen=True)
class Variations:
    """Which variations of good pictures count as good.

    Attributes:
        rotate, flip: see `Turn` and `Flip`.
        shift: farthest that a part may lie from where it lies in a picture, as a share of the picture's sides: 0..1.
        light: how much brighter or darker than in a picture it may be, as a share: 0..1.
        copies: variations of each picture beside itself; 0 where none is asked for.
        seed: that they are drawn from.
    """

    rotate: Turn = "none"
    flip: Flip = "none"
    shift: float = 0.0
    light: float = 0.0
    copies: int = 0
    seed: int = 0

    def __str__(self) -> str:
        """In words."""
        angles = {"none": "", "90": "turned by quarters", "any": "turned by any angle"}[self.rotate]
        mirrored = {"none": "", "across": "mirrored left to right", "down": "mirrored top to bottom"}
        parts = [
            angles,
            mirrored.get(self.flip, "mirrored"),
            f"moved by up to {self.shift:.0%}" if self.shift else "",
            f"lit by up to {self.light:.0%} more or less" if self.light else "",
        ]
        return ", ".join(part for part in parts if part)

    def of(self, number: int, copy: int) -> Variation | None:
        """What is done to picture `number` in its variation `copy`; None for the 0th, the picture itself."""
        if copy == 0:
            return None
        rng = generator(self.seed, VARIATION, number, copy)
        flip_across = self.flip in ("across", "both") and bool(rng.integers(2))
        flip_down = self.flip in ("down", "both") and bool(rng.integers(2))
        within = rng.uniform(-1, 1, 4)
        angle = 0.0
        if self.rotate == "90":
            angle = 90.0 * (copy % 4)
        elif self.rotate == "any":
            angle = 360 * (copy + within[3] / 2) / (self.copies + 1)
        elif self.shift == self.light == 0:  # nothing but mirror images, of which a picture has few
            flip_across = self.flip in ("across", "both") and copy % 2 == 1
            flip_down = self.flip == "down" or (self.flip == "both" and copy // 2 % 2 == 1)
        shift = float(within[0] * self.shift), float(within[1] * self.shift)
        return Variation(angle, flip_across, flip_down, shift, float(1 + within[2] * self.light))


def copies_of(rotate: Turn, flip: Flip, shift: float, light: float, pictures: int) -> int:
    """How many variations there should be of each of so many pictures."""
    moved = shift > 0 or light > 0
    if rotate == "none" and not moved:
        return {"none": 0, "across": 1, "down": 1, "both": 3}[flip]
    if rotate != "any":
        return FEW
    few = min(FEW, MANY_PICTURES // pictures - 1)
    return max(1 if moved else 0, min(ANY_ANGLE, max(few, math.ceil(ENOUGH_PICTURES / pictures) - 1)))
