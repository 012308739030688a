"""The authors' DRAEM: forward maps, losses, training steps and synthesis against every golden file.

Tolerances are those of tests/golden/draem/README.md; what is wanted of us is tighter for maps (2e-5) and scores (1e-6).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import drawn, files_with, largest, read
from torch import Tensor

from edge_ad.models.draem.config import DraemConfig
from edge_ad.models.draem.fold import FoldedDraem, PublishedDraem
from edge_ad.models.draem.losses import (
    draem_losses,
    focal_loss,
    similarity_loss,
    similarity_range,
    structural_similarity,
)
from edge_ad.models.draem.network import Draem
from edge_ad.models.synthesis.perlin import perlin_noise

MAP_TOLERANCE = 2e-5
SCORE_TOLERANCE = 1e-6
RECONSTRUCTION_TOLERANCE = 1e-5  # of the largest
LOSS_TOLERANCE = 1e-7  # in float64
WEIGHT_TOLERANCE = 1e-6
FORWARD = files_with("draem", "probability", "score")
STEPS = files_with("draem", "losses_names")
BOX = 21
WIDE = 32


def make(config: dict[str, Any]) -> Draem:
    network = Draem(DraemConfig(config["base_width"], config["base_channels"]))
    for part, gain in ((network.reconstruction, "gain_reconstruction"), (network.segmentation, "gain_segmentation")):
        part.load_state_dict(drawn(part.state_dict(), norm=(0.75, 1.25), gain=config[gain]))
    return network


def bgr(image_nhwc: Any) -> Tensor:
    return torch.from_numpy(image_nhwc[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255


@lru_cache(maxsize=1)
def forward(path: Path) -> tuple[dict[str, Any], Draem, Tensor, Tensor]:
    data = read(path)
    network = make(data["config"]).eval()
    with torch.no_grad():
        reconstruction, logits = network.both(bgr(data["image"]))
    return data, network, reconstruction, logits


def test_there_are_golden_files() -> None:
    assert FORWARD and STEPS and files_with("draem", "ssim_map") and files_with("draem", "angles_0")


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_forward(path: Path) -> None:
    data, network, reconstruction, logits = forward(path)
    probability = torch.softmax(logits, dim=1)[:, 1]
    assert largest(probability, data["probability"]) <= MAP_TOLERANCE
    averaged = torch.nn.functional.avg_pool2d(probability[:, None], BOX, 1, BOX // 2)[:, 0]
    assert largest(averaged.amax((1, 2)), data["score"]) <= SCORE_TOLERANCE
    assert largest(probability.amax((1, 2)), data["score_map_max"]) <= MAP_TOLERANCE
    for every in (1, 2, 8):
        wanted = data.get("reconstruction" if every == 1 else f"reconstruction_{every}")
        if wanted is not None:
            limit = RECONSTRUCTION_TOLERANCE * float(np.abs(wanted).max())
            assert largest(reconstruction[..., ::every, ::every], wanted) <= limit
    feature = network.reconstruction.encoder(bgr(data["image"])).detach()
    wanted = data["encoder_block5_mean"]
    assert largest(feature.mean((2, 3)), wanted) <= 1e-4 * float(np.abs(wanted).max())


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_fold(path: Path) -> None:
    """The folded form eats RGB and gives one logit."""
    data, network, _, logits = forward(path)
    rgb = torch.from_numpy(data["image"]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        folded = FoldedDraem(network, "bgr")(rgb)
        assert largest(torch.sigmoid(folded), data["probability"]) <= MAP_TOLERANCE
        if network.config.base_width > WIDE:
            return  # the rest would take minutes, and says nothing new
        assert largest(PublishedDraem(network, "bgr")(rgb), logits[:, 1] - logits[:, 0]) <= MAP_TOLERANCE
        wrong = FoldedDraem(network, "rgb")(rgb)
    assert largest(torch.sigmoid(wrong), data["probability"]) > 0.1, "a mistake of colours is loud"


@pytest.mark.parametrize("path", files_with("draem", "ssim_map"), ids=lambda path: path.stem)
def test_losses(path: Path) -> None:
    data = read(path)
    target, made = torch.from_numpy(data["target"]), torch.from_numpy(data["reconstruction"])
    assert abs(similarity_loss(made, target).item() - data["ssim_loss"]) <= 1e-6
    assert abs(similarity_loss(2.2 * made - 1, target).item() - data["scaled_ssim_loss"]) <= 1e-6
    assert largest(structural_similarity(made, target, 1.0), data["ssim_map"]) <= 1e-6
    probability, mask = torch.from_numpy(data["probability"]), torch.from_numpy(data["mask"]).bool()
    focal = focal_loss(torch.stack([1 - probability, probability], dim=1), mask)
    assert abs(focal.item() - data["focal_loss"]) <= 1e-6


@pytest.mark.parametrize("path", STEPS, ids=lambda path: path.stem)
def test_training_steps(path: Path) -> None:
    """In float64, where what is left between the two is rounding of the authors' float32 constants."""
    data = read(path)
    config = data["config"]
    network = make(config).double().train()
    image, augmented = bgr(data["image"]).double(), bgr(data["augmented"]).double()
    # Divided in float64: a float32 quotient is off by more than the losses may be.
    image, augmented = (torch.round(part * 255) / 255 for part in (image, augmented))
    mask = torch.from_numpy(data["mask"]).bool()
    optimizer = torch.optim.Adam(network.parameters(), lr=config["lr"])
    for number in range(config["n_steps"]):
        for group in optimizer.param_groups:
            group["lr"] = float(data["lr"][number])
        made, logits = network.both(augmented)
        losses = draem_losses(image, made, logits, mask)
        assert similarity_range(made.detach()) == data["ssim_range"][number]
        assert largest([loss.item() for loss in losses], data["losses"][number]) <= LOSS_TOLERANCE
        optimizer.zero_grad()
        torch.autograd.backward(losses)
        optimizer.step()
    state = {**network.reconstruction.state_dict(), **network.segmentation.state_dict()}
    for name in [name for name in data if name.startswith("after.")]:
        assert largest(state[name.removeprefix("after.")], data[name]) <= WEIGHT_TOLERANCE, name


class Angles:
    """Stands for a generator that draws the golden angles."""

    def __init__(self, radians: Any) -> None:
        self._turns = radians / (2 * np.pi)

    def random(self, shape: tuple[int, int], dtype: Any) -> Any:
        assert shape == self._turns.shape
        return self._turns.astype(dtype)


@pytest.mark.parametrize("path", files_with("draem", "angles_0"), ids=lambda path: path.stem)
def test_noise_and_overlay(path: Path) -> None:
    data = read(path)
    for number in range(sum(name.startswith("angles_") for name in data)):
        wanted = data[f"noise_{number}"]
        cells = tuple(int(count) for count in data[f"cells_{number}"])
        noise = perlin_noise(wanted.shape, cells, Angles(data[f"angles_{number}"]))  # type: ignore[arg-type]
        assert largest(noise, wanted) <= 2e-5
    from edge_ad.models.synthesis.overlay import overlay

    mask = data["mask"].astype(bool)
    for beta, wanted in zip(data["beta"], data["augmented"], strict=True):
        mixed = overlay(data["image"], data["texture"], mask, float(beta)) / 255
        assert largest(mixed, wanted) <= 0.5 / 255 + 1e-6, "ours is rounded to a grey level"
