"""A small data set with a defect that is easy to see, and trainings of a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

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
    root = tmp_path_factory.mktemp("parts") / "disc"
    x = np.arange(SIDE)
    for folder, count in (("ground_truth/blot", 0), ("train/good", 7), ("test/good", 3), ("test/blot", 3)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            grey = 90 + 30 * np.sin(x / 5 + rng.uniform(0, 6)) + rng.normal(0, 4, (SIDE, SIDE))
            picture = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
            if folder == "test/blot":
                top, left = (int(edge) for edge in rng.integers(8, 32, 2))
                picture[top : top + 24, left : left + 24] = (250, 40, 10)
                mask = np.zeros((SIDE, SIDE), np.uint8)
                mask[top : top + 24, left : left + 24] = 255
                Image.fromarray(mask).save(root / "ground_truth" / "blot" / f"{index}_mask.png")
            Image.fromarray(picture).save(root / folder / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def train(parts: Path) -> Callable[..., Any]:
    """Train into a folder with `TINY`, changed as told."""

    def run(output: Path, *, resume: bool = False, force: bool = False, progress: Any = None, **changes: Any) -> Any:
        from edge_ad.models import model_family
        from edge_ad.models.family import Progress

        told = {**TINY, "data": parts, "output": output, **changes}
        return model_family("draem").train(told, "test", progress or Progress(), resume=resume, force=force)

    return run
