"""Files for a calibration: bytes, pictures with noise, and pictures of one grey level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def picture(path: Path, level: int = 100, *, seed: int = 0, hw: tuple[int, int] = (40, 60)) -> Path:
    noise = np.random.default_rng(seed).integers(0, 30, (*hw, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((level + noise).astype(np.uint8)).save(path)
    return path


def flat(path: Path, level: int, hw: tuple[int, int] = (40, 60)) -> Path:
    Image.fromarray(np.full((*hw, 3), level, np.uint8)).save(path)
    return path
