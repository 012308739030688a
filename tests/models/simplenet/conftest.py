"""A small SimpleNet on a small backbone, and pictures on which it is trained in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

TINY = {
    "backbone": "resnet18",
    "layers": "layer1,layer2",
    "imgsz": 32,
    "resize": None,
    "resize_mode": "stretch",
    "pretrain_embed_dim": 24,
    "embed_dim": 24,
    "hidden_dim": 16,
    "noise_std": 0.05,
    "learning_rate": 1e-3,
    "batch": 3,
    "epochs": 3,
    "rounds": 2,
    "device": "cpu",
    "cache_mb": 64,
}
SHIFT = 20.0


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec layout, 48×48: waves, on the defective ones a checked blot with its mask. Do not change it."""
    rng = np.random.default_rng(5)
    root = tmp_path_factory.mktemp("parts") / "waves"
    x = np.arange(48)
    checks = np.where(np.add.outer(x // 2, x // 2) % 2, 20, 235)
    for folder, count in (("ground_truth/checks", 0), ("train/good", 24), ("test/good", 10), ("test/checks", 8)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            grey = 110 + 40 * np.sin(x / 7 + rng.uniform(0, 6)) + rng.normal(0, 3, (48, 48))
            if folder == "test/checks":
                top, left = (int(edge) for edge in rng.integers(4, 20, 2))
                grey[top : top + 22, left : left + 22] = checks[top : top + 22, left : left + 22]
                mask = np.zeros((48, 48), np.uint8)
                mask[top : top + 22, left : left + 22] = 255
                Image.fromarray(mask).save(root / "ground_truth" / "checks" / f"{index:02}_mask.png")
            picture = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
            Image.fromarray(picture).save(root / folder / f"{index:02}.png")
    return root


@pytest.fixture(scope="session")
def backbone(tiny_checkpoint: tuple[Path, Path]) -> Path:
    return tiny_checkpoint[1]


@pytest.fixture(scope="session")
def train(parts: Path, backbone: Path) -> Callable[..., Any]:
    """Train into a folder with `TINY`, changed as told."""

    def run(output: Path, *, resume: bool = False, progress: Any = None, **changes: Any) -> Any:
        from edge_ad.models import model_family
        from edge_ad.models.family import Progress

        told = {**TINY, "data": parts, "backbone_weights": backbone, "output": output, **changes}
        return model_family("simplenet").train(told, "test", progress or Progress(), resume=resume)

    return run


@pytest.fixture(scope="session")
def checkpoint(
    train: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, torch.Tensor]]:
    """A trained checkpoint whose answers are scaled and moved, so that all scores are below 0; and its discriminator.

    One hidden unit is made a constant, which is what a bias of the output would be.
    """
    folder = tmp_path_factory.mktemp("trained")
    record = train(folder / "run", epochs=10, imgsz=64, noise_std=0.3, learning_rate=3e-3)
    data = torch.load(folder / "run" / record.checkpoint, weights_only=True)
    discriminator = data["discriminator"]
    discriminator["tail.weight"] = 5 * discriminator["tail.weight"]
    for name, value in (("body.block1.1.weight", 0.0), ("body.block1.1.bias", 1.0)):
        discriminator[name][0] = value
    discriminator["tail.weight"][0, 0] = SHIFT
    torch.save(data, folder / "simplenet.pth")
    return folder / "simplenet.pth", discriminator
