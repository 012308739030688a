"""A small SimpleNet on a small backbone, and pictures on which it is trained in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import Drawing, trainer, write_data_set

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.datasets import model_mask, open_dataset, read_image, read_mask
from edge_ad.image.preprocess import Preprocessor
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.simplenet.network import SimpleNet

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
STEP = 10.0  # between the scores of a good and a defective patch


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec layout, 48×48: waves, on the defective ones a checked blot with its mask. Do not change it."""
    rng = np.random.default_rng(5)
    x = np.arange(48)
    checks = np.where(np.add.outer(x // 2, x // 2) % 2, 70, 170)

    def draw(defective: bool) -> Drawing:
        grey = 110 + 40 * np.sin(x / 7 + rng.uniform(0, 6)) + rng.normal(0, 3, (48, 48))
        if not defective:
            return grey, None
        mask = np.zeros((48, 48), bool)
        top, left = (int(edge) for edge in rng.integers(4, 20, 2))
        mask[top : top + 22, left : left + 22] = True
        return np.where(mask, checks, grey), mask

    counts = {"train/good": 24, "test/good": 10, "test/checks": 8}
    return write_data_set(tmp_path_factory.mktemp("parts") / "waves", "checks", counts, draw)


@pytest.fixture(scope="session")
def backbone(tiny_checkpoint: tuple[Path, Path]) -> Path:
    return tiny_checkpoint[1]


@pytest.fixture(scope="session")
def train(parts: Path, backbone: Path) -> Callable[..., Any]:
    """Train into a folder with `TINY`, changed as told."""
    return trainer("simplenet", **TINY, data=parts, backbone_weights=backbone)


@pytest.fixture(scope="session")
def checkpoint(parts: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that tells the checks from the waves, with scores that are all below 0.

    Not trained: one hidden unit is Fisher's discriminant of the patches, whatever the backbone makes of them, so that
    the widest gap by far lies between good pictures (scores of about -19) and defective ones (-9). Another unit is a
    constant, which is what a bias of the output would be.
    """
    network = SimpleNet(HeadConfig("resnet18", ("layer1", "layer2"), 24, 24, 16)).eval()
    network.backbone.load_weights(torch.load(backbone, weights_only=True), "test")
    network.adaptor.load_state_dict({"layers.0fc.weight": torch.eye(24), "layers.0fc.bias": torch.zeros(24)})
    weights, offset = discriminant(network, parts)
    state = {name: torch.zeros_like(value) for name, value in network.discriminator.state_dict().items()}
    state["body.block1.1.running_var"] += 1
    state["body.block1.1.weight"] += 1
    state["body.block1.0.weight"][1], state["body.block1.0.bias"][1] = STEP * weights, STEP * offset
    state["body.block1.1.bias"][0] = 1.0
    state["tail.weight"][0, 0], state["tail.weight"][0, 1] = SHIFT, -1.0
    folder = tmp_path_factory.mktemp("discriminant")
    torch.save({"discriminator": state, "pre_projection": network.adaptor.state_dict()}, folder / "simplenet.pth")
    return folder / "simplenet.pth"


def discriminant(network: SimpleNet, parts: Path) -> tuple[torch.Tensor, float]:
    """Weights and offset of a patch embedding: 0 on average for good patches, 1 for those of the defects."""
    spec = PreprocessSpec(64, 64, resize_mode="stretch")
    preprocess, dataset = Preprocessor(spec), open_dataset(parts)
    good, bad = [], []
    for sample in (*dataset.train, *(one for one in dataset.test if one.anomalous)):
        picture = torch.from_numpy(preprocess(read_image(sample)).image_hwc.copy())
        normalised = (picture.permute(2, 0, 1) / 255 - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[
            :, None, None
        ]
        with torch.no_grad():
            embedding, (rows, columns) = network.embed(normalised[None])
        if not sample.anomalous:
            good.append(embedding.double().numpy())
            continue
        mask = model_mask(read_mask(sample, (48, 48)), spec).reshape(rows, 64 // rows, columns, 64 // columns)
        bad.append(embedding.double().numpy()[mask.all((1, 3)).ravel()])
    usual, odd = np.concatenate(good), np.concatenate(bad)
    spread = np.cov(usual.T) + np.cov(odd.T)
    spread += 0.01 * np.trace(spread) / len(spread) * np.eye(len(spread))
    weights = np.linalg.solve(spread, odd.mean(0) - usual.mean(0))
    weights /= weights @ (odd.mean(0) - usual.mean(0))
    return torch.from_numpy(weights).float(), -float(weights @ usual.mean(0))
