"""The authors' own outputs: reference network and folded form against every golden forward file.

Tolerance: 2e-5 of a probability, the project's promise, and 8e-5 of a logit, which is the same where the sigmoid is
steepest (slope 1/4). Both sides are float32 on a CPU; rounding through the backbones here measures below 2e-6 of a
probability, a mistake of the formula (align_corners, padding, pooling) above 1e-3.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import files_with

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, ScoreKind
from edge_ad.image.operators import ResizeSmooth
from edge_ad.models.contract import ContractModule
from edge_ad.models.glass.network import Glass
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.fold import FoldedHead

TOLERANCE = 2e-5
LOGIT_TOLERANCE = 4 * TOLERANCE
# Float32 sums over patches; embeddings of a deterministic backbone reach some tens, hence relative to their size.
EMBEDDING_RTOL = 1e-4
FORMS = ("reference", "folded")
SYNONYMS = {
    "backbone": ("backbone", "backbone_name"),
    "layers": ("layers", "taps", "layers_to_extract_from"),
    "embed": ("embed_dim", "target_embed_dim", "target_dim", "target_embed_dimension", "target", "dim"),
    "pretrain": ("pretrain_embed_dim", "pretrain_dim", "pretrain_embed_dimension", "pretrain", "dim"),
    "hidden": ("hidden", "hidden_dim", "dsc_hidden"),
    "adaptor_layers": ("adaptor_layers", "pre_proj", "pre_projection_layers"),
    "discriminator_layers": ("discriminator_layers", "dsc_layers"),
}


FILES = files_with("glass", "patch_probability")


@dataclass(frozen=True)
class Golden:
    """One golden file and the networks made as its `config` says."""

    data: dict[str, Any]
    model: Glass
    folded: FoldedHead
    size_hw: tuple[int, int]

    @property
    def normalised(self) -> torch.Tensor:
        image = torch.from_numpy(self.data["image"]).permute(0, 3, 1, 2).float() / 255
        mean, std = torch.tensor(PreprocessSpec(1, 1).mean), torch.tensor(PreprocessSpec(1, 1).std)
        return (image - mean[:, None, None]) / std[:, None, None]

    def logits(self, form: str) -> torch.nn.Module:
        return self.model if form == "reference" else self.folded


def glass_config(raw: dict[str, Any]) -> HeadConfig:
    """Configuration of a golden file; sizes and taps may stand under any name of SYNONYMS."""

    def value(what: str, default: Any = None) -> Any:
        return next((raw[key] for key in SYNONYMS[what] if raw.get(key) is not None), default)

    layers = value("layers", ("layer2", "layer3"))
    layers = [name.strip() for name in layers.split(",")] if isinstance(layers, str) else layers
    embed, pretrain = value("embed"), value("pretrain")
    assert embed or pretrain, f"the golden file's config {raw} names no embedding size"
    return HeadConfig(
        backbone=value("backbone"),
        layers=tuple(layers),
        pretrain_embed_dim=pretrain or embed,
        embed_dim=embed or pretrain,
        hidden_dim=value("hidden", HeadConfig.hidden_dim),
        adaptor_layers=value("adaptor_layers", 1),
        discriminator_layers=value("discriminator_layers", 2),
    )


@lru_cache(maxsize=1)
def load(path: Path, draw: Callable[[Any], dict[str, Any]]) -> Golden:
    with np.load(path) as file:
        data = dict(file)
    model = Glass(glass_config(ast.literal_eval(str(data["config"]))))
    for part in (model.backbone.trunk, model.adaptor, model.discriminator):
        part.load_state_dict(draw(part.state_dict()))
    model.eval().requires_grad_(False)
    size_hw = data["image"].shape[1:3]
    return Golden(data, model, FoldedHead(model, size_hw).eval(), size_hw)


@pytest.fixture(params=FILES, ids=[path.stem for path in FILES], scope="module")
def golden(request: pytest.FixtureRequest, deterministic_state: Callable[[Any], dict[str, Any]]) -> Golden:
    return load(request.param, deterministic_state)


def largest_difference(got: Any, wanted: Any) -> float:
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape
    assert np.isfinite(got).all()
    return float(np.abs(got - wanted).max())


def test_there_are_golden_files() -> None:
    assert FILES


@pytest.mark.parametrize("form", FORMS)
def test_golden_patch_probability(golden: Golden, form: str) -> None:
    with torch.no_grad():
        logits = golden.logits(form)(golden.normalised)
    assert largest_difference(torch.sigmoid(logits), golden.data["patch_probability"]) <= TOLERANCE
    if "patch_logit" in golden.data:
        assert largest_difference(logits, golden.data["patch_logit"]) <= LOGIT_TOLERANCE


@pytest.mark.parametrize("score", ["map_max", "patch_max"])
@pytest.mark.parametrize("form", FORMS)
def test_golden_contract_outputs(golden: Golden, form: str, score: ScoreKind) -> None:
    spec = PreprocessSpec(*golden.size_hw)
    module = ContractModule(golden.logits(form), spec, PostprocessSpec(score=score)).eval()
    with torch.no_grad():
        patch_map, anomaly_map, pred_score = module(torch.from_numpy(golden.data["image"]))
    assert largest_difference(patch_map, golden.data["patch_probability"]) <= TOLERANCE
    assert largest_difference(anomaly_map, golden.data["anomaly_map"]) <= TOLERANCE
    assert largest_difference(pred_score, golden.data[f"score_{score}"]) <= TOLERANCE


def test_golden_anomaly_map_of_the_operator(golden: Golden) -> None:
    patch = golden.data["patch_probability"]
    smooth = ResizeSmooth(patch.shape[1:], golden.size_hw)(patch)
    assert largest_difference(smooth, golden.data["anomaly_map"]) <= TOLERANCE
    assert largest_difference(smooth.max(axis=(1, 2)), golden.data["score_map_max"]) <= TOLERANCE
    assert largest_difference(patch.max(axis=(1, 2)), golden.data["score_patch_max"]) <= TOLERANCE


def test_golden_embedding_statistics(golden: Golden) -> None:
    wanted = {name: golden.data[name] for name in ("embedding_mean", "embedding_std") if name in golden.data}
    if not wanted:
        pytest.skip("this golden file holds no embedding statistics")
    with torch.no_grad():
        embedding = golden.model.embed(golden.normalised)[0].double().numpy()
    # numpy's std (ddof 0) and torch's (ddof 1) differ by 1 / 2P: told apart by the file itself, both are accepted.
    found = {"embedding_mean": [embedding.mean(0)], "embedding_std": [embedding.std(0), embedding.std(0, ddof=1)]}
    for name, value in wanted.items():
        scale = float(np.abs(value).max())
        assert min(largest_difference(candidate, value) for candidate in found[name]) <= EMBEDDING_RTOL * scale, name


def test_golden_comparison_notices_a_changed_weight(golden: Golden) -> None:
    with torch.no_grad():
        golden.folded.bias += 1e-2
        try:
            logits = golden.folded(golden.normalised)
        finally:
            golden.folded.bias -= 1e-2
    assert largest_difference(torch.sigmoid(logits), golden.data["patch_probability"]) > TOLERANCE
    if "patch_logit" in golden.data:
        assert largest_difference(logits, golden.data["patch_logit"]) > LOGIT_TOLERANCE


def test_golden_config_takes_other_names_for_its_keys() -> None:
    raw = {"backbone": "resnet18", "taps": "layer1,layer2", "pretrain_dim": 97, "target_dim": 51, "hidden": 8}
    assert glass_config(raw) == HeadConfig("resnet18", ("layer1", "layer2"), 97, 51, 8)
    plain = {"backbone": "resnet18", "dim": 96, "hidden": 64}
    assert glass_config(plain) == HeadConfig("resnet18", ("layer2", "layer3"), 96, 96, 64)
