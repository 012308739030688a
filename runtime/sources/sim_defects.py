"""The defects of the simulated line, drawn into a small tile around each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import Box, ImageArray
from edge_ad.runtime.host.opencv import load_cv2
from edge_ad.runtime.sources.sim_part import BORE_OF_RADIUS, COUNTERSINK_OF_RADIUS, hole_centers

Tile = NDArray[np.floating[Any]]

# Longest side of a defect over the diameter of the part.
_SIZES = (0.04, 0.11)
_VISIBLE_LEVELS = 12
_CLEARLY_VISIBLE_LEVELS = 36
_ATTEMPTS = 40


@dataclass(frozen=True)
class PlacedPart:
    """Where the part lies in the frame: centre and radius in pixels, turned by `angle` radians."""

    center_x: float
    center_y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Spot:
    """Where a defect goes: centre in the tile and in the frame, and its size, all in pixels."""

    x: Tile
    y: Tile
    frame_x: float
    frame_y: float
    size: float


Draw = Callable[[np.random.Generator, Tile, Spot, PlacedPart], Tile]


def draw_defect(rng: np.random.Generator, frame_bgr: ImageArray, part: PlacedPart) -> Box | None:
    """Draw one random defect on the part into `frame_bgr` and return the box of the pixels that changed.

    Places where it would hardly show are tried again; None when no place was found (a part of a few pixels).
    """
    height, width = frame_bgr.shape[:2]
    for _ in range(_ATTEMPTS):
        kind = rng.choice(list(_KINDS))
        draw, place = _KINDS[kind]
        size = max(3.0, rng.uniform(*_SIZES) * 2 * part.radius)
        center = place(rng, part, size)
        if center is None:
            continue
        reach = int(size * 0.75) + 4
        left, top = max(0, int(center[0]) - reach), max(0, int(center[1]) - reach)
        right, bottom = min(width, int(center[0]) + reach + 1), min(height, int(center[1]) + reach + 1)
        region = frame_bgr[top:bottom, left:right]
        y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
        spot = Spot(x - np.float32(center[0]), y - np.float32(center[1]), center[0], center[1], size)
        # Nothing may change off the part, whatever a kind paints there; its soft edge belongs to it.
        on_part = np.clip(part.radius + 1.5 - np.hypot(x - part.center_x, y - part.center_y), 0, 1)[:, :, None]
        before = region.astype(np.float32)
        after = before + (draw(rng, before, spot, part) - before) * on_part
        change = np.abs(np.clip(after, 0, 255) - before).max(axis=2)
        if np.sort(change, axis=None)[-5] < _CLEARLY_VISIBLE_LEVELS:
            continue
        region[:] = np.clip(after, 0, 255).astype(np.uint8)
        rows, columns = np.nonzero(change >= _VISIBLE_LEVELS)
        return (
            left + int(columns.min()),
            top + int(rows.min()),
            left + int(columns.max()) + 1,
            top + int(rows.max()) + 1,
        )
    return None


def _on_face(rng: np.random.Generator, part: PlacedPart, size: float) -> tuple[float, float] | None:
    """A place on the metal, clear of bore, bolt holes and rim."""
    margin = 0.5 * size / part.radius
    radius = part.radius * np.sqrt(rng.uniform((BORE_OF_RADIUS + 0.04 + margin) ** 2, max(0.5, 0.95 - margin) ** 2))
    angle = rng.uniform(0, 2 * np.pi)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    nearest = np.hypot(*(hole_centers(part.radius, part.angle) - (x, y)).T).min()
    if nearest < COUNTERSINK_OF_RADIUS * part.radius + 0.4 * size:
        return None
    return part.center_x + float(x), part.center_y + float(y)


def _on_rim(rng: np.random.Generator, part: PlacedPart, size: float) -> tuple[float, float]:
    angle = rng.uniform(0, 2 * np.pi)
    return part.center_x + part.radius * np.cos(angle), part.center_y + part.radius * np.sin(angle)


def _scratch(rng: np.random.Generator, tile: Tile, spot: Spot, part: PlacedPart) -> Tile:
    cv2 = load_cv2()
    angle = rng.uniform(0, np.pi)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    t = np.linspace(-1, 1, 13)[:, None]
    bend = rng.uniform(-0.18, 0.18) * (1 - t**2) + rng.normal(0, 0.012, t.shape)
    middle = np.array([-spot.x[0, 0], -spot.y[0, 0]])
    points = middle + spot.size / 2 * (t * along + bend * across)
    thickness = max(1, round(part.radius * rng.uniform(0.004, 0.009)))
    line = np.zeros(tile.shape[:2], np.uint8)
    cv2.polylines(line, [np.rint(points * 16).astype(np.int32)], False, 255, thickness, cv2.LINE_AA, 4)
    groove = line[:, :, None].astype(np.float32) / 255
    # The far edge of the groove catches the light.
    edge = np.roll(groove, (thickness, thickness), axis=(0, 1)) * (1 - groove)
    dark = tile.mean() > 105
    return tile * (1 - groove * (0.72 if dark else -0.9)) + (70 if dark else -18) * edge


def _dent(rng: np.random.Generator, tile: Tile, spot: Spot, part: PlacedPart) -> Tile:
    stretch = rng.uniform(0.75, 1.0)
    scale = 0.30 * spot.size
    u, v = spot.x / scale, spot.y / (scale * stretch)
    bowl = np.exp(-(u**2 + v**2))
    shade = (0.62 * u + 0.78 * v) * bowl
    return tile * (1 + (1.0 * shade - 0.22 * bowl)[:, :, None])


def _stain(rng: np.random.Generator, tile: Tile, spot: Spot, part: PlacedPart) -> Tile:
    cv2 = load_cv2()
    height, width = tile.shape[:2]
    lumps = cv2.resize(rng.standard_normal((6, 6)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    reach = np.hypot(spot.x, spot.y * np.float32(rng.uniform(1.0, 1.5))) / (0.5 * spot.size)
    cover = np.clip((1.0 - reach - 0.16 * lumps) * 3.2, 0, 1) * np.clip((1.08 - reach) * 8, 0, 1)
    rim = np.clip(1 - np.abs(cover - 0.5) * 2, 0, 1)
    tint = np.array([[0.36, 0.56, 0.80], [0.42, 0.50, 0.52], [0.50, 0.70, 0.66]], np.float32)[rng.integers(3)]
    strength = (0.85 * cover + 0.12 * rim)[:, :, None]
    stained: Tile = tile * (1 - strength * (1 - tint))
    return stained


def _extra_hole(rng: np.random.Generator, tile: Tile, spot: Spot, part: PlacedPart) -> Tile:
    radius = 0.30 * spot.size
    d = np.hypot(spot.x, spot.y)
    hole = np.clip(radius - d + 0.5, 0, 1)[:, :, None]
    burr = np.clip(1.4 * radius - d + 0.5, 0, 1)[:, :, None] * (1 - hole)
    facing = ((spot.x * 0.62 + spot.y * 0.78) / np.maximum(d, 1e-3))[:, :, None]
    return tile * (1 - hole) * (1 + 0.5 * burr * facing) + (22 + 9 * facing) * hole


def _chipped_rim(rng: np.random.Generator, tile: Tile, spot: Spot, part: PlacedPart) -> Tile:
    angle = np.arctan2(spot.y, spot.x)
    waves = sum(rng.uniform(-0.26, 0.26) / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 9))
    depth = 0.5 * spot.size * (0.82 + waves) - np.hypot(spot.x, spot.y)
    gone = np.clip(depth, 0, 1)[:, :, None]
    width = max(1.5, 0.018 * part.radius)
    fracture = np.clip(1 - np.abs(depth + width / 2) / width, 0, 1)[:, :, None]
    grain = rng.uniform(-4, 4, tile.shape[:2]).astype(np.float32)[:, :, None]
    return (tile + (205 - tile) * 0.75 * fracture) * (1 - gone) + (19 + grain) * gone


_Place = Callable[[np.random.Generator, PlacedPart, float], "tuple[float, float] | None"]
_KINDS: dict[str, tuple[Draw, _Place]] = {
    "scratch": (_scratch, _on_face),
    "dent": (_dent, _on_face),
    "stain": (_stain, _on_face),
    "extra hole": (_extra_hole, _on_face),
    "chipped rim": (_chipped_rim, _on_rim),
}
