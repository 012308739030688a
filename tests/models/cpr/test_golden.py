"""The authors' CPR: every stage of a forward pass, and training steps, against every golden file.

Tolerances are those of tests/golden/cpr/README.md. Indices have to be equal but where two distances are.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import drawn, files_with, largest, read
from torch import Tensor

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.models.backbone import Backbone
from edge_ad.models.cpr.config import CprConfig
from edge_ad.models.cpr.fast import FastCpr
from edge_ad.models.cpr.fitting import Cells, codebook, foreground, scaled
from edge_ad.models.cpr.network import Cpr, LocalBranch
from edge_ad.models.cpr.published import PublishedCpr
from edge_ad.models.cpr.retrieval import BlockGrid, block_distances, codes, global_distances, histograms, nearest_first
from edge_ad.models.cpr.specs import OUTPUT
from edge_ad.models.cpr.training.loss import Points
from edge_ad.models.cpr.training.options import CprTrainOptions
from edge_ad.models.cpr.training.trainer import optimizer_of, step

FEATURE_TOLERANCE = 1e-5  # of the largest
TOLERANCE = 1e-5
SUM_TOLERANCE = 1e-3
TIE = 1e-6  # distances that differ by less may come in any order
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-3  # of the norm
WEIGHT_TOLERANCE = 2e-4
EVERY = 61  # of the elements of a large tensor that the file holds
LARGE = 1200
ROUND_OFF = (".0.bias", ".1.running_mean")  # what carries only rounding in front of a normalisation, and follows it
BACKBONES = {"DenseNet": "densenet201", "ResNet": "resnet18", "EfficientNet": "efficientnet_b0"}
FORWARD = files_with("cpr", "patch_map")
STEPS = files_with("cpr", "losses")


def normal(image_nhwc: Any, spec: PreprocessSpec) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    return (torch.from_numpy(np.asarray(image_nhwc)).permute(0, 3, 1, 2).float() / 255 - mean) / std


@lru_cache(maxsize=2)
def networks(model: str, layers: tuple[str, str], size: int) -> tuple[Backbone, LocalBranch]:
    backbone = Backbone(BACKBONES[model], layers)
    backbone.trunk.load_state_dict(drawn(backbone.trunk.state_dict()))
    lrb = LocalBranch([shape[0] for shape in backbone.eval().shapes(size, size)])
    lrb.load_state_dict(drawn(lrb.state_dict()))
    return backbone.requires_grad_(False), lrb


@lru_cache(maxsize=4)
def forward(path: Path) -> tuple[dict[str, Any], PreprocessSpec, Cpr, PublishedCpr, list[Tensor]]:
    data = read(path)
    told = data["config"]
    config = CprConfig(
        BACKBONES[told["model"]],
        tuple(told["layers"]),
        told["k_nearest"],
        retrieval_share=told["l_ratio"],
        search_windows=tuple(told["region_sizes"]),
    )
    found = None
    if told["foreground"]:
        found = scaled(data["lda_coef"], float(data["lda_intercept"]), float(data["lda_min"]), float(data["lda_max"]))
    backbone, lrb = networks(told["model"], config.layers, told["size"])
    references = torch.from_numpy(data["reference"])
    network = Cpr(config, backbone, lrb, torch.from_numpy(data["centers"]), found, references, ()).eval()
    preprocess = PreprocessSpec(told["size"], told["size"], resize_mode="stretch")
    with torch.no_grad():
        taps = backbone(normal(data["image"], preprocess))
    return data, preprocess, network, PublishedCpr(network, preprocess, OUTPUT), taps


def test_there_are_golden_files() -> None:
    assert FORWARD and STEPS and any("lda_coef" in np.load(path) for path in FORWARD)


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_features(path: Path) -> None:
    data, _, network, _, taps = forward(path)
    with torch.no_grad():
        described = network.described(taps)
    for tap, every in enumerate(data["sample_step"]):
        for got, wanted in ((taps, data[f"features_{tap}"]), (described, data[f"local_{tap}"])):
            limit = FEATURE_TOLERANCE * float(np.abs(wanted).max())
            assert largest(got[tap][..., ::every, ::every], wanted) <= limit


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_retrieval(path: Path) -> None:
    data, preprocess, network, published, taps = forward(path)
    told = data["config"]
    with torch.no_grad():
        first = torch.cat([taps[0], network.backbone(normal(data["reference"], preprocess))[0]])
    code = codes(first, network.centres).numpy()
    wanted = np.concatenate([data["code"], data["reference_code"]])
    for place in zip(*np.nonzero(code != wanted), strict=True):
        cell = first[place[0], :, place[1], place[2]]
        two = ((network.centres[[code[place], wanted[place]]] - cell) ** 2).sum(1)
        assert abs(float(two[0] - two[1])) <= TIE * float(two.max()), "codes differ where no two centres tie"
    grid = BlockGrid.of(*code.shape[1:])
    assert (grid.side[0], grid.padding[0], grid.blocks) == (told["block"], told["padding"], data["histogram"].shape[1])
    count = len(data["image"])
    histogram = histograms(torch.from_numpy(wanted.astype(np.int64)))
    assert largest(histogram[:count], data["histogram"]) <= TOLERANCE
    assert largest(histogram[count:], data["reference_histogram"]) <= TOLERANCE
    blocks = block_distances(histogram[:count], histogram[count:], "kl")
    assert largest(blocks, data["block_kl"]) <= TOLERANCE
    distance = global_distances(blocks, told["l_ratio"])
    assert largest(distance, data["global_distance"]) <= TOLERANCE
    assert_same_order(published.retrieved(taps[0]).numpy(), data["retrieved"], distance.numpy())
    own = global_distances(block_distances(histogram[count:], histogram[count:], "kl"), told["l_ratio"])
    assert_same_order(nearest_first(own).numpy(), data["reference_order"], own.numpy())


def assert_same_order(got: Any, wanted: Any, distance: Any) -> None:
    one, other = (np.take_along_axis(distance, indices, 1) for indices in (got, wanted))
    assert ((got == wanted) | (np.abs(one - other) <= TIE)).all()


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_local_search(path: Path) -> None:
    data, _, network, published, taps = forward(path)
    chosen = torch.from_numpy(data["retrieved"])
    with torch.no_grad():
        found = published.local_distances(taps, chosen)
    for tap, (distance, nearest) in enumerate(found):
        assert largest(distance, data[f"local_distance_{tap}"]) <= TOLERANCE
        differ = nearest.numpy() != data[f"nearest_reference_{tap}"]
        assert differ.mean() <= 1e-3, "but for ties"
    if network.foreground is not None:
        assert largest(network.foreground(taps[0]), data["foreground"]) <= TOLERANCE
        assert published.facts.foreground is not None
        assert largest(published.facts.foreground, data["reference_foreground"]) <= TOLERANCE
        full = published.foreground_map(taps[0], chosen)
        assert full is not None
        assert largest(full[:, ::4, ::4], data["foreground_weight_map"]) <= TOLERANCE


@pytest.mark.parametrize("form", ["published", "fast", "float16", "int8"])
@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_maps_and_scores(path: Path, form: str) -> None:
    """The form that is exported is held to the authors' output too; a bank of fewer bits is off by what it rounds."""
    data, preprocess, network, published, _ = forward(path)
    tolerance, sum_tolerance = {"float16": (2e-4, 0.1), "int8": (4e-3, 2.0)}.get(form, (TOLERANCE, SUM_TOLERANCE))
    module: torch.nn.Module = published
    if form != "published":
        network.bank = form if form in ("float16", "int8") else "float32"
        module = FastCpr(network, preprocess, OUTPUT)
    with torch.no_grad():
        answer = module(normal(data["image"], preprocess))
    assert largest(answer.patches, data["patch_map"]) <= tolerance
    assert largest(answer.anomaly_map, data["anomaly_map"]) <= tolerance
    top = answer.anomaly_map.flatten(1).topk(data["config"]["T"]).values.double()
    assert largest(top.sum(1), data["score_sum"]) <= sum_tolerance
    assert largest(top.mean(1), data["score_mean"]) <= sum_tolerance / data["config"]["T"]


