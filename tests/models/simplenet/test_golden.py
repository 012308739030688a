"""The authors' SimpleNet: patch map, anomaly map, score and training steps against every golden file.

Tolerances are those of tests/golden/simplenet/README.md: losses 1e-5, weights 5e-5 but for what carries only round-off;
of maps and scores 2e-5 and 1e-6 are wanted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import drawn, files_with, largest, read

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.image.operators import ResizeSmooth
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.fold import FoldedHead
from edge_ad.models.simplenet.network import SimpleNet
from edge_ad.models.simplenet.training.step import optimizers_of, step

FILES = files_with("simplenet", "patch_map")
MAP_TOLERANCE, SCORE_TOLERANCE = 2e-5, 1e-6
LOSS_TOLERANCE, WEIGHT_TOLERANCE, ROUND_OFF_TOLERANCE = 1e-5, 5e-5, 1e-3
ROUND_OFF = ("body.block1.0.bias", "body.block1.1.running_mean", "layers.0fc.bias")
EVERY = 37  # element of tensors larger than LARGE that the files hold
LARGE = 1500


def make(data: dict[str, Any]) -> tuple[SimpleNet, torch.Tensor]:
    config = data["config"]
    network = SimpleNet(
        HeadConfig(
            backbone=config["backbone"],
            layers=tuple(config["layers"]),
            pretrain_embed_dim=config["pretrain_embed_dim"],
            embed_dim=config["target_embed_dim"],
            hidden_dim=config["hidden_dim"],
            adaptor_layers=config["pre_proj"],
        )
    )
    for part in (network.backbone.trunk, network.adaptor, network.discriminator):
        part.load_state_dict(drawn(part.state_dict()))
    image = torch.from_numpy(data["image"]).permute(0, 3, 1, 2).float() / 255
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (PreprocessSpec(1, 1).mean, PreprocessSpec(1, 1).std)
    )
    return network.eval(), (image - mean) / std


def test_there_are_golden_files() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_forward_and_fold(path: Path) -> None:
    data = read(path)
    network, image = make(data)
    folded = FoldedHead(network, data["image"].shape[1:3]).eval()
    for form in (network, folded):
        with torch.no_grad():
            patch_map = form(image).numpy()
        assert largest(patch_map, data["patch_map"]) <= MAP_TOLERANCE
        assert largest(patch_map.max((1, 2)), data["score"]) <= SCORE_TOLERANCE
        smooth = ResizeSmooth(patch_map.shape[1:], data["image"].shape[1:3])(patch_map)
        assert largest(smooth, data["anomaly_map"]) <= MAP_TOLERANCE
    with torch.no_grad():
        folded.bias += 1e-2
        assert largest(folded(image), data["patch_map"]) > MAP_TOLERANCE, "a changed weight is noticed"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_training_steps(path: Path) -> None:
    data = read(path)
    network, image = make(data)
    with torch.no_grad():
        embedding = network.embed(image)[0]
    optimizers = optimizers_of(network, 1e-4)
    for wanted in data["losses"]:
        drawn_noise = np.random.default_rng(int(data["noise_seed"])).standard_normal(embedding.shape)
        noise = torch.from_numpy(drawn_noise.astype(np.float32) * np.float32(0.015))
        losses = step(network, optimizers, embedding=embedding, noise=noise, margin=0.5)
        assert abs(losses.normal + losses.noisy - wanted) <= LOSS_TOLERANCE
    parts = {"discriminator": network.discriminator.state_dict(), "pre_projection": network.adaptor.state_dict()}
    for name in [name for name in data if name.startswith("after.")]:
        part, tensor = name.removeprefix("after.").split(".", 1)
        found = parts[part][tensor].numpy().ravel()
        found = found[::EVERY] if found.size > LARGE else found
        limit = ROUND_OFF_TOLERANCE if tensor in ROUND_OFF else WEIGHT_TOLERANCE
        assert largest(found, data[name]) <= limit, name
