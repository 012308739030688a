"""Fitting as a whole: the command, what it leaves, what is refused, and that memory changes nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from command_line import called
from PIL import Image

import edge_ad
from edge_ad.bundle.bundle import Bundle
from edge_ad.calibration.quantize import quantized
from edge_ad.cli.main import main
from edge_ad.cli.train import summary
from edge_ad.errors import ConfigError
from edge_ad.export.options import export_options
from edge_ad.export.to_bundle import export_bundle
from edge_ad.models.patchcore import bank as bank_module
from edge_ad.models.patchcore.training import fit as fit_module
from edge_ad.models.patchcore.training.options import PatchCoreTrainOptions
from edge_ad.training_run import read_run

Train = Callable[..., Any]
PATCHES = 8 * 16 * 16


def bank_of(folder: Path) -> torch.Tensor:
    data = torch.load(folder / "ckpt_best_0.pth", weights_only=True)
    bank: torch.Tensor = data["memory_bank"]
    return bank


def test_all_the_way(
    run: Path,
    parts: Path,
    tmp_path: Path,
    engine_cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantized, "_speed_up", lambda *_: 2.0)  # small models on busy machines vary
    bundle, cache = tmp_path / "waves.edgead", ("--engine-cache", engine_cache)
    called(capsys, "export", run, "-o", bundle, "--score", "reweighted")
    manifest = Bundle.read(bundle).manifest
    assert manifest.model.family == "patchcore" and manifest.postprocess.score_range == (0.0, None)
    assert manifest.model.config["distance"] == "root" and manifest.model.config["entries"] == int(0.05 * PATCHES)
    called(capsys, "threshold", bundle, parts, "--rule", "best-f1", "--in-place", *cache)
    data = ("--data", parts / "train" / "good", "--val", parts)
    own = ("--calibration-cache", tmp_path / "calibrations")
    said = called(capsys, "calibrate", bundle, *data, "--in-place", *own, *cache)
    assert "gate passed" in said
    graph = onnx.load(bundle / "model.int8.onnx").graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    searches = [node for node in graph.node if "search/blocks" in node.name and node.op_type == "Conv"]
    read = [made_by.get(name) for search in searches for name in search.input[:2]]
    assert read == ["DequantizeLinear"] * 4, "the bank is in int8 too, a part for each tap"
    called(capsys, "eval", bundle, parts, "-o", tmp_path / "eval", "--precision", "int8", *cache)
    figures = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert figures["image"]["auroc"] == 1.0 and figures["pixel"]["auroc"] > 0.9
    with edge_ad.open(bundle, engine_cache=engine_cache) as detector:
        good, bad = (
            detector.judge(np.asarray(Image.open(parts / "test" / kind / "00.png"))) for kind in ("good", "checks")
        )
    assert (bad.verdict, good.verdict) == ("anomalous", "normal")


def test_what_a_run_holds(run: Path) -> None:
    record = read_run(run)
    assert record.status == "finished" and record.best is not None and record.best.loss is None
    assert summary(record.best) == "kept epoch 0 (fitted in one pass, without losses)"
    assert record.facts["patches"] == PATCHES and record.facts["entries"] == int(0.05 * PATCHES)
    (row,) = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    assert "loss" not in row and float(row["entries"]) == int(0.05 * PATCHES) and float(row["radius"]) > 0
    data = torch.load(run / "ckpt_best_0.pth", weights_only=True)
    assert data["memory_bank"].shape == (int(0.05 * PATCHES), 192) and data["config"]["embedding"] == "averaged"
    assert (run / "backbone.pth").is_file()


def test_the_seed_decides(run: Path, train: Train, tmp_path: Path) -> None:
    train(tmp_path / "same")
    train(tmp_path / "other", seed=1)
    assert torch.equal(bank_of(tmp_path / "same"), bank_of(run))
    assert not torch.equal(bank_of(tmp_path / "other"), bank_of(run))


def test_what_memory_does_not_hold_is_computed_again(train: Train, tmp_path: Path) -> None:
    """192 numbers of 2048 patches are 1.6 MB, and 128 projected ones 1.05: with 2 MB, some are kept."""
    for megabytes in (2, 64):
        train(tmp_path / str(megabytes), cache_mb=megabytes)
    few, many = (bank_of(tmp_path / str(megabytes)) for megabytes in (2, 64))
    assert torch.allclose(few, many, atol=1e-5) and few.shape == many.shape
    with pytest.raises(ConfigError, match=r"cache_mb: the patches of 8 pictures take 2 MB .* 1 are allowed"):
        train(tmp_path / "none", cache_mb=1)


def test_all_patches_may_stay(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "all", coreset=1.0)
    assert len(bank_of(tmp_path / "all")) == PATCHES
    assert len(torch.unique(bank_of(tmp_path / "all"), dim=0)) > PATCHES // 2


def test_interrupted_it_begins_anew(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_ad.models.patchcore.training import fit

    with monkeypatch.context() as patch:
        patch.setattr(fit, "k_centre", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run")
    assert read_run(tmp_path / "run").status == "running"
    train(tmp_path / "run", resume=True)
    record = read_run(tmp_path / "run")
    assert record.status == "finished" and len(bank_of(tmp_path / "run")) == int(0.05 * PATCHES)
    train(tmp_path / "run", resume=True)  # there is nothing left to do


def test_labelled_pictures_are_looked_at(train: Train, tmp_path: Path) -> None:
    record = train(tmp_path / "run", eval_every=1, score="reweighted", coreset=60)
    assert record.best.image_auroc == 1.0 and record.best.pixel_auroc > 0.9 and "one pass" in record.best.rule
    assert summary(record.best).endswith(f"image AUROC 1.0000, pixel AUROC {record.best.pixel_auroc:.4f}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"coreset": 0}, "coreset: wanted a share"),
        ({"coreset": "2.0"}, "coreset: wanted a share"),
        ({"coreset": PATCHES + 1}, f"coreset: {PATCHES + 1} entries of {PATCHES} patches; wanted at most {PATCHES}"),
        ({"epochs": 3}, "epochs: a bank is made in one pass"),
        ({"textures": "somewhere"}, "textures: a bank is made in one pass"),
        ({"select": "best", "patience": 2}, "select: a bank is made in one pass.*patience: a bank is made"),
        ({"embed_dim": 64}, "embed_dim: belongs to --embedding pooled"),
        ({"layers": "layer1,layer1"}, "names a layer twice"),
        ({"layers": "layer9"}, "'layer9' is no layer"),
        ({"imgsz": 3}, "imgsz: one patch is all"),
    ],
)
def test_refusals(train: Train, tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        train(tmp_path / "run", **changes)
    assert not (tmp_path / "run" / "run.yaml").exists()


def test_a_bank_that_no_file_holds(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "constant_bytes", lambda backbone: 1000)
    monkeypatch.setattr(bank_module, "MOST_BYTES", 4 * 193 * 50 + 1000)
    with pytest.raises(ConfigError, match="at most 50 entries fit, so give --coreset 50"):
        train(tmp_path / "run")
    train(tmp_path / "run", coreset=50)


def test_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    code = main(["train", "--good", str(tmp_path / "empty"), "--family", "patchcore", "-o", str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert code != 0 and "no " in said and "Traceback" not in said


def test_the_authors_way(train: Train, backbone: Path, tmp_path: Path) -> None:
    """Pooled embeddings, squared distances, the crop; from the run to a bundle without another word."""
    changes = {"embedding": "pooled", "pretrain_embed_dim": 48, "embed_dim": 160, "distance": "squared", "nearest": 2}
    train(tmp_path / "run", **changes, resize_mode="shorter_side_crop", resize=80)
    bundle = export_bundle(export_options({"checkpoint": tmp_path / "run", "output": tmp_path / "b.edgead"}, "test"))
    assert bundle.manifest.preprocess.resize == 80 and bundle.manifest.postprocess.score == "patch_max"
    assert bundle.manifest.model.config["nearest"] == 2 and bundle.manifest.model.config["embed_dim"] == 160


def test_presets() -> None:
    paper = PatchCoreTrainOptions.checked({"data": Path("d"), "output": Path("o")}, "test")
    assert (paper.coreset, paper.imgsz, paper.resize, paper.network.embed_dim) == (0.1, (224, 224), 256, 1024)
    fast = PatchCoreTrainOptions.checked({"data": Path("d"), "output": Path("o"), "preset": "fast"}, "test")
    assert (fast.coreset, fast.imgsz, fast.resize, fast.distance) == (0.01, (256, 256), None, "root")
