"""EfficientAD by the command line: exported without a word about its family, made int8, evaluated, run on pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from command_line import called
from PIL import Image

from edge_ad.bundle.bundle import Bundle
from edge_ad.calibration.quantize import quantized
from edge_ad.models.efficientad.network import EfficientAd
from edge_ad.models.efficientad.specs import INPUT
from edge_ad.models.efficientad.statistics import measure_quantiles, measure_teacher
from edge_ad.models.references import References

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """MVTec layout; defects are half of the picture, so that drawn weights see them."""
    rng, root = np.random.default_rng(3), tmp_path / "disc"
    for folder, count in (("train/good", 4), ("test/good", 3), ("test/half", 3)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            picture = rng.integers(100, 140, (64, 64, 3), dtype=np.uint8)
            if folder == "test/half":
                picture[:, :32] = rng.integers(0, 256, (64, 32, 3))
            Image.fromarray(picture).save(root / folder / f"{index}.png")
    return root


def test_all_the_way(
    make: Any, parts: Path, tmp_path: Path, engine_cache: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized, "_speed_up", lambda *_: 2.0)  # small models on busy machines vary
    network: EfficientAd = make()
    pictures = References(parts / "train" / "good", INPUT)
    measure_teacher(network, pictures)
    measure_quantiles(network, pictures)
    measured = {name: getattr(network, name) for name in ("mean", "std", "quantiles")}
    states = {name: network.get_submodule(name).state_dict() for name in ("teacher", "student", "autoencoder")}
    torch.save({**states, **measured}, tmp_path / "checkpoint.pth")
    bundle, cache = tmp_path / "disc.edgead", ("--engine-cache", engine_cache)

    said = called(capsys, "export", tmp_path / "checkpoint.pth", "-o", bundle)
    assert "with 'autoencoder.38.weight' in it taken for a checkpoint of efficientad" in said
    data = ("--data", parts / "train" / "good", "--val", parts / "test")
    called(capsys, "calibrate", bundle, *data, "--gate", "report", "--in-place", *cache)
    called(capsys, "threshold", bundle, parts, "--rule", "best-f1", "--in-place", *cache)
    read = Bundle.read(bundle)
    nodes = onnx.load_model_from_string(read.read_file(read.model_file("int8"))).graph.node
    pairs = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    layers = [node for node in nodes if node.op_type == "Conv"]
    assert len(layers) == 25 and sum(node.input[0] in pairs for node in layers) == 23, "all but the two means"
    assert not any(name in pairs for node in nodes if node.op_type in ("Mul", "Sub") for name in node.input)

    called(capsys, "eval", bundle, parts, "-o", tmp_path / "eval", *cache)
    figures = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert figures["image"]["auroc"] == 1.0
    called(capsys, "run", bundle, "--source", parts / "test" / "half", "--output", tmp_path / "run", *cache)
    lines = [line for path in (tmp_path / "run").rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert [json.loads(line)["verdict"] for line in lines] == ["anomalous"] * 3
