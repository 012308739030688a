"""The authors' DiffusionAD: both passes, map and score, and training steps, against every golden file.

Tolerances are those of tests/golden/diffusionad/README.md; what is wanted of us is tighter for maps (2e-5).
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import drawn_plainly, files_with, largest, read
from torch import Tensor

from edge_ad.models.diffusionad.checkpoint import Settings
from edge_ad.models.diffusionad.config import DiffusionAdConfig, strides_of
from edge_ad.models.diffusionad.fold import FoldedDiffusionAd, PublishedDiffusionAd
from edge_ad.models.diffusionad.losses import FOCAL_WEIGHT, diffusionad_losses
from edge_ad.models.diffusionad.network import DiffusionAd
from edge_ad.models.diffusionad.noise import NOISES, fixed_noise
from edge_ad.models.diffusionad.schedule import linear_schedule
from edge_ad.models.diffusionad.training.trainer import optimizers_of, swing

MAP_TOLERANCE, SCORE_TOLERANCE = 2e-5, 5e-6
PASS_TOLERANCE = 1e-4  # of what lies between, whose values reach 5
LOSS_TOLERANCE = WEIGHT_TOLERANCE = 1e-6
FORWARD = files_with("diffusionad", "map", "score")
STEPS = files_with("diffusionad", "losses_names")
WIDE = 64
MULTIPLIERS = {256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4)}
BETWEEN = {
    "epsilon_normal": "normal",
    "epsilon_noisier": "noisier",
    "x0_noisier": "from_noisier",
    "xt_from_noisier": "renoised",
    "x0_guided": "guided",
}


def make(config: dict[str, Any], dtype: torch.dtype = torch.float32) -> DiffusionAd:
    side = config["img_size"]
    shape = DiffusionAdConfig(
        config["base_channels"],
        MULTIPLIERS[side],
        strides_of(side),
        config["segment_base_channels"],
        config["num_heads"],
    )
    network = DiffusionAd(shape).to(dtype)
    parts = (
        (network.unet, "out.2.weight", "gain_unet"),
        (network.segmentation, "decoder_segment.fin_out.0.weight", "gain_segmentation"),
    )
    for part, name, gain in parts:
        part.load_state_dict(drawn_plainly(part.state_dict(), {name: config[gain]}, dtype))
    return network


def noise_of(name: str, shape: tuple[int, ...]) -> Tensor:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def pictures(data: Any) -> Tensor:
    return torch.from_numpy(data).permute(0, 3, 1, 2).float() / 255


@lru_cache(maxsize=1)
def forward(path: Path) -> tuple[dict[str, Any], DiffusionAd]:
    data = read(path)
    return data, make(data["config"]).eval()


def settings(config: dict[str, Any]) -> Settings:
    return Settings(config["normal_t"], config["noisier_t"], config["condition_w"], 2, None)


def test_there_are_golden_files() -> None:
    assert FORWARD and STEPS


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_forward(path: Path) -> None:
    data, network = forward(path)
    config = data["config"]
    if config["base_channels"] > WIDE:
        pytest.skip("what is exported of it is looked at below; both would take half a minute")
    image = pictures(data["image"])
    noises = tuple(noise_of(f"noise.{which}", tuple(image.shape)) for which in ("normal", "noisier"))
    assert largest(torch.stack(noises).flatten(1)[:, :8], data["noise_first"]) <= 1e-7
    steps = tuple(torch.full((len(image),), config[key]) for key in ("normal_t", "noisier_t"))
    with torch.no_grad():
        found = network.denoised(image, noises, steps, linear_schedule(), config["condition_w"])  # type: ignore[arg-type]
        probability = torch.sigmoid(network.compared(image, found.guided))
        embedding = network.unet.time_embedding(torch.tensor([steps[0][0], steps[1][0]]).float())
    assert largest(embedding, data["time_embedding"]) <= 1e-5
    assert largest(probability, data["map"]) <= MAP_TOLERANCE
    assert largest(probability.flatten(1).topk(50).values.mean(1), data["score"]) <= SCORE_TOLERANCE
    for key, name in BETWEEN.items():
        for every in (1, 2, 8):
            wanted = data.get(key if every == 1 else f"{key}_{every}")
            if wanted is not None:
                assert largest(getattr(found, name)[..., ::every, ::every], wanted) <= PASS_TOLERANCE, key


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_fold(path: Path) -> None:
    """What is exported, with the noise that the golden files have for the first picture."""
    data, network = forward(path)
    config, image = data["config"], pictures(data["image"])[:1]
    size_hw = (image.shape[2], image.shape[3])
    for name, first in zip(NOISES, data["noise_first"], strict=True):
        assert largest(fixed_noise(name, size_hw).ravel()[:8], first) == 0
    with torch.no_grad():
        folded = torch.sigmoid(FoldedDiffusionAd(network, settings(config), size_hw)(image))
        if len(data["map"]) == 1:  # of several, all noises come from one draw, and so other ones
            assert largest(folded, data["map"]) <= MAP_TOLERANCE
        if config["base_channels"] > WIDE:
            return  # the rest would take minutes, and says nothing new
        published = PublishedDiffusionAd(network, settings(config), size_hw)
        assert largest(folded, torch.sigmoid(published(image))) <= MAP_TOLERANCE
        unguided = Settings(config["normal_t"], config["noisier_t"], 0.0, 2, None)
        control = torch.sigmoid(PublishedDiffusionAd(network, unguided, size_hw)(image))
        one = torch.sigmoid(
            FoldedDiffusionAd(network, Settings(config["normal_t"], config["noisier_t"], 1.0, 1, None), size_hw)(image)
        )
    assert largest(one, control) <= MAP_TOLERANCE, "one pass is two without guidance"
    assert largest(folded, control) > 0.01, "control: the guidance is seen"


@pytest.mark.parametrize("path", STEPS, ids=lambda path: path.stem)
def test_training_steps(path: Path) -> None:
    """In float64, as the files are."""
    data = read(path)
    config = data["config"]
    network = make(config, torch.float64).train()
    image = torch.from_numpy(data["augmented"]).permute(0, 3, 1, 2).double() / 255
    mask = torch.from_numpy(data["mask"]).bool()
    assert np.array_equal(mask.flatten(1).any(1).numpy(), data["has_anomaly"] > 0)
    optimizers, schedule = optimizers_of(network, config["lr_unet"], config["lr_segmentation"]), linear_schedule()
    for number in range(config["n_steps"]):
        rate = config["lr_segmentation"] * swing(number)
        assert rate == pytest.approx(float(data["lr_segmentation"][number]), rel=1e-9)
        for group in optimizers[1].param_groups:
            group["lr"] = rate
        noises = tuple(
            noise_of(f"noise.{which}.{number}", tuple(image.shape)).double() for which in ("normal", "noisier")
        )
        steps = tuple(torch.from_numpy(data[key][number]) for key in ("normal_t", "noisier_t"))
        found = network.denoised(image, noises, steps, schedule, config["condition_w"])  # type: ignore[arg-type]
        logits = network.compared(image, found.guided)
        losses = diffusionad_losses(found, noises, logits, mask)  # type: ignore[arg-type]
        assert largest([loss.item() for loss in losses], data["losses"][number]) <= LOSS_TOLERANCE
        clamped = float((found.guided.abs() == 1).double().mean())
        assert clamped == pytest.approx(float(data["clamped_share"][number]), abs=1e-6)
        for optimizer in optimizers:
            optimizer.zero_grad()
        (losses[0] + FOCAL_WEIGHT * losses[1] + losses[2]).backward()
        if number == 0:
            assert largest(torch.sigmoid(logits).detach(), data["first_map"]) <= MAP_TOLERANCE
            check_gradients(network, data)
        for optimizer in optimizers:
            optimizer.step()
    state = {**network.unet.state_dict(), **network.segmentation.state_dict()}
    for name in [name for name in data if name.startswith("after.")]:
        assert largest(state[name.removeprefix("after.")], data[name]) <= WEIGHT_TOLERANCE, name


def check_gradients(network: DiffusionAd, data: dict[str, Any]) -> None:
    weights = {**dict(network.unet.named_parameters()), **dict(network.segmentation.named_parameters())}
    for name in [name for name in data if name.startswith("gradient.")]:
        gradient = weights[name.removeprefix("gradient.")].grad
        assert gradient is not None
        wanted = data[name]
        assert largest(gradient, wanted) <= 1e-6 * max(1.0, float(np.abs(wanted).max())), name
