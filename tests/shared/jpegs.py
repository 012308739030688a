"""JPEGs for tests, whole and damaged."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

END = b"\xff\xd9"


def scene(seed: int, size_hw: tuple[int, int] = (160, 208), mode: str = "RGB") -> Image.Image:
    """A picture with blotches and the noise of a sensor."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (size_hw[0] // 16, size_hw[1] // 16, 3), dtype=np.uint8)
    blotches = np.asarray(Image.fromarray(small).resize(size_hw[::-1], Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = np.clip(blotches + rng.integers(-9, 10, blotches.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).convert(mode)


def encoded(picture: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def coded_from(whole: bytes) -> int:
    """Where the coded data of the last scan begins."""
    marker = whole.rindex(b"\xff\xda")
    return marker + 2 + int.from_bytes(whole[marker + 2 : marker + 4], "big")


def damaged(whole: bytes, seed: int) -> Iterator[tuple[str, bytes]]:
    """What cameras, shares and writers do to a JPEG, by name: cut off, closed, reserved, with a hole, too short."""
    dice = random.Random(seed)
    start, end = coded_from(whole), len(whole) - len(END)
    size = min(512, (end - start) // 4)
    at = dice.randrange(start, end - size)
    yield "cut off", whole[:at]
    yield "cut off and closed", whole[:at] + END
    yield "space reserved, not written", whole[:at] + bytes(len(whole) - at)
    yield "hole of zeros", whole[:at] + bytes(size) + whole[at + size :]
    yield "block missing", whole[:at] + whole[at + size :]
