"""Building blocks of drawn textures: fields, (H, W) float32, that several families of patterns share."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge_ad.models.synthesis.perlin import FloatArray, perlin_noise


def axes(shape_hw: tuple[int, ...], rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Coordinates along and across a random direction, (H, W) each, about [-0.7, 0.7] for a square."""
    angle = rng.uniform(0, 2 * math.pi)
    side = min(shape_hw)
    y = ((np.arange(shape_hw[0]) - (shape_hw[0] - 1) / 2) / side).astype(np.float32)[:, None]
    x = ((np.arange(shape_hw[1]) - (shape_hw[1] - 1) / 2) / side).astype(np.float32)[None, :]
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return x * cosine + y * sine, y * cosine - x * sine


def wave(phase: NDArray[np.floating]) -> FloatArray:
    """A sine between 0 and 1."""
    return np.asarray(0.5 + 0.5 * np.sin(phase), np.float32)


def hardened(field: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The field as it is, or its contrast raised about a random level, up to two tones."""
    if rng.random() < 0.4:
        return field
    steep = (field - rng.uniform(0.3, 0.7)) * rng.uniform(3, 40) + 0.5
    return np.asarray(np.clip(steep, 0, 1), np.float32)


def stretched(field: FloatArray) -> FloatArray:
    """The field with its least value moved to 0 and its largest to 1."""
    low, high = float(field.min()), float(field.max())
    return np.asarray((field - low) / max(high - low, 1e-6), np.float32)


def fractal(shape_hw: tuple[int, int], rng: np.random.Generator, *, cells: int, octaves: int) -> FloatArray:
    """Perlin noises of doubling frequency and falling weight."""
    total = np.zeros(shape_hw, np.float32)
    for octave in range(octaves):
        count = min(cells * 2**octave, max(1, min(shape_hw) // 2))
        total += np.float32(0.55**octave) * perlin_noise(shape_hw, (count, count), rng)
    return total


def smoothed_noise(shape_hw: tuple[int, int], rng: np.random.Generator, *, sigma: float, stretch: float) -> FloatArray:
    """White noise under a Gaussian that is `stretch` times longer along x; ±2.5 standard deviations become 0 and 1."""
    import cv2

    noise = rng.standard_normal(shape_hw, dtype=np.float32)
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma * stretch, sigmaY=sigma), np.float32)
    spread = 2.5 * max(float(noise.std()), 1e-6)
    return np.asarray(np.clip(0.5 + noise / (2 * spread), 0, 1), np.float32)


def bent(field: FloatArray, rng: np.random.Generator, interpolation: int) -> FloatArray:
    """The field with its coordinates shifted by smooth noise, up to about a tenth of the side."""
    import cv2

    height, width = field.shape
    reach = np.float32(rng.uniform(0, 0.12) * min(height, width))
    count = int(rng.integers(1, 7))
    shift_x, shift_y = (reach * perlin_noise((height, width), (count, count), rng) for _ in range(2))
    map_x = np.arange(width, dtype=np.float32)[None, :] + shift_x
    map_y = np.arange(height, dtype=np.float32)[:, None] + shift_y
    return np.asarray(cv2.remap(field, map_x, map_y, interpolation, borderMode=cv2.BORDER_REFLECT), np.float32)


def voronoi(shape_hw: tuple[int, int], rng: np.random.Generator, count: int) -> tuple[FloatArray, NDArray[np.int32]]:
    """Distance to the nearest of `count` random pixels, and which one that is; (H, W) each."""
    import cv2

    seeds = np.ones(shape_hw, np.uint8)
    seeds[rng.integers(0, shape_hw[0], count), rng.integers(0, shape_hw[1], count)] = 0
    distance, owner = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    return np.asarray(distance, np.float32), np.asarray(owner, np.int32)


def strokes(
    shape_hw: tuple[int, int], rng: np.random.Generator, *, count: int, length: float, spread: float
) -> FloatArray:
    """Lines of about `length` sides, within `spread` radians of one direction, on a plain or cloudy ground."""
    import cv2

    field = np.full(shape_hw, rng.uniform(0.3, 0.7), np.float32)
    if rng.random() < 0.5:
        field += 0.2 * fractal(shape_hw, rng, cells=4, octaves=3)
    direction, side = rng.uniform(0, math.pi), min(shape_hw)
    angles = direction + rng.uniform(-spread / 2, spread / 2, count)
    starts = rng.uniform(-0.1, 1.1, (count, 2)) * shape_hw
    steps = np.stack([np.sin(angles), np.cos(angles)], axis=1) * (rng.uniform(0.3, 1.0, count) * length * side)[:, None]
    shades = rng.choice([0.0, 0.15, 0.85, 1.0], count)
    thickness = int(rng.integers(1, 4))
    for (y, x), (down, right), shade in zip(starts, steps, shades, strict=True):
        cv2.line(field, (int(x), int(y)), (int(x + right), int(y + down)), float(shade), thickness, cv2.LINE_AA)
    return np.asarray(np.clip(field, 0, 1), np.float32)
