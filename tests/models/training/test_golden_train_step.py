"""The authors' own training step: the published one and the fast one against every golden train_step file.

Tolerances are those of tests/golden/README.md: losses 1e-5, weights after the last step 5e-5, and 1e-3 for the three
tensors in front of a train-mode BatchNorm that carry only round-off, which Adam amplifies.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import files_with

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.models.glass.config import Objective
from edge_ad.models.glass.network import Glass
from edge_ad.models.glass.training.objective import StepLosses
from edge_ad.models.glass.training.optimizers import optimizers_of
from edge_ad.models.glass.training.reference import published_step
from edge_ad.models.glass.training.step import fast_step
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.embedding import PooledEmbedding

LOSS_TOLERANCE = 1e-5
SHARE_TOLERANCE = 1e-6
WEIGHT_TOLERANCE = 5e-5
ROUND_OFF_TOLERANCE = 1e-3
ROUND_OFF = {
    "discriminator.body.block1.0.bias",
    "discriminator.body.block1.1.running_mean",
    "pre_projection.layers.0fc.bias",
}
SYNONYMS = {
    "backbone": ("backbone", "backbone_name"),
    "layers": ("layers", "taps", "layers_to_extract_from"),
    "embed": ("embed_dim", "target_embed_dim", "target_dim", "target_embed_dimension", "target", "dim"),
    "pretrain": ("pretrain_embed_dim", "pretrain_dim", "pretrain_embed_dimension", "pretrain", "dim"),
    "hidden": ("hidden", "hidden_dim", "dsc_hidden"),
    "adaptor_layers": ("adaptor_layers", "pre_proj", "pre_projection_layers"),
    "discriminator_layers": ("discriminator_layers", "dsc_layers"),
    "hypersphere": ("svd",),
    "mining": ("mining",),
    "ascent_steps": ("step", "ascent_steps"),
    "radius_quantile": ("radius", "radius_quantile"),
    "hard_quantile": ("p", "hard_quantile"),
    "noise_std": ("noise", "noise_std"),
    "learning_rate": ("lr", "learning_rate"),
    "n_steps": ("n_steps", "steps"),
}
Draw = Callable[[Any], dict[str, Any]]
Figures = list[tuple[float, float, float, float, float]]


def setting(raw: dict[str, Any], what: str, default: Any = None) -> Any:
    return next((raw[key] for key in SYNONYMS[what] if raw.get(key) is not None), default)


def glass_config(raw: dict[str, Any]) -> HeadConfig:
    layers = setting(raw, "layers", ("layer2", "layer3"))
    layers = [name.strip() for name in layers.split(",")] if isinstance(layers, str) else layers
    embed, pretrain = setting(raw, "embed"), setting(raw, "pretrain")
    return HeadConfig(
        backbone=setting(raw, "backbone"),
        layers=tuple(layers),
        pretrain_embed_dim=pretrain or embed,
        embed_dim=embed or pretrain,
        hidden_dim=setting(raw, "hidden", HeadConfig.hidden_dim),
        adaptor_layers=setting(raw, "adaptor_layers", 1),
        discriminator_layers=setting(raw, "discriminator_layers", 2),
    )


def objective_of(raw: dict[str, Any]) -> Objective:
    defaults = Objective()
    mining = setting(raw, "mining", 1)
    return Objective(
        hypothesis="hypersphere" if setting(raw, "hypersphere", 0) else "manifold",
        noise_std=setting(raw, "noise_std", defaults.noise_std),
        ascent_steps=setting(raw, "ascent_steps", defaults.ascent_steps) if mining else 0,
        radius_quantile=setting(raw, "radius_quantile", defaults.radius_quantile),
        hard_quantile=setting(raw, "hard_quantile", defaults.hard_quantile),
    )


@dataclass(frozen=True)
class Golden:
    """One golden file and what its `config` says."""

    data: dict[str, Any]
    config: HeadConfig
    objective: Objective
    learning_rate: float
    n_steps: int

    def network(self, draw: Draw) -> Glass:
        network = Glass(self.config)
        for part in (network.backbone.trunk, network.adaptor, network.discriminator):
            part.load_state_dict(draw(part.state_dict()))
        network.backbone.requires_grad_(False)
        return network.eval()

    def normalised(self, name: str) -> torch.Tensor:
        spec = PreprocessSpec(1, 1)
        image = torch.from_numpy(self.data[name]).permute(0, 3, 1, 2).float() / 255
        return (image - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[:, None, None]

    @property
    def common(self) -> dict[str, Any]:
        """Arguments of both forms of the step."""
        anomalous = torch.from_numpy(self.data["mask"]).flatten() > 0
        return {"anomalous": anomalous, **{name: torch.from_numpy(self.data[name]) for name in ("noise", "center")}}


def read(path: Path) -> Golden:
    with np.load(path) as file:
        data = dict(file)
    raw = ast.literal_eval(str(data["config"]))
    rate, n_steps = setting(raw, "learning_rate", 1e-4), setting(raw, "n_steps", len(data["losses"]))
    return Golden(data, glass_config(raw), objective_of(raw), rate, n_steps)


def published(golden: Golden, network: Glass, objective: Objective) -> list[StepLosses]:
    optimizers = optimizers_of(network, golden.learning_rate)
    images = {name: golden.normalised(name) for name in ("image", "augmented")}
    return [published_step(network, objective, optimizers, **images, **golden.common) for _ in range(golden.n_steps)]


def fast(golden: Golden, network: Glass, objective: Objective) -> list[StepLosses]:
    optimizers = optimizers_of(network, golden.learning_rate)
    with torch.no_grad():
        taps = {name: network.backbone(golden.normalised(name)) for name in ("image", "augmented")}
    pooled = PooledEmbedding(golden.config, [int(tap.shape[1]) for tap in taps["image"]])
    embeddings = {"normal_embedding": pooled(taps["image"]), "local_embedding": pooled(taps["augmented"])}
    return [fast_step(network, objective, optimizers, **embeddings, **golden.common) for _ in range(golden.n_steps)]


FORMS = {"published": published, "fast": fast}
FILES = files_with("glass", "losses", "after.")


@pytest.fixture(params=FILES, ids=[path.stem for path in FILES], scope="module")
def golden(request: pytest.FixtureRequest) -> Golden:
    return read(request.param)


@pytest.fixture(params=FORMS, scope="module")
def trained(request: pytest.FixtureRequest, golden: Golden, deterministic_state: Draw) -> tuple[Glass, Figures]:
    """The network after the last step, and each step's losses and shares."""
    network = golden.network(deterministic_state)
    losses = FORMS[request.param](golden, network, golden.objective)
    return network, figures(losses)


