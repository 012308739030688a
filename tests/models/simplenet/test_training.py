"""Training SimpleNet as a whole on a small data set."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from training_runs import assert_same_run, interrupted_in

import edge_ad
from edge_ad.bundle.bundle import Bundle
from edge_ad.datasets import open_dataset
from edge_ad.errors import ConfigError, TrainingError
from edge_ad.export.options import export_options
from edge_ad.export.to_bundle import export_bundle
from edge_ad.metrics.ranking import auroc
from edge_ad.models.progress import Progress
from edge_ad.models.simplenet.training import trainer as trainer_module
from edge_ad.models.simplenet.training.options import SimpleNetTrainOptions
from edge_ad.training_run import RunRecord, read_run

Train = Callable[..., RunRecord]


@pytest.fixture(scope="module")
def run(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three epochs. Do not change it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(folder)
    return folder


def test_a_run_is_complete(run: Path) -> None:
    record = read_run(run)
    assert (record.status, record.family, record.epochs_done) == ("finished", "simplenet", 3)
    files = {"run.yaml", "backbone.pth", "state.pt", "metrics.csv", record.checkpoint, "tensorboard"}
    assert {entry.name for entry in run.iterdir()} == files, "no picture is synthesised, so there are no samples"
    assert record.facts["backbone_weights"].startswith("file, SHA-256 ")
    data = torch.load(run / str(record.checkpoint), weights_only=True)
    assert set(data) == {"discriminator", "pre_projection"} and "tail.weight" in data["discriminator"]


def test_the_best_epoch_is_kept(run: Path) -> None:
    with (run / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    best = read_run(run).best
    assert best is not None and "AUROC" in best.rule
    assert best.epoch == int(np.argmax([float(row["image_auroc"]) + float(row["pixel_auroc"]) for row in table]))
    for row in table:
        assert float(row["loss"]) == pytest.approx(float(row["loss_normal"]) + float(row["loss_noisy"]))
        assert 0 <= float(row["normal_right"]) <= 1 and 0 <= float(row["noisy_right"]) <= 1


def test_the_seed_decides(train: Train, run: Path, tmp_path: Path) -> None:
    train(tmp_path / "again")
    assert_same_run(run, tmp_path / "again", tensors=20)
    train(tmp_path / "other", seed=1)
    assert (run / "metrics.csv").read_text() != (tmp_path / "other" / "metrics.csv").read_text()


@pytest.mark.parametrize("step", [5, 40])
def test_an_interrupted_run_ends_as_if_it_had_not_been(train: Train, run: Path, tmp_path: Path, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", progress=interrupted_in(step))
    assert read_run(tmp_path / "run").epochs_done == (step - 1) // 16
    train(tmp_path / "run", resume=True)
    assert_same_run(run, tmp_path / "run", tensors=20)


def test_export_needs_nothing_else_and_ranks_as_training_said(
    run: Path, parts: Path, tmp_path: Path, engine_cache: Path
) -> None:
    said: list[str] = []
    export_bundle(export_options({"checkpoint": run, "output": tmp_path / "b.edgead"}, "test"), said.append)
    assert [line for line in said if line.startswith("note")] == []
    manifest = Bundle.read(tmp_path / "b.edgead").manifest
    assert manifest.model.family == "simplenet"
    assert (manifest.postprocess.activation, manifest.postprocess.score) == ("none", "patch_max")
    samples = open_dataset(parts).test
    with edge_ad.open(tmp_path / "b.edgead", engine_cache=engine_cache) as detector:
        scores = [detector.judge(np.asarray(Image.open(sample.image).convert("RGB"))).score for sample in samples]
    best = read_run(run).best
    assert best is not None
    assert auroc(scores, [sample.anomalous for sample in samples]) == pytest.approx(best.image_auroc, abs=0.02)


def test_a_loss_that_is_no_number(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, whole = iter(range(1000)), trainer_module.step

    def spoilt(*given: Any, **named: Any) -> Any:
        losses = whole(*given, **named)
        return replace(losses, noisy=math.nan) if next(count) == 20 else losses

    monkeypatch.setattr(trainer_module, "step", spoilt)
    with pytest.raises(TrainingError, match=r"epoch 1, step 4.*--learning-rate"):
        train(tmp_path / "run")
    assert read_run(tmp_path / "run").checkpoint == "ckpt_best_0.pth"


def test_nothing_is_said_of_textures_as_of_an_option_that_it_lacks(train: Train, tmp_path: Path) -> None:
    said: list[str] = []
    train(tmp_path / "run", epochs=1, progress=Progress(say=said.append))
    (line,) = (line for line in said if line.startswith("textures"))
    assert line == "textures: none is overlaid"


def test_presets() -> None:
    paper: SimpleNetTrainOptions = SimpleNetTrainOptions.checked({"data": "x", "output": "y"}, "test")
    assert (paper.imgsz, paper.resize, paper.epochs, paper.rounds, paper.noise_std) == ((288, 288), 329, 40, 4, 0.015)
    other = SimpleNetTrainOptions.checked({"data": "x", "output": "y", "imgsz": 64}, "test")
    assert other.preprocess.resize == 64
    with pytest.raises(ConfigError, match="layers: layer1, layer1 names a layer twice"):
        SimpleNetTrainOptions.checked(
            {"data": "x", "output": "y", "backbone": "resnet18", "layers": "layer1,layer1"}, "test"
        )
