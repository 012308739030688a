"""A bundle whose scores have no bounds, most of them negative, goes the way of any other."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import called
from PIL import Image

import edge_ad
from edge_ad.bundle.bundle import Bundle
from edge_ad.calibration.quantize import quantized
from edge_ad.cli.main import main

Capture = pytest.CaptureFixture[str]
EXPORT = ["--backbone", "resnet18", "--layers", "layer1,layer2", "--pretrain-embed-dim", "24", "--imgsz", "64"]


@pytest.fixture(scope="module")
def exported(checkpoint: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported by the command, without naming a family. Do not change it."""
    bundle = tmp_path_factory.mktemp("exported") / "waves.edgead"
    weights = ["--backbone-weights", str(backbone), "--resize-mode", "stretch", "-o", str(bundle)]
    assert main(["export", str(checkpoint), *EXPORT, *weights]) == 0
    return bundle


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.rglob("*.jsonl")) for line in path.read_text().splitlines()]


def test_the_family_is_found_and_the_parity_is_relative(
    checkpoint: Path, backbone: Path, tmp_path: Path, capsys: Capture
) -> None:
    arguments = [*EXPORT, "--backbone-weights", backbone, "--resize-mode", "stretch", "--threshold", "-3"]
    said = called(capsys, "export", checkpoint, *arguments, "-o", tmp_path / "b.edgead")
    assert "taken for a checkpoint of simplenet" in said and "gives one verdict to all" not in said
    manifest = Bundle.read(tmp_path / "b.edgead").manifest
    assert manifest.thresholds.image == -3 and manifest.postprocess.scores == (-math.inf, math.inf)
    assert manifest.parity is not None and manifest.parity.patch_map <= 2e-5


def test_all_the_way(
    exported: Path, parts: Path, tmp_path: Path, engine_cache: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized, "_speed_up", lambda *_: 2.0)  # small models on busy machines vary
    bundle, cache = tmp_path / "waves.edgead", ("--engine-cache", engine_cache)
    called(capsys, "threshold", exported, parts, "--rule", "best-f1", "-o", bundle, *cache)
    manifest = Bundle.read(bundle).manifest
    threshold, origin = manifest.thresholds.image, manifest.thresholds.image_origin
    assert threshold is not None and threshold < 0 and origin is not None and origin.f1 == 1.0

    called(capsys, "eval", bundle, parts, "-o", tmp_path / "eval", *cache)
    figures = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert figures["image"]["auroc"] == 1.0

    run = ["run", bundle, "--source", parts / "test" / "checks", "--output", tmp_path / "run", *cache]
    code = main([str(argument) for argument in run])
    told = capsys.readouterr()
    assert code == 0, told.err
    judged = records(tmp_path / "run")
    assert judged and all(record["verdict"] == "anomalous" for record in judged)

    said = called(
        capsys,
        "calibrate",
        bundle,
        "--data",
        parts / "train" / "good",
        "--val",
        parts,
        "--calibration-cache",
        tmp_path / "calibrations",
        "--in-place",
        *cache,
    )
    manifest = Bundle.read(bundle).manifest
    assert "int8" in manifest.models, said
    shifted = manifest.precision_thresholds["int8"].image
    assert shifted is not None and shifted < 0 and abs(shifted - threshold) < 0.2 * abs(threshold)
    for precision in ("fp32", "int8"):
        with edge_ad.open(bundle, precision=precision, engine_cache=engine_cache) as detector:
            good = [detector.judge(np.asarray(Image.open(path))) for path in (parts / "test" / "good").iterdir()]
            bad = [detector.judge(np.asarray(Image.open(path))) for path in (parts / "test" / "checks").iterdir()]
        assert all(verdict.score < 0 and verdict.verdict == "normal" for verdict in good)
        assert all(verdict.verdict == "anomalous" and verdict.regions for verdict in bad)
        assert max(verdict.score for verdict in good) < min(verdict.score for verdict in bad)


@pytest.mark.parametrize("rule", [("--rule", "quantile", "--quantile", 1), ("--rule", "false-alarm", "--rate", 0.2)])
def test_rules_of_good_pictures_alone(
    exported: Path, parts: Path, tmp_path: Path, engine_cache: Path, capsys: Capture, rule: tuple[Any, ...]
) -> None:
    bundle = tmp_path / "b.edgead"
    good = ("--good", parts / "test" / "good")
    called(capsys, "threshold", exported, *good, *rule, "-o", bundle, "--engine-cache", engine_cache)
    threshold = Bundle.read(bundle).manifest.thresholds.image
    assert threshold is not None
    with edge_ad.open(exported, engine_cache=engine_cache) as detector:
        scores = [
            detector.judge(np.asarray(Image.open(path))).score for path in sorted((parts / "test" / "good").iterdir())
        ]
    assert max(scores) < 0, "control: they are what this is about"
    above = sum(score >= threshold for score in scores)
    assert above == (0 if rule[1] == "quantile" else 2)
    assert threshold < max(scores) + (max(scores) - min(scores))


def test_a_value_of_any_size(exported: Path, tmp_path: Path, capsys: Capture) -> None:
    called(capsys, "threshold", exported, "--value", "-17.5", "-o", tmp_path / "b.edgead")
    assert Bundle.read(tmp_path / "b.edgead").manifest.thresholds.image == -17.5
