"""A small data set with a defect that is easy to see, and trainings of a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_runs import trainer, write_blots

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
    counts = {"train/good": 7, "test/good": 3, "test/blot": 3}
    return write_blots(tmp_path_factory.mktemp("parts") / "disc", counts)


@pytest.fixture(scope="session")
def train(parts: Path) -> Callable[..., Any]:
    """Train into a folder with `TINY`, changed as told."""
    return trainer("draem", **TINY, data=parts)
