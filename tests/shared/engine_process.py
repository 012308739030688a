"""Engines in processes of their own, and what of them is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_ad.engine import BatchArray, EngineSpec
from edge_ad.runtime.engines.process.engine import ProcessEngine

CRASHING = Path(__file__).resolve().parents[1] / "support" / "crashing_engine"
"""With this folder on PYTHONPATH and `CRASH_AT` set, the fake engine of a new process has faults."""

CRASH_AT = "EDGE_AD_CRASHING_ENGINE"
SEGV, EXIT, HANG, HOLD, REFUSE, DEFECT, SHAPE, FORK = range(241, 249)
"""What the first pixel of a batch asks for."""

MakeEngine = Callable[..., ProcessEngine]


def batch_of(spec: EngineSpec, first_pixel: int = 100, images: int = 1) -> BatchArray:
    shape = tuple(int(size or 1) for size in spec.image.shape[1:])
    batch = np.random.default_rng(images).integers(0, 256, (images, *shape), np.uint8)
    batch[:, 0, 0, 0] = first_pixel
    return batch


def children() -> set[int]:
    """Processes that this one has started and that are there, zombies too."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = entry.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == os.getpid():
                found.add(int(entry.name))
    return found
