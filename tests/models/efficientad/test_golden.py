"""nelson1425's EfficientAD against every golden file: networks, statistics, maps, score; and the fold of each.

The tolerance of tests/golden/efficientad/README.md is 1e-5 of the largest value. What takes a minute is computed for
files of `EDGE_AD_GOLDEN` alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import drawn, files_with, largest, read

from edge_ad.models.efficientad.config import WIDTHS, EfficientAdConfig
from edge_ad.models.efficientad.fold import FoldedEfficientAd
from edge_ad.models.efficientad.network import EfficientAd
from edge_ad.models.efficientad.statistics import measure_quantiles, measure_teacher, normalised

FILES = files_with("efficientad", "map_combined")
TOLERANCE = 1e-5
EVERYTHING = "EDGE_AD_GOLDEN" in os.environ


def make(data: dict[str, Any]) -> EfficientAd:
    config = data["config"]
    assert not config["padding"]
    size = config["model_size"]
    network = EfficientAd(EfficientAdConfig(size, WIDTHS[size], config["out_channels"])).eval()
    network.load_state_dict(drawn(network.state_dict()))
    return network.requires_grad_(False)


def images(data: dict[str, Any], key: str) -> list[np.ndarray]:
    repeat = data["config"]["repeat"]
    return list(data[key].repeat(repeat, 1).repeat(repeat, 2))


def assert_close(got: Any, wanted: np.ndarray) -> None:
    assert largest(got, wanted) <= TOLERANCE * float(np.abs(wanted).max())


def test_there_is_a_golden_file_of_each_size() -> None:
    assert {read(path)["config"]["model_size"] for path in FILES} >= {"small", "medium"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_forward(path: Path) -> None:
    data = read(path)
    network = make(data)
    for buffer, key in (("mean", "teacher_mean"), ("std", "teacher_std"), ("quantiles", "quantiles")):
        getattr(network, buffer).copy_(torch.from_numpy(data[key]))
    count = len(data["image_small"]) if EVERYTHING else 1
    image = normalised(images(data, "image_small")[:count])
    answers = {"teacher": network.teacher(image), "student": network.student(image)}
    answers["autoencoder"] = network.autoencoder(image)
    for part, answer in answers.items():
        assert_close(answer[:, ::16, ::14, ::14], data[f"{part}_sample"][:count])
    local, whole = answers["student"].chunk(2, dim=1)
    taught = (answers["teacher"] - network.mean[:, None, None]) / network.std[:, None, None]
    assert_close((taught - local).square().mean(1), data["map_st_raw"][:count])
    assert_close((answers["autoencoder"] - whole).square().mean(1), data["map_ae_raw"][:count])
    small = data["config"]["model_size"] == "small"
    forms: list[Any] = [FoldedEfficientAd(network, (256, 256))] if small or EVERYTHING else []
    for form in (network, *forms):
        answer = form(image)
        assert_close(answer.patches, data["map_combined"][:count])
        assert_close(answer.anomaly_map[:, ::4, ::4], data["anomaly_map"][:count])
        assert largest(answer.anomaly_map.amax((1, 2)), data["score"][:count]) <= TOLERANCE * data["score"].max()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_statistics(path: Path) -> None:
    """Mean, deviation and quantiles of the reference pictures, which no file of that code holds."""
    data = read(path)
    if data["config"]["model_size"] == "medium" and not EVERYTHING:
        pytest.skip("takes long, and its statistics are those of the small one: set EDGE_AD_GOLDEN")
    network = make(data)
    measure_teacher(network, images(data, "reference_small"))
    assert_close(network.mean, data["teacher_mean"])
    assert_close(network.std, data["teacher_std"])
    measure_quantiles(network, images(data, "reference_small"))
    assert_close(network.quantiles, data["quantiles"])
