"""`edge-ad soak` as a user types it."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from edge_ad.bundle.bundle import write_bundle
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, TensorSpec, Thresholds
from edge_ad.cli.main import main
from edge_ad.runtime.instruments.soak.checks import INVARIANTS
from edge_ad.runtime.instruments.soak.options import soak_options
from edge_ad.runtime.instruments.soak.soak import Soak
from edge_ad.runtime.line.scheduling.counters import Counters

Capture = pytest.CaptureFixture[str]
BUNDLE = str(resources.files("edge_ad.demo") / "disc.edgead")
SHORT = ["soak", "--seconds", "0.5", "--cameras", "2", "--fps", "40", "--budget-ms", "2000"]


def test_counters_and_promises(capsys: Capture) -> None:
    assert main([*SHORT, "--report-every", "0.2", "--faults", "repeat,engine-error", "--fault-rate", "0.3"]) == 0
    captured = capsys.readouterr()
    assert "all cameras: captured " in captured.out
    assert "camera 1: captured " in captured.out
    assert captured.out.count("\nholds ") == len(INVARIANTS)
    assert "BROKEN" not in captured.out
    assert "Traceback" not in captured.err


def test_a_broken_promise_has_a_code(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Counters.captured

    def twice(self: Counters, lane: int) -> None:
        original(self, lane)
        original(self, lane)

    monkeypatch.setattr(Counters, "captured", twice)
    assert main([*SHORT, "--faults", "none"]) == 15
    captured = capsys.readouterr()
    assert "\nBROKEN account" in captured.out
    (error,) = [line for line in captured.err.splitlines() if line.startswith("edge-ad: error: ")]
    assert "promises were broken: " in error


def test_it_ends_when_nobody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: str) -> None:
        raise BrokenPipeError

    options = soak_options({"bundle": BUNDLE, "seconds": 600, "cameras": 1, "every_s": 0.1, "faults": "none"}, "test")
    with pytest.raises(BrokenPipeError):
        Soak(options, gone).run()


def test_in_json_every_line_is_an_object(capsys: Capture) -> None:
    assert main([*SHORT, "--faults", "none", "--report-every", "0.2", "--log-format", "json"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    entries: list[dict[str, Any]] = [json.loads(line) for line in captured.err.splitlines()]
    assert any("captured" in entry["message"] for entry in entries)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--faults", "flood"], "faults: wanted all, none, or some of drop, freeze"),
        (["--cameras", "0"], "cameras"),
        (["--minutes", "soon"], "minutes"),
        (["--fault-rate", "2", "--fps", "0"], "fault_rate"),
        (["--engine", "abacus"], "engine: wanted one of"),
        (["--seconds", "nan"], "seconds"),
    ],
)
def test_options_that_fit_nothing(capsys: Capture, arguments: list[str], words: str) -> None:
    assert main([*SHORT, *arguments]) == 3
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1


def test_a_model_that_sees_too_little(tmp_path: Path, capsys: Capture) -> None:
    fields: dict[str, Any] = {
        "model": {"family": "none", "config": {}},
        "preprocess": PreprocessSpec(16, 16, resize_mode="stretch"),
        "postprocess": PostprocessSpec(),
        "input": TensorSpec("image", (None, 16, 16, 3), "uint8"),
        "outputs": (
            TensorSpec("patch_map", (None, 4, 4), "float32"),
            TensorSpec("anomaly_map", (None, 16, 16), "float32"),
            TensorSpec("pred_score", (None,), "float32"),
        ),
        "opset": 17,
        "models": {"fp32": "model.onnx"},
        "thresholds": Thresholds(0.6),
    }
    bundle = write_bundle(tmp_path / "small.edgead", fields, {"model.onnx": b"never read"})
    assert main(["soak", str(bundle.path)]) == 3
    assert "24 pixels at least" in capsys.readouterr().err
