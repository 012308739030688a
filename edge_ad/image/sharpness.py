"""How sharp a frame is, as a number that blur lowers and hardly anything else does.

Blur takes the fine detail of a frame away and leaves the coarse one. Measured is therefore how strong detail of about 4
pixels is against detail of about 16 pixels, both along the same direction, so that brightness, contrast and shading
cancel. Four directions are looked at and the weakest counts, since motion blurs along one. It is measured in parts of
the frame, and the sharper ones count: a defect or a foreign body spoils some of them, blur spoils all.

Noise is detail too, and would make a blurred frame look sharp. Its energy is estimated on the finest scale, where it is
nearly alone, and subtracted on both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import ImageArray

PARTS = 5  # in both directions
SHARPER = 0.75  # quantile of the parts that counts
COARSE = 4  # distance of the coarse detail, in pixels of the grid of half the size; the fine one has 1
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
ROWS = 2  # every other row of that grid shows as much
NOISE_ROWS = 8  # every eighth row of the frame is enough for the noise
MIN_SIDE = 2 * (2 * COARSE + 4 * PARTS)  # pixels; parts would be smaller than 4 x 4
NOISE_GAIN = 6.0  # energy that 2a - b - c has for noise of energy 1
NOISE_LEFT = 0.05  # of the noise, which its estimate may miss; fine detail below cannot be told from none
STRUCTURE = 3.0  # times the energy of the noise; a part with less of it tells nothing
LEAST_NOISE = 12.0  # rounding to grey levels alone, alike in 12 neighbouring values of a smooth picture: 12**2 / 12
LOWEST = (1 / COARSE**2) ** 2
"""Sharpness of a picture that is blurred without limit: its second differences grow with the distance squared."""

Floats = NDArray[np.float32]


def sharpness(image_hwc: ImageArray) -> float | None:
    """How strong fine detail is, relative to coarse detail.

    Args:
        image_hwc: (H, W, 3) uint8, at model size, without padding.

    Returns: about 0.05 to 1 for sharp pictures of parts and textures, near `LOWEST` for completely blurred ones; None
        for a picture that is smaller than `MIN_SIDE`, or has too little structure above its noise to tell.
    """
    height, width = image_hwc.shape[0] // 2 * 2, image_hwc.shape[1] // 2 * 2
    if min(height, width) < MIN_SIDE:
        return None
    halved, noise = _halved(image_hwc[:height, :width])
    noise *= NOISE_GAIN
    fine, coarse = _energies(halved, 1) - noise, _energies(halved, COARSE) - noise
    structured = coarse > STRUCTURE * noise
    ratios = np.maximum(fine, NOISE_LEFT * noise) / np.where(structured, coarse, 1.0)
    of_directions = [
        _quantile(of_parts[told], SHARPER) for of_parts, told in zip(ratios, structured, strict=True) if told.any()
    ]
    return min(of_directions, default=None)


def _halved(image_hwc: ImageArray) -> tuple[Floats, float]:
    """Sums of 2 x 2 pixels in all colours, (H/2, W/2), and the variance that noise has in them."""
    height, width = image_hwc.shape[0] // 2, image_hwc.shape[1] // 2
    flat = image_hwc.reshape(2 * height, width * 6)
    # Six values make a sum. Two of 16 bits are added at once, as one of 32; none of them can overflow.
    values = np.add(flat[::2], flat[1::2], dtype=np.uint16).view(np.uint32).reshape(height, width, 3)
    pairs = values[..., 0] + values[..., 1]
    pairs += values[..., 2]
    halved = ((pairs & 0xFFFF) + (pairs >> 16)).astype(np.float32)
    # Differences along the diagonals of the 2 x 2 pixels: as much noise as in their sum, and next to nothing else.
    lines = np.subtract(flat[::NOISE_ROWS], flat[1::NOISE_ROWS], dtype=np.int16)
    lines = lines[:, :-3] - lines[:, 3:]
    diagonal = np.abs(lines[:, :-2:6] + lines[:, 1:-1:6] + lines[:, 2::6]).ravel().astype(np.float32)
    deviation = _quantile(diagonal, 0.5) / 0.6745  # of normal noise; the median passes over what edges add
    return halved, max(deviation**2, LEAST_NOISE)


def _energies(grid: Floats, distance: int) -> NDArray[np.float32]:
    """Mean squares of the second differences along each direction in each part, (4, parts); of every other row."""
    rows, columns = ((side - 2 * COARSE) // PARTS for side in grid.shape)
    rows //= ROWS
    height, width = ROWS * rows * PARTS, columns * PARTS

    def moved(dy: int, dx: int) -> Floats:
        top, left = COARSE + dy * distance, COARSE + dx * distance
        return grid[top : top + height : ROWS, left : left + width]

    twice = 2 * moved(0, 0)
    second = np.empty_like(twice)
    by_part = second.reshape(PARTS, rows, width)
    sums = np.empty((len(DIRECTIONS), PARTS, width), np.float32)
    for (dy, dx), out in zip(DIRECTIONS, sums, strict=True):
        np.add(moved(dy, dx), moved(-dy, -dx), out=second)
        np.subtract(second, twice, out=second)
        np.einsum("prc,prc->pc", by_part, by_part, out=out)
    energies: NDArray[np.float32] = sums.reshape(len(DIRECTIONS), -1, columns).mean(axis=2) / rows
    return energies


def _quantile(values: NDArray[Any], share: float) -> float:
    """The value at a share of the ordered ones; `np.quantile` alone takes as long as all of the rest."""
    rank = min(int(share * values.size), values.size - 1)
    return float(np.partition(values, rank)[rank])
