"""Teachers on a small backbone, and a student of them: 64×64, seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import Drawing, trained, write_data_set

from edge_ad.models.distillation.train import train_student
from edge_ad.models.progress import Progress
from edge_ad.training_run import RunRecord

SIDE = 64
BACKBONE = {"backbone": "resnet18", "layers": "layer1,layer2", "imgsz": SIDE, "resize_mode": "stretch", "batch": 4}
TEACHERS: dict[str, dict[str, Any]] = {
    "patchcore": {"embedding": "averaged", "coreset": 0.02, "score": "map_max"},
    "glass": {
        "pretrain_embed_dim": 48,
        "embed_dim": 48,
        "hidden_dim": 32,
        "ascent_steps": 0,
        "epochs": 1,
        "hypothesis": "manifold",
    },
    "simplenet": {"pretrain_embed_dim": 48, "embed_dim": 48, "hidden_dim": 32, "epochs": 1, "rounds": 1},
}
SHORT = {"backbone_weights": "packaged", "epochs": 2, "epoch_steps": 2, "batch": 3, "device": "cpu", "cache_mb": 64}


@pytest.fixture(scope="session")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec layout, 64×64: waves, on the defective ones a blot. Do not change it."""
    rng, x = np.random.default_rng(5), np.arange(SIDE)

    def draw(defective: bool) -> Drawing:
        grey = np.tile(110 + 40 * np.sin(x / 7 + rng.uniform(0, 6)), (SIDE, 1)) + rng.normal(0, 3, (SIDE, SIDE))
        mask = np.zeros((SIDE, SIDE), np.bool_)
        mask[20:40, 20:40] = True
        return (np.where(mask, 230, grey), mask) if defective else (grey, None)

    counts = {"train/good": 6, "test/good": 3, "test/blot": 3}
    return write_data_set(tmp_path_factory.mktemp("parts") / "waves", "blot", counts, draw)


@pytest.fixture(scope="session")
def teachers(waves: Path, tiny_checkpoint: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Family → folder of its run. Do not change it."""
    folder = tmp_path_factory.mktemp("teachers")
    made: dict[str, Path] = {}

    def teacher(family: str) -> Path:
        if family not in made:
            told = {**BACKBONE, **TEACHERS[family], "data": waves, "backbone_weights": tiny_checkpoint[1]}
            trained(family, {**told, "device": "cpu", "cache_mb": 64, "output": folder / family})
            made[family] = folder / family
        return made[family]

    return teacher


@pytest.fixture
def placed_teacher(waves: Path, tiny_checkpoint: tuple[Path, Path], tmp_path: Path) -> Path:
    """A PatchCore in two tiles that knows where in the picture patches lie."""
    told = {**BACKBONE, **TEACHERS["patchcore"], "data": waves, "backbone_weights": tiny_checkpoint[1]}
    placed = {"tiles": "1x2", "imgsz": "64x48", "tile_position": 1.0, "output": tmp_path / "placed"}
    trained("patchcore", {**told, **placed, "device": "cpu", "cache_mb": 64})
    return tmp_path / "placed"


@pytest.fixture(scope="session")
def teach(waves: Path, teachers: Any) -> Callable[..., RunRecord]:
    """Train a student of a family's teacher into a folder."""

    def run(family: str, output: Path, *, progress: Progress | None = None, resume: bool = False, **told: Any) -> Any:
        values = {**SHORT, "teacher": teachers(family), "data": waves, "output": output, **told}
        return train_student(values, "test", progress or Progress(), resume=resume)

    return run