def figures(losses: list[StepLosses]) -> Figures:
    return [(each.normal, each.gas, each.las, each.normal_right, each.anomalous_right) for each in losses]


def test_there_are_golden_files() -> None:
    assert FILES


def test_golden_losses(golden: Golden, trained: tuple[Glass, Figures]) -> None:
    losses = np.array(trained[1])[:, :3]
    assert losses.shape == golden.data["losses"].shape
    np.testing.assert_allclose(losses, golden.data["losses"], rtol=0, atol=LOSS_TOLERANCE)


def test_golden_shares_on_the_right_side(golden: Golden, trained: tuple[Glass, Figures]) -> None:
    shares = np.array(trained[1])[:, 3:]
    for column, name in enumerate(("p_true", "p_fake")):
        if name in golden.data:
            np.testing.assert_allclose(shares[:, column], golden.data[name], rtol=0, atol=SHARE_TOLERANCE)


def test_golden_weights_after_the_last_step(golden: Golden, trained: tuple[Glass, Figures]) -> None:
    after = after_training(trained[0])
    wanted = {name.removeprefix("after."): golden.data[name] for name in golden.data if name.startswith("after.")}
    assert after.keys() == wanted.keys()
    for name, value in wanted.items():
        tolerance = ROUND_OFF_TOLERANCE if name in ROUND_OFF else WEIGHT_TOLERANCE
        np.testing.assert_allclose(after[name], value, rtol=0, atol=tolerance, err_msg=name)


def after_training(network: Glass) -> dict[str, Any]:
    parts = {"pre_projection": network.adaptor, "discriminator": network.discriminator}
    return {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}


CHANGES: dict[str, Callable[[Objective], Objective]] = {
    "hypothesis": lambda o: replace(o, hypothesis="manifold" if o.hypothesis == "hypersphere" else "hypersphere"),
    "focal_gamma": lambda o: replace(o, focal_gamma=o.focal_gamma + 1),
    "hard_quantile": lambda o: replace(o, hard_quantile=(o.hard_quantile + 0.3) % 1),
    "ascent_steps": lambda o: replace(o, ascent_steps=o.ascent_steps + 2),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", CHANGES)
def test_golden_comparison_notices_another_objective(
    golden: Golden, deterministic_state: Draw, form: str, change: str
) -> None:
    """Negative control: each constant of the objective moves some loss or weight by more than the tolerance."""
    network = golden.network(deterministic_state)
    losses = np.array(figures(FORMS[form](golden, network, CHANGES[change](golden.objective))))[:, :3]
    moved = [float(np.abs(losses - golden.data["losses"]).max()) > LOSS_TOLERANCE]
    for name, value in after_training(network).items():
        tolerance = ROUND_OFF_TOLERANCE if name in ROUND_OFF else WEIGHT_TOLERANCE
        moved.append(float(np.abs(value.numpy() - golden.data[f"after.{name}"]).max()) > tolerance)
    assert any(moved)


def test_golden_config_takes_other_names_for_its_keys() -> None:
    raw = {"backbone": "resnet18", "taps": "layer1,layer2", "embed_dim": 97, "hidden_dim": 8, "dsc_layers": 3}
    assert glass_config(raw) == HeadConfig("resnet18", ("layer1", "layer2"), 97, 97, 8, 1, 3)
    raw = {"svd": 1, "mining": 1, "step": 20, "radius": 0.8, "p": 0.25, "noise": 0.02}
    wanted = Objective("hypersphere", noise_std=0.02, radius_quantile=0.8, hard_quantile=0.25)
    assert objective_of(raw) == wanted
    assert objective_of({**raw, "mining": 0}) == replace(wanted, ascent_steps=0)
