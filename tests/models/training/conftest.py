"""A small data set with a defect that is easy to see, a small network, and a training that takes about a second."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_runs import tensors_in, trained

SIDE = 64
NETWORK = {
    "backbone": "resnet18",
    "layers": "layer1,layer2",
    "imgsz": SIDE,
    "pretrain_embed_dim": 48,
    "embed_dim": 48,
    "hidden_dim": 32,
    "ascent_steps": 4,
    "project_every": 2,
    "hypothesis": "manifold",
    "learning_rate": 1e-3,
    "batch": 3,
    "epochs": 3,
    "cache_mb": 64,
    "device": "cpu",
}


def write_parts(root: Path, good: int = 7) -> Path:
    """MVTec layout: good pictures of a striped disc, test pictures with a bright blot and its mask."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:SIDE, :SIDE]
    disc = (x - 32) ** 2 + (y - 32) ** 2 < 22**2
    for folder, count in (("train/good", good), ("test/good", 3), ("test/blot", 3)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            grey = 60 + 80 * disc + 20 * np.sin(x / 3 + rng.uniform(0, 6)) + rng.normal(0, 4, (SIDE, SIDE))
            picture = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
            if folder == "test/blot":
                top, left = rng.integers(16, 36, 2)
                picture[top : top + 14, left : left + 14] = (250, 40, 10)
                mask = np.zeros((SIDE, SIDE), np.uint8)
                mask[top : top + 14, left : left + 14] = 255
                (root / "ground_truth" / "blot").mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(root / "ground_truth" / "blot" / f"{index}_mask.png")
            Image.fromarray(picture).save(root / folder / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not change it."""
    return write_parts(tmp_path_factory.mktemp("parts") / "disc")


@pytest.fixture
def own_parts(tmp_path: Path) -> Path:
    return write_parts(tmp_path / "disc")


Values = dict[str, Any]


@pytest.fixture(scope="session")
def values(parts: Path, tiny_checkpoint: tuple[Path, Path]) -> Values:
    """Options of a short training, but for its output folder."""
    return {**NETWORK, "data": parts, "backbone_weights": tiny_checkpoint[1]}


@pytest.fixture(scope="session")
def train(values: Values) -> Callable[..., Any]:
    """Train into a folder with `values`, changed as told."""

    def run(output: Path, *, resume: bool = False, force: bool = False, progress: Any = None, **changes: Any) -> Any:
        told = {**values, "output": output, **changes}
        return trained("glass", told, progress=progress, resume=resume, force=force)

    return run


@pytest.fixture(scope="session")
def fingerprint() -> Callable[[Path], dict[str, str]]:
    """Hashes of what a run computed: weights, state and metrics, not what holds times or the run's own path."""

    def of(run: Path) -> dict[str, str]:
        import torch

        found = {}
        for path in [*sorted(run.glob("*.pth")), run / "state.pt"]:
            for name, tensor in tensors_in(torch.load(path, weights_only=True)).items():
                found[f"{path.name}:{name}"] = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        found["metrics.csv"] = (run / "metrics.csv").read_text()
        return found

    return of
