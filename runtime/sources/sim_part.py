"""The scenery of the simulated line: a turned metal disc with bolt holes, and the belt it lies on.

Everything here is painted once when the line starts. Lengths with `_of_radius` are in units of the disc's radius.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import ImageArray
from edge_ad.runtime.host.opencv import load_cv2

Plane = NDArray[np.floating[Any]]

HOLE_COUNT = 6
HOLE_CIRCLE_OF_RADIUS = 0.76
HOLE_OF_RADIUS = 0.058
COUNTERSINK_OF_RADIUS = 0.084
BORE_OF_RADIUS = 0.20
SHADOW_OF_RADIUS = 0.14
_MARK_MODULES = 14

# Turned profile, from the middle outwards: (end of the section in radii, slope dh/dr in it).
_PROFILE = (
    (0.20, 0.0),
    (0.235, 1.1),
    (0.50, 0.0),
    (0.53, -1.3),
    (0.585, 0.0),
    (0.60, -1.2),
    (0.615, 1.2),
    (0.935, 0.0),
    (0.95, 0.35),
    (1.00, -0.75),
)
_LIGHT = np.array([-0.46, -0.58, 0.67], np.float32)
_METAL_BGR = np.array([1.03, 1.0, 0.965], np.float32)
_BELT_BGR = np.array([43.0, 41.0, 38.0], np.float32)


@dataclass(frozen=True)
class PartPicture:
    """The disc in the middle of a square.

    Attributes:
        premultiplied_bgr: (S, S, 3) uint8, colour times coverage.
        uncovered: (S, S, 3) uint8, how much of the belt shows through: 255 outside, 0 on the disc, between in
            the shadow. It does not change when the disc turns.
        radius: of the disc, pixels.
    """

    premultiplied_bgr: ImageArray
    uncovered: ImageArray
    radius: float


def hole_centers(radius: float, angle: float) -> NDArray[np.float64]:
    """(HOLE_COUNT, 2) x and y of the bolt holes of a disc turned by `angle` radians, from its centre, pixels."""
    angles = angle + np.arange(HOLE_COUNT) * (2 * np.pi / HOLE_COUNT)
    return radius * HOLE_CIRCLE_OF_RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def paint_part(radius: float, seed: int) -> PartPicture:
    """Paint the disc with its bolt holes."""
    cv2 = load_cv2()
    rng = np.random.default_rng([seed, 1])
    half = int(np.ceil(radius * (1 + 2 * SHADOW_OF_RADIUS))) + 2
    axis = np.arange(-half, half + 1, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    distance = np.hypot(x, y)
    r = distance / np.float32(radius)
    unit_x, unit_y = x / np.maximum(distance, 1e-3), y / np.maximum(distance, 1e-3)
    slope = _radial_slope(cv2, r, radius)
    gradient_x, gradient_y = slope * unit_x, slope * unit_y

    bright = _brushed(cv2, rng, r, np.arctan2(y, x)) * (0.74 + 0.30 * _sheen(unit_x, unit_y))
    bright *= np.where((r > 0.585) & (r < 0.62), np.float32(0.62), np.float32(1.0))
    pixel = 1.2 / radius
    depth = _step(BORE_OF_RADIUS, r, pixel)
    for center_x, center_y in hole_centers(radius, 0.0):
        to_x, to_y = (x - np.float32(center_x)), (y - np.float32(center_y))
        d = np.hypot(to_x, to_y) / np.float32(radius)
        sunk = _step(COUNTERSINK_OF_RADIUS, d, pixel) * (1 - _step(HOLE_OF_RADIUS, d, pixel))
        scale = sunk / np.maximum(d * radius, 1e-3)
        gradient_x, gradient_y = gradient_x + to_x * scale, gradient_y + to_y * scale
        depth = np.maximum(depth, _step(HOLE_OF_RADIUS, d, pixel))

    lit = _lambert(gradient_x, gradient_y)
    grey = 172 * bright * lit + 70 * np.maximum(lit - 1.02, 0) * bright
    _engrave(grey, radius, half, rng)
    wall = 20 + 20 * np.clip((x * 0.6 + y * 0.8) / radius, -1, 1)
    grey = grey * (1 - depth) + wall * depth
    color = cv2.GaussianBlur(np.clip(grey, 0, 238)[:, :, None] * _METAL_BGR, (0, 0), max(0.45, radius / 800))

    disc = _step(1.0, r, pixel)
    offset = np.hypot(x - np.float32(0.035 * radius), y - np.float32(0.05 * radius)) / np.float32(radius)
    shadow = np.float32(0.72) * np.clip(1 - (offset - 0.94) / (SHADOW_OF_RADIUS + 0.06), 0, 1) ** 2
    cover = disc + (1 - disc) * shadow
    return PartPicture(
        premultiplied_bgr=_to_uint8(color * disc[:, :, None]),
        uncovered=_to_uint8(np.repeat(255 * (1 - cover)[:, :, None], 3, axis=2)),
        radius=radius,
    )


def paint_belt(width: int, height: int, seed: int) -> ImageArray:
    """(height, width, 3) uint8 BGR: dark rubber running to the right between two guide rails."""
    cv2 = load_cv2()
    rng = np.random.default_rng([seed, 2])
    grain = rng.standard_normal((height, width), dtype=np.float32)
    coarse = cv2.resize(rng.standard_normal((height // 24 + 2, width // 48 + 2), dtype=np.float32), (width, height))
    weave = 1.3 * cv2.GaussianBlur(grain, (0, 0), 0.8) + 0.8 * cv2.GaussianBlur(grain, (0, 0), 3.0, sigmaY=0.6)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    falloff = 1.12 - 0.38 * rows**2
    belt = (_BELT_BGR + (3.4 * weave + 1.6 * coarse)[:, :, None]) * falloff[:, :, None]

    # Guide rails: rounded aluminium bars, drawn as a brightness that depends on the row alone.
    across = (np.abs(rows) - 0.905) / 0.06
    bar = np.clip((1 - across**2) * 6, 0, 1)
    streak = cv2.GaussianBlur(grain, (0, 0), 9.0, sigmaY=0.5)
    metal = 88 + 62 * np.exp(-((across + 0.35) ** 2) * 7) - 30 * across + 14 * streak
    under = 1 - 0.55 * np.exp(-((np.abs(rows) - 0.84) ** 2) / 0.0012)
    belt = belt * under[:, :, None] * (1 - bar)[:, :, None] + (metal * bar)[:, :, None] * _METAL_BGR
    return _to_uint8(belt)


def paint_noise(width: int, height: int, seed: int, mean: float, sigma: float) -> ImageArray:
    """(height, width, 3) uint8 sensor noise around `mean`: mostly common to the channels, partly their own."""
    rng = np.random.default_rng([seed, 3])
    noise = rng.standard_normal((height, width, 3), dtype=np.float32) * np.float32(0.6 * sigma)
    noise += rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(0.8 * sigma)
    return _to_uint8(noise + np.float32(mean))


def _to_uint8(image: Any) -> ImageArray:
    rounded: ImageArray = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return rounded


def _step(edge: float, value: Plane, softness: float) -> Plane:
    """1 below `edge`, 0 above, a ramp of `softness` between."""
    ramp: Plane = np.clip(np.float32(0.5) - (value - np.float32(edge)) / np.float32(softness), 0, 1)
    return ramp


def _radial_slope(cv2: Any, r: Plane, radius: float) -> Plane:
    samples = np.linspace(0, 1.5, 4096, dtype=np.float32)
    slopes = np.zeros_like(samples)
    for end, value in reversed(_PROFILE):
        slopes[samples <= end] = value
    sigma = max(1.0, 0.8 / radius / 1.5 * len(samples))
    slopes = cv2.GaussianBlur(slopes[None], (0, 0), sigma)[0]
    slope: Plane = np.interp(r, samples, slopes).astype(np.float32)
    return slope


def _lambert(gradient_x: Plane, gradient_y: Plane) -> Plane:
    """Brightness of a surface of this height gradient; 1 where it lies flat."""
    toward = -gradient_x * _LIGHT[0] - gradient_y * _LIGHT[1] + _LIGHT[2]
    facing = toward / np.sqrt(1 + gradient_x**2 + gradient_y**2)
    lit: Plane = np.maximum(np.float32(0.25) + np.float32(0.75) * facing / _LIGHT[2], 0)
    return lit


def _sheen(unit_x: Plane, unit_y: Plane) -> Plane:
    """The bow-tie highlights of turned metal: bright where the grooves run across the light."""
    first = np.abs(unit_x * np.float32(0.62) + unit_y * np.float32(0.785)) ** 7
    second = np.abs(unit_x * np.float32(0.94) - unit_y * np.float32(0.34)) ** 14
    sheen: Plane = first + np.float32(0.55) * second
    return sheen


def _brushed(cv2: Any, rng: np.random.Generator, r: Plane, theta: Plane) -> Plane:
    """Concentric tool marks around 1: rings that change slowly along the turn."""
    rings, spokes = 420, 96
    marks = rng.standard_normal((rings, spokes), dtype=np.float32) * np.float32(0.35)
    marks += rng.standard_normal((rings, 1), dtype=np.float32)
    marks[:, -1] = marks[:, 0]
    marks = cv2.GaussianBlur(marks, (0, 0), 1.6, sigmaY=0.5, borderType=cv2.BORDER_REPLICATE)
    spoke = ((theta / (2 * np.pi)) % 1) * np.float32(spokes - 1)
    ring = np.minimum(r, 1.2) * np.float32((rings - 1) / 1.2)
    grain: Plane = cv2.remap(marks, spoke.astype(np.float32), ring.astype(np.float32), cv2.INTER_LINEAR)
    return np.float32(1) + np.float32(0.045) * grain


def _engrave(grey: Plane, radius: float, half: int, rng: np.random.Generator) -> None:
    """Laser-mark a square code into the flange, between the second and the third bolt hole."""
    cv2 = load_cv2()
    modules = (rng.random((_MARK_MODULES, _MARK_MODULES)) < 0.5).astype(np.float32)
    modules[:, 0] = modules[-1] = 1
    modules[0], modules[:, -1] = np.arange(_MARK_MODULES) % 2 == 0, np.arange(_MARK_MODULES) % 2 == 1
    side = max(4, round(0.15 * radius))
    mark = cv2.resize(modules, (side, side), interpolation=cv2.INTER_AREA)
    top, left = half + round(HOLE_CIRCLE_OF_RADIUS * radius) - side // 2, half - side // 2
    grey[top : top + side, left : left + side] *= 1 - np.float32(0.42) * mark
