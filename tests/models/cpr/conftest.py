"""A small data set with a defect that is easy to see, a small backbone's weights, and trainings of seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import drawn
from PIL import Image
from training_runs import trainer

SIDE = 112  # 28x28 patches, one more than the fewest that have a border
TINY = {
    "backbone": "mobilenet_v2",
    "imgsz": SIDE,
    "nearest": 3,
    "batch": 2,
    "epochs": 2,
    "epoch_steps": 2,
    "points": 20,
    "device": "cpu",
    "cache_mb": 64,
}


@pytest.fixture(scope="session")
def backbone_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of MobileNetV2, drawn by name."""
    from edge_ad.models.backbone import network_state

    path = tmp_path_factory.mktemp("weights") / "mobilenet.pth"
    torch.save(drawn(network_state("mobilenet_v2")), path)
    return path


def picture(rng: np.random.Generator, *, blot: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A disc on a plain ground, with or without a blot: (SIDE, SIDE, 3) uint8, and the blot as (SIDE, SIDE) bool."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    disc = np.hypot(rows - SIDE / 2 + rng.uniform(-1, 1), columns - SIDE / 2 + rng.uniform(-1, 1)) < SIDE / 3
    image = np.full((SIDE, SIDE, 3), (124, 116, 104), np.float64)
    image[disc] = (250, 20, 30)
    image += rng.normal(0, 2, image.shape)
    mask = np.zeros((SIDE, SIDE), np.bool_)
    if blot:
        top, left = (int(edge) for edge in rng.integers(40, 56, 2))
        mask[top : top + 18, left : left + 18] = True
        image[mask] = (20, 40, 250)
    return np.clip(image, 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec layout, discs, on the defective ones a bright blot with its mask. Do not change it."""
    rng = np.random.default_rng(11)
    root = tmp_path_factory.mktemp("parts") / "disc"
    for folder, count in (("ground_truth/blot", 0), ("train/good", 6), ("test/good", 3), ("test/blot", 3)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            image, mask = picture(rng, blot=folder == "test/blot")
            if mask.any():
                Image.fromarray(mask.astype(np.uint8) * 255).save(root / "ground_truth" / "blot" / f"{index}_mask.png")
            Image.fromarray(image).save(root / folder / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def train(parts: Path, backbone_weights: Path) -> Callable[..., Any]:
    """Train into a folder with `TINY`, changed as told."""
    return trainer("cpr", **TINY, data=parts, backbone_weights=backbone_weights)
