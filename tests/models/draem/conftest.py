"""A small data set with a defect that is easy to see, and trainings of a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import Drawing, trained, write_data_set

SIDE = 64
TINY = {
    "base_width": 4,
    "base_channels": 4,
    "imgsz": "32x64",
    "batch": 3,
    "epochs": 3,
    "learning_rate": 1e-3,
    "clean_share": 0.25,
    "select": "best",
    "eval_every": 1,
    "device": "cpu",
    "cache_mb": 64,
}


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec layout, 64×64: grey waves, on the defective ones a bright blot with its mask. Do not change it."""
    rng = np.random.default_rng(11)
    x = np.arange(SIDE)

    def draw(defective: bool) -> Drawing:
        grey = 90 + 30 * np.sin(x / 5 + rng.uniform(0, 6)) + rng.normal(0, 4, (SIDE, SIDE))
        if not defective:
            return grey, None
        picture, mask = np.repeat(grey[:, :, None], 3, axis=2), np.zeros((SIDE, SIDE), bool)
        top, left = (int(edge) for edge in rng.integers(8, 32, 2))
        picture[top : top + 24, left : left + 24] = (250, 40, 10)
        mask[top : top + 24, left : left + 24] = True
        return picture, mask

    counts = {"train/good": 7, "test/good": 3, "test/blot": 3}
    return write_data_set(tmp_path_factory.mktemp("parts") / "disc", "blot", counts, draw)


@pytest.fixture(scope="session")
def train(parts: Path) -> Callable[..., Any]:
    """Train into a folder with `TINY`, changed as told."""

    def run(output: Path, *, resume: bool = False, force: bool = False, progress: Any = None, **changes: Any) -> Any:
        told = {**TINY, "data": parts, "output": output, **changes}
        return trained("draem", told, progress=progress, resume=resume, force=force)

    return run
