"""Textures drawn from nothing but random numbers: families of patterns, each in random colours, scale and direction.

A family is a function of a size and a generator that returns a field, (H, W) float32 in [0, 1]. The field is coloured
by a random palette; then grain and a gradient of light come on top. Nothing here knows of any data set.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import ImageArray
from edge_ad.models.synthesis.fields import (
    axes,
    bent,
    fractal,
    hardened,
    smoothed_noise,
    stretched,
    strokes,
    voronoi,
    wave,
)
from edge_ad.models.synthesis.perlin import FloatArray

Field = Callable[[tuple[int, int], np.random.Generator], FloatArray]


def clouds(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Fractal noise."""
    return stretched(fractal(shape_hw, rng, cells=int(rng.integers(2, 9)), octaves=int(rng.integers(2, 6))))


def marble(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """A wave bent by fractal noise."""
    along, _ = axes(shape_hw, rng)
    bend = rng.uniform(1.5, 6.0) * fractal(shape_hw, rng, cells=int(rng.integers(2, 5)), octaves=4)
    return wave(along * (rng.uniform(2, 8) * 2 * math.pi) + bend)


def wood(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Rings around a point that may lie outside, drawn out along one direction."""
    along, across = axes(shape_hw, rng)
    radius = np.hypot((along - rng.uniform(-1, 1)) * rng.uniform(0.1, 1.0), across - rng.uniform(-1, 1))
    rings = radius * rng.uniform(8, 25) + rng.uniform(0.2, 1.0) * fractal(shape_hw, rng, cells=3, octaves=3)
    return np.asarray(rings - np.floor(rings), np.float32)


def stripes(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Parallel bands, soft or hard."""
    along, _ = axes(shape_hw, rng)
    return hardened(wave(along * (rng.uniform(4, 40) * 2 * math.pi) + rng.uniform(0, 2 * math.pi)), rng)


def checks(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """A turned chessboard."""
    along, across = axes(shape_hw, rng)
    count = rng.uniform(4, 24)
    return np.asarray((np.floor(along * count) + np.floor(across * count * rng.uniform(0.5, 2))) % 2, np.float32)


def bricks(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Courses of bricks of several shades with joints between them; without an offset they are tiles."""
    along, across = axes(shape_hw, rng)
    rows = across * rng.uniform(4, 16)
    row = np.floor(rows)
    columns = along * rng.uniform(3, 10) + row * rng.choice([0.0, 0.5, 1 / 3])
    column = np.floor(columns)
    joint = rng.uniform(0.03, 0.12)
    is_joint = (rows - row < joint * 1.5) | (columns - column < joint)
    shades = rng.uniform(0.4, 1.0, 1024).astype(np.float32)
    return np.where(is_joint, np.float32(0), shades[(row * 31 + column * 17).astype(np.intp) % 1024])


def cells(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Voronoi cells, each of one shade."""
    _, owner = voronoi(shape_hw, rng, int(rng.integers(12, 200)))
    return rng.random(int(owner.max()) + 1, dtype=np.float32)[owner]


def pebbles(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Voronoi cells that darken towards their borders."""
    distance, owner = voronoi(shape_hw, rng, int(rng.integers(20, 300)))
    shades = rng.uniform(0.6, 1.0, int(owner.max()) + 1).astype(np.float32)
    return np.asarray(
        shades[owner] * (1 - np.minimum(distance / max(float(np.percentile(distance, 98)), 1.0), 1)), np.float32
    )


def cracks(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Crooked dark lines between the cells of a bent Voronoi diagram, on a cloudy ground."""
    import cv2

    _, owner = voronoi(shape_hw, rng, int(rng.integers(6, 60)))
    crooked = bent(owner.astype(np.float32), rng, cv2.INTER_NEAREST)
    edges = cv2.morphologyEx(crooked, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    ground = 0.6 + 0.4 * stretched(fractal(shape_hw, rng, cells=4, octaves=4))
    return np.asarray(np.where(edges, 0, ground), np.float32)


def spots(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Discs of several sizes and shades."""
    import cv2

    field = np.full(shape_hw, rng.uniform(0, 0.3), np.float32)
    largest = rng.uniform(0.02, 0.12) * min(shape_hw)
    for _ in range(int(rng.integers(20, 160))):
        middle = int(rng.integers(shape_hw[1])), int(rng.integers(shape_hw[0]))
        cv2.circle(field, middle, int(rng.uniform(1, largest + 1)), float(rng.uniform(0.4, 1.0)), -1, cv2.LINE_AA)
    return field


def blobs(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Islands: fractal noise cut at a level."""
    field = stretched(fractal(shape_hw, rng, cells=int(rng.integers(3, 16)), octaves=2))
    steep = (field - rng.uniform(0.35, 0.65)) * rng.uniform(5, 60) + 0.5
    return np.asarray(np.clip(steep, 0, 1), np.float32)


def rust(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Fine grain of two kinds, side by side where a coarse noise says."""
    coarse = stretched(fractal(shape_hw, rng, cells=int(rng.integers(2, 7)), octaves=5))
    fine = rng.random(shape_hw, dtype=np.float32)
    eaten = 1 / (1 + np.exp(-(coarse - np.float32(rng.uniform(0.4, 0.6))) * 25))
    return np.asarray(eaten * (0.55 + 0.45 * fine) + (1 - eaten) * 0.35 * fine, np.float32)


def grain(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Noise of one grain size, sand to felt."""
    return smoothed_noise(shape_hw, rng, sigma=rng.uniform(0.01, 2.5), stretch=1.0)


def brushed(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Noise drawn out along one direction, as on brushed metal or fur; it may be bent."""
    import cv2

    field = smoothed_noise(shape_hw, rng, sigma=rng.uniform(0.3, 1.2), stretch=rng.uniform(8, 30))
    field = field if rng.random() < 0.5 else np.ascontiguousarray(cv2.resize(field.T, shape_hw[::-1]))
    return bent(field, rng, cv2.INTER_LINEAR)


def scratches(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Thin strokes on a plain or cloudy ground."""
    return strokes(shape_hw, rng, count=int(rng.integers(10, 80)), length=rng.uniform(0.1, 0.8), spread=0.2)


def fibres(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Many short strokes in all directions."""
    return strokes(shape_hw, rng, count=int(rng.integers(200, 600)), length=rng.uniform(0.03, 0.12), spread=math.pi)


def weave(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Threads that go over and under each other."""
    along, across = axes(shape_hw, rng)
    count = rng.uniform(8, 40)
    u, v = along * count, across * count
    over = (np.floor(u) + np.floor(v)) % 2
    round_u, round_v = (np.abs(np.sin(part * math.pi)) for part in (u, v))
    return np.asarray(np.where(over > 0, 0.35 + 0.65 * round_u, 0.75 * round_v), np.float32)


def mesh(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """A net of lines, square to oblique."""
    along, across = axes(shape_hw, rng)
    count, slant = rng.uniform(6, 30), rng.uniform(-0.7, 0.7)
    u, v = along * count, (across + slant * along) * count
    return hardened(np.maximum(wave(u * math.pi), wave(v * math.pi)), rng)


def dots(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """A raster of dots, which may be bent."""
    import cv2

    along, across = axes(shape_hw, rng)
    count = rng.uniform(6, 30) * 2 * math.pi
    return hardened(bent(wave(along * count) * wave(across * count), rng, cv2.INTER_LINEAR), rng)


def gradient(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Colours that run into each other along a line or from a point."""
    along, across = axes(shape_hw, rng)
    return stretched(along if rng.random() < 0.5 else np.hypot(along, across).astype(np.float32))


FAMILIES: tuple[Field, ...] = (
    clouds,
    marble,
    wood,
    stripes,
    checks,
    bricks,
    cells,
    pebbles,
    cracks,
    spots,
    blobs,
    rust,
    grain,
    brushed,
    scratches,
    fibres,
    weave,
    mesh,
    dots,
    gradient,
)


def coloured(field: FloatArray, rng: np.random.Generator) -> ImageArray:
    """A field in [0, 1] in a random palette, with grain and a gradient of light, as (H, W, 3) uint8 RGB."""
    import cv2

    stops = int(rng.integers(2, 6))
    places = np.linspace(0, 255, stops)
    palette = _palette(rng, stops)
    table = np.stack([np.interp(np.arange(256), places, palette[:, channel]) for channel in range(3)], axis=1)
    image = table.astype(np.float32)[np.asarray(field * 255, np.uint8)]
    if rng.random() < 0.5:
        along, _ = axes(field.shape, rng)
        image *= (1 + np.float32(rng.uniform(0.1, 0.5)) * along)[:, :, None]
    if rng.random() < 0.5:
        image += (rng.standard_normal(field.shape, dtype=np.float32) * np.float32(rng.uniform(2, 14)))[:, :, None]
    if rng.random() < 0.25:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 1.5))), np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def _palette(rng: np.random.Generator, stops: int) -> NDArray[np.float64]:
    """Colours, (stops, 3) in 0..255: around one tone, or anything; from vivid to grey."""
    colours = rng.uniform(0, 255, (stops, 3))
    if rng.random() < 0.5:
        light = np.linspace(rng.uniform(0.2, 0.9), rng.uniform(1.0, 1.8), stops)[:, None]
        colours = colours[:1] * light + rng.normal(0, 20, (stops, 3))
    grey = colours.mean(axis=1, keepdims=True)
    return np.asarray(np.clip(grey + rng.random() * (colours - grey), 0, 255))
