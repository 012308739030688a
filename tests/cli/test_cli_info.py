"""`edge-ad info` on a bundle of several precisions: what each is, and whether it is proven."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.manifest import Quantization
from edge_ad.bundle.specs import Thresholds
from edge_ad.cli.main import main
from edge_ad.validation import plain

Capture = pytest.CaptureFixture[str]
PASSED = Quantization("entropy", 320, "a" * 64, 0, 52, ("head.0",), "passed", 61, 1, -0.0002, 0.9991, 3.104)


def info(bundle: Path, capsys: Capture) -> dict[str, Any]:
    """What is said as JSON; the text says the same."""
    assert main(["info", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert main(["info", "--json", str(bundle)]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert yaml.safe_load(text) == facts
    assert list(yaml.safe_load(text)) == list(facts)
    return facts


def quantized(bundle: Path, target: Path, record: Quantization) -> Path:
    changes = {"quantization": {"int8": record}, "precision_thresholds": {"int8": Thresholds(0.125)}}
    return write_changed(Bundle.read(bundle), target, changes).path


def test_each_precision_is_shown(two_precisions: Path, tmp_path: Path, halved_graph: bytes, capsys: Capture) -> None:
    facts = info(quantized(two_precisions, tmp_path / "q.edgead", PASSED), capsys)
    assert facts["default_precision"] == "int8"
    whole_bytes = (two_precisions / "model.onnx").stat().st_size
    assert facts["precisions"] == {
        "fp32": {"file": "model.onnx", "size_bytes": whole_bytes, "threshold": 0.5},
        "int8": {
            "file": "model.int8.onnx",
            "size_bytes": len(halved_graph),
            "threshold": 0.125,
            "gate": "passed, against the float model on 61 images; label flips 1, image AUROC -0.0002,"
            " map correlation 0.99910, 3.10 times as fast",
            "made": "52 layers quantized, ranges by entropy from 320 images; put back into float: head.0",
        },
    }
    assert facts["size_bytes"] == whole_bytes + len(halved_graph)
    assert facts["quantization"] == {"int8": plain(PASSED)}  # in full, for programs
    assert list(facts).index("precisions") < list(facts).index("model")


@pytest.mark.parametrize(
    ("changes", "gate", "made"),
    [
        (
            {"gate": "failed", "auroc_change": None, "speed_up": None, "flips": 0, "float_layers": ()},
            "failed, against the float model on 61 images; label flips 0, map correlation 0.99910",
            "52 layers quantized, ranges by entropy from 320 images; put back into float: none",
        ),
        (
            {"gate": "unproven", "held_out": 0, "ranges": None, "images": 0, "float_layers": ("a", "b")},
            "unproven, never compared with the float model",
            "52 layers cast; put back into float: a, b",
        ),
        (
            {"gate": "unproven", "flips": None, "auroc_change": None, "map_correlation": None, "speed_up": None},
            "unproven, against the float model on 61 images; no figures",
            "52 layers quantized, ranges by entropy from 320 images; put back into float: head.0",
        ),
    ],
    ids=["failed", "never compared", "no figures"],
)
def test_what_is_not_proven_says_so_first(
    two_precisions: Path, tmp_path: Path, capsys: Capture, changes: dict[str, Any], gate: str, made: str
) -> None:
    facts = info(quantized(two_precisions, tmp_path / "q.edgead", replace(PASSED, **changes)), capsys)
    assert facts["default_precision"] == "fp32"
    assert (facts["precisions"]["int8"]["gate"], facts["precisions"]["int8"]["made"]) == (gate, made)


def test_a_float_bundle_has_nothing_to_prove(tiny_bundle: Path, capsys: Capture) -> None:
    facts = info(tiny_bundle, capsys)
    assert facts["default_precision"] == "fp32"
    assert list(facts["precisions"]) == ["fp32"]
    assert "gate" not in facts["precisions"]["fp32"]
