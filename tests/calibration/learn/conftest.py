"""Bundles of every family that can learn, with a threshold at which three of the good pictures are rejected."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import drawn
from training_runs import trained

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.specs import Thresholds, UsabilityLimits
from edge_ad.calibration.tools import Tools
from edge_ad.datasets.folders import pictures_in
from edge_ad.export.options import export_options
from edge_ad.export.to_bundle import export_bundle
from edge_ad.image.pictures import read_picture
from edge_ad.models.efficientad.config import EfficientAdConfig
from edge_ad.models.efficientad.network import EfficientAd
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.simplenet.network import SimpleNet
from edge_ad.runtime.judge.loader import open_detector, open_graph

REJECTED = 3
Made = Callable[..., Bundle]


@pytest.fixture(scope="session")
def good(checked_parts: Path) -> Path:
    return checked_parts / "test" / "good"


@pytest.fixture(scope="session")
def bad(checked_parts: Path) -> Path:
    return checked_parts / "test" / "checks"


@pytest.fixture(scope="session")
def scores(engine_cache: Path) -> Callable[[Bundle, Path], dict[str, float]]:
    """Scores of the pictures of a folder by the float model of a bundle, by name."""

    def judged(bundle: Bundle, folder: Path) -> dict[str, float]:
        with open_detector(bundle, precision="fp32", engine_cache=engine_cache) as detector:
            found = {path.name: detector.judge(read_picture(str(path))).score for path in pictures_in(folder)}
        assert None not in found.values()
        return {name: float(score) for name, score in found.items() if score is not None}

    return judged


@pytest.fixture
def tools(engine_cache: Path) -> Callable[[Bundle, list[str]], Tools]:
    """What the command line passes in; lines go to the list."""

    def made(bundle: Bundle, said: list[str]) -> Tools:
        @contextmanager
        def open_float() -> Any:
            with open_detector(bundle, precision="fp32", engine_cache=engine_cache) as detector:
                yield detector.judge

        @contextmanager
        def open_other(graph: bytes) -> Any:
            with open_graph(bundle, graph, "fp32") as detector:
                yield detector.judge

        return Tools(open_float, open_other, lambda what: lambda samples: samples, said.append)

    return made


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory, checked_parts: Path, tiny_checkpoint: tuple[Path, Path]) -> Path:
    """A run of PatchCore."""
    told = {"backbone": "resnet18", "layers": "layer1,layer2", "imgsz": 64, "resize_mode": "stretch", "device": "cpu"}
    told |= {"embedding": "averaged", "distance": "root", "coreset": 0.02, "backbone_weights": tiny_checkpoint[1]}
    output = tmp_path_factory.mktemp("fitted") / "run"
    trained("patchcore", {**told, "data": checked_parts, "output": output})
    return output


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory,
    fitted: Path,
    tiny_bundle: Path,
    tiny_draem: Path,
    tiny_checkpoint: tuple[Path, Path],
) -> Made:
    """A bundle of a family, without a threshold; further values are options of its export."""

    def made(family: str, **values: Any) -> Bundle:
        folder = tmp_path_factory.mktemp(family)
        if family in ("glass", "draem"):
            return Bundle.read(tiny_bundle if family == "glass" else tiny_draem)
        told: dict[str, Any] = {"family": family, "output": folder / "made.edgead", "resize_mode": "stretch", **values}
        if family == "patchcore":
            return export_bundle(export_options({**told, "checkpoint": fitted}, "test"))
        if family == "simplenet":
            network = SimpleNet(HeadConfig("resnet18", ("layer1", "layer2"), 48, 48, 32))
            parts = {"discriminator": network.discriminator, "pre_projection": network.adaptor}
            torch.save({key: drawn(part.state_dict()) for key, part in parts.items()}, folder / "ckpt.pth")
            told |= {"backbone": "resnet18", "layers": "layer1,layer2", "imgsz": 64, "pretrain_embed_dim": 48}
            told |= {"backbone_weights": tiny_checkpoint[1]}
        else:
            student = EfficientAd(EfficientAdConfig("small", 8))
            state = {
                part: drawn(student.get_submodule(part).state_dict()) for part in ("teacher", "student", "autoencoder")
            }
            measured = {"mean": student.mean, "std": student.std, "quantiles": torch.tensor([0.1, 2.0, 0.1, 2.0])}
            torch.save({**state, **measured}, folder / "ckpt.pth")
        return export_bundle(export_options({**told, "checkpoint": folder / "ckpt.pth"}, "test"))

    return made


@pytest.fixture(scope="session")
def ready(exported: Made, good: Path, scores: Any, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The same with its threshold, and no picture of which is taken for unusable."""
    kept: dict[tuple[str, Any], Bundle] = {}

    def made(family: str, **values: Any) -> Bundle:
        key = (family, tuple(sorted(values.items())))
        if key not in kept:
            bundle = exported(family, **values)
            ranked = sorted(scores(bundle, good).values(), reverse=True)
            between = Thresholds((ranked[REJECTED - 1] + ranked[REJECTED]) / 2)
            changes = {"thresholds": between, "usability": replace(UsabilityLimits(), images=1)}
            kept[key] = write_changed(bundle, tmp_path_factory.mktemp("ready") / f"{family}.edgead", changes)
        return kept[key]

    return made