@pytest.mark.parametrize("path", [path for path in FORWARD if "lda_coef" in np.load(path)], ids=lambda path: path.stem)
def test_fitting(path: Path) -> None:
    """Versions of scikit-learn may differ in their clusters, so what comes of them is compared loosely."""
    data, preprocess, network, _, _ = forward(path)
    with torch.no_grad():
        taps = network.backbone(normal(data["reference"], preprocess))[0]
    count, channels, height, width = taps.shape
    cells = Cells(count, channels, height, width, lambda: iter(taps.split(3)))
    spread = [
        torch.cdist(taps.permute(0, 2, 3, 1).reshape(-1, channels), centres).amin(1).square().sum()
        for centres in (codebook(cells), torch.from_numpy(data["centers"]))
    ]
    assert float(spread[0]) <= 1.02 * float(spread[1])
    found = foreground(cells)
    assert 0 <= found.middle <= 1 and 0 < found.border <= 1
    assert float((found.foreground(taps) - torch.from_numpy(data["reference_foreground"])).abs().mean()) <= 0.01


@pytest.mark.parametrize("path", STEPS, ids=lambda path: path.stem)
def test_training_steps(path: Path) -> None:
    """In float64: what is left between the two is the rounding of the authors' float32, which AdamW makes larger."""
    data = read(path)
    told = data["config"]
    backbone, lrb = networks(told["model"], tuple(told["layers"]), told["size"])
    lrb = copy.deepcopy(lrb)  # its weights are about to change
    spec = PreprocessSpec(told["size"], told["size"])
    pictures = normal(np.concatenate([data["image"], data["retrieved_image"]]), spec)
    taps, lrb = [tap.double() for tap in backbone(pictures)], lrb.double()
    kinds = ("positive_points", "positive_weight", "negative_points", "retrieved_negative_points", "negative_weight")
    points = Points(*(torch.from_numpy(data[kind]).double() for kind in (*kinds, "anomaly_points", "anomaly_weight")))
    options = CprTrainOptions(output=path, learning_rate=told["lr"], weight_decay=told["weight_decay"])
    optimizer = optimizer_of(lrb, options)
    for number in range(told["n_steps"]):
        losses = step(lrb, optimizer, taps, points)
        assert largest([*losses, sum(losses)], data["losses"][number]) <= LOSS_TOLERANCE
        if number == 0:
            for name, parameter in lrb.named_parameters():
                wanted = float(data[f"grad_norm.{name}"])
                assert parameter.grad is not None
                if not name.endswith(ROUND_OFF):
                    assert abs(float(parameter.grad.norm()) - wanted) <= GRADIENT_TOLERANCE * wanted, name
    state = lrb.state_dict()
    compared = 0
    for key in (name for name in data if name.startswith("after.")):
        name = key.removeprefix("after.")
        values = state[name].flatten()
        if name.count(".") == 3 and name.endswith(ROUND_OFF):
            continue
        assert largest(values[:: EVERY if len(values) > LARGE else 1], data[key]) <= WEIGHT_TOLERANCE, name
        compared += 1
    assert compared > 60
