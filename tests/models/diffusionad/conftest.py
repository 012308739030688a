"""A small data set with a defect that is easy to see, and trainings of a few seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_runs import trainer, write_blots

TINY = {
    "base_channels": 8,
    "groups": 4,
    "segmentation_channels": 4,
    "imgsz": "32x64",
    "batch": 3,
    "epochs": 2,
    "learning_rate": 1e-3,
    "segmentation_rate": 1e-3,
    "clean_share": 0.25,
    "select": "best",
    "eval_every": 1,
    "device": "cpu",
    "cache_mb": 64,
}


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Waves and blots, 64×64. Do not change it."""
    counts = {"train/good": 7, "test/good": 2, "test/blot": 2}
    return write_blots(tmp_path_factory.mktemp("parts") / "disc", counts)


@pytest.fixture(scope="session")
def train(parts: Path) -> Callable[..., Any]:
    """Train into a folder with `TINY`, changed as told."""
    return trainer("diffusionad", **TINY, data=parts)
