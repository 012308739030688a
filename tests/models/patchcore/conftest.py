"""A small PatchCore on a small backbone, and pictures that its bank is made of in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import Drawing, trainer, write_data_set

from edge_ad.models.patchcore.config import PatchCoreConfig
from edge_ad.models.patchcore.network import PatchCore

SIDE = 64
TINY = {
    "backbone": "resnet18",
    "layers": "layer1,layer2",
    "imgsz": SIDE,
    "resize_mode": "stretch",
    "embedding": "averaged",
    "distance": "root",
    "coreset": 0.05,
    "batch": 3,
    "device": "cpu",
    "cache_mb": 64,
}


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec layout, 64×64: waves, on the defective ones a checked blot with its mask. Do not change it."""
    rng, x = np.random.default_rng(5), np.arange(SIDE)
    checks = np.where(np.add.outer(x // 2, x // 2) % 2, 20, 235)

    def draw(defective: bool) -> Drawing:
        grey = 110 + 40 * np.sin(x / 7 + rng.uniform(0, 6)) + rng.normal(0, 3, (SIDE, SIDE))
        grey[:2, :4], grey[:2, 4:8] = 0, 255  # as dark and as bright as any defect, so that int8 has the range
        if not defective:
            return grey, None
        top, left = (int(edge) for edge in rng.integers(4, 30, 2))
        mask = np.zeros((SIDE, SIDE), np.bool_)
        mask[top : top + 26, left : left + 26] = True
        return np.where(mask, checks, grey), mask

    counts = {"train/good": 8, "test/good": 6, "test/checks": 6}
    return write_data_set(tmp_path_factory.mktemp("parts") / "waves", "checks", counts, draw)


@pytest.fixture(scope="session")
def backbone(tiny_checkpoint: tuple[Path, Path]) -> Path:
    return tiny_checkpoint[1]


@pytest.fixture(scope="session")
def train(parts: Path, backbone: Path) -> Callable[..., Any]:
    """Fit into a folder with `TINY`, changed as told."""
    return trainer("patchcore", **TINY, data=parts, backbone_weights=backbone)


@pytest.fixture(scope="session")
def run(train: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Do not change it."""
    folder = tmp_path_factory.mktemp("fitted") / "run"
    train(folder)
    return folder


@pytest.fixture(scope="session")
def make(backbone: Path) -> Callable[..., PatchCore]:
    """A network with a bank of random patches of its own: `entries`, and values of PatchCoreConfig."""
    state = torch.load(backbone, weights_only=True)

    def made(entries: int = 40, **values: Any) -> PatchCore:
        told = {"backbone": "resnet18", "layers": ("layer1", "layer2"), "embedding": "averaged", "embed_dim": 192}
        network = PatchCore(PatchCoreConfig(**{**told, **values})).eval().requires_grad_(False)
        network.backbone.load_weights(state, "test")
        source = torch.Generator().manual_seed(2)
        pictures = torch.randn(3, 3, SIDE, SIDE, generator=source)
        with torch.no_grad():
            patches = network.embed(pictures).permute(0, 2, 3, 1).flatten(0, 2)
        network.bank = patches[torch.randperm(len(patches), generator=source)[:entries]].contiguous()
        return network

    return made
