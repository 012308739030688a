"""`edge-ad selftest` on a machine without a GPU: OpenVINO and ONNX Runtime, each the other's reference."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_ad.cli.main import main
from edge_ad.engine import Outputs
from edge_ad.errors import EngineError
from edge_ad.runtime.engines.openvino import OpenVinoEngine
from edge_ad.runtime.instruments.selftest import run

Selftest = Callable[..., tuple[int, str, str]]
CONFIG, BUNDLE, SOURCE, ENGINE, EXTRA, GATE, DEADLINE, UNAVAILABLE = 3, 5, 7, 9, 10, 13, 14, 18
NEEDS_GPU = ["TensorRT engine", "kernel tail", "device preprocessing", "CUDA graph"]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about machines without one, wherever they run."""

    def none() -> tuple[()]:
        raise EngineError("no NVIDIA GPU can be used here: libcuda.so.1: cannot open")

    monkeypatch.setattr(run, "find_gpus", none)


@pytest.fixture
def selftest(tiny_bundle: Path, engine_cache: Path, capsys: pytest.CaptureFixture[str]) -> Selftest:
    def call(*options: str, bundle: Path = tiny_bundle) -> tuple[int, str, str]:
        arguments = ["selftest", str(bundle), "--engine-cache", str(engine_cache), "--frames", "3", *options]
        code = main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        coarse.resize((90, 70 + index), Image.Resampling.NEAREST).save(folder / f"{index}.png")
    return folder


def _wrong(monkeypatch: pytest.MonkeyPatch, change: Callable[[Outputs], Outputs]) -> None:
    """Let OpenVINO compute something else from now on."""
    right = OpenVinoEngine.infer_impl
    monkeypatch.setattr(OpenVinoEngine, "infer_impl", lambda engine, batch: change(right(engine, batch)))


def test_without_a_gpu_openvino_is_tested_and_what_was_not_is_listed(selftest: Selftest) -> None:
    code, page, said = selftest()
    assert (code, said) == (0, "")
    lines = page.splitlines()
    assert lines[0] == "edge-ad selftest of engine openvino"
    assert lines[-1] == f"PASSED; not checked: {', '.join(NEEDS_GPU)}"
    assert f"  {', '.join(NEEDS_GPU)}: no NVIDIA GPU can be used here: libcuda.so.1: cannot open" in lines
    assert "Engine against onnxruntime on the CPU (fp32 model), 12 made-up pictures, seed 0;" in lines
    assert "  nothing is recorded: there is nothing to choose on this engine" in lines
    rows = [line.split() for line in lines if line.startswith("  openvino ")]
    assert [row[1] for row in rows[:2]] == ["1", "4"]
    for row in rows[:2]:
        assert all(float(value) <= 2e-5 for value in row[2:5])
        assert row[-1] == "ok"


def test_onnxruntime_against_openvino_in_json(selftest: Selftest) -> None:
    code, text, said = selftest("--engine", "onnxruntime", "--json", "--seed", "3")
    assert (code, said) == (0, "")
    report = json.loads(text)
    assert report["verdict"].startswith("PASSED; not checked: ")
    assert report["engine"] == "onnxruntime"
    assert report["reference"] == "openvino on the CPU (fp32 model)"
    assert report["images"] == "12 made-up pictures, seed 3"
    assert report["failures"] == []
    assert report["threshold"] == 0.5
    for row in report["engines"]:
        assert 0 < row["difference"]["patch_map"] < 2e-5  # they are two engines, and agree
        assert row["difference"]["correlation"] > 0.999999
    (row,) = report["latency"]
    assert 0 < row["total"]["p50"] <= row["total"]["p95"] <= row["total"]["p99"] <= row["total"]["max"]
    assert report["fastest"] is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda outputs: Outputs(outputs.patch_map, outputs.anomaly_map, outputs.pred_score + 0.1),
            "engine 'openvino' returned the score",
        ),
        (
            lambda outputs: Outputs(outputs.patch_map, np.roll(outputs.anomaly_map, 1, axis=2), outputs.pred_score),
            "anomaly map off by",
        ),
        (lambda outputs: Outputs(outputs.patch_map / 2, outputs.anomaly_map, outputs.pred_score), "patch map off by"),
    ],
)
def test_an_engine_that_is_wrong_fails(
    selftest: Selftest, monkeypatch: pytest.MonkeyPatch, change: Any, fault: str
) -> None:
    _wrong(monkeypatch, change)
    code, page, said = selftest()
    assert code == GATE
    assert page.splitlines()[-1].startswith(f"FAILED: openvino: batch 1: {fault}")
    assert "Wrong" in page.splitlines()
    (line,) = said.splitlines()
    assert line.startswith(f"edge-ad: error: selftest: FAILED: openvino: batch 1: {fault}")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precisions_against_the_same_graph_and_against_fp32(
    selftest: Selftest, three_precisions: Path, pictures: Path, precision: str
) -> None:
    options = ("--precision", precision, "--images", str(pictures), "--json")
    code, text, _ = selftest(*options, bundle=three_precisions)
    report = json.loads(text)
    assert (code, report["failures"]) == (0, [])
    assert report["reference"] == f"onnxruntime on the CPU ({precision} model)"
    assert report["against_fp32"]["correlation"] > 0.95
    assert report["against_fp32"]["anomaly_map"] > 0  # control: it is another model
    assert report["notes"] == []


def test_pictures_that_can_prove_little_are_said(selftest: Selftest, tmp_path: Path, three_precisions: Path) -> None:
    folder = tmp_path / "grey"
    folder.mkdir()
    for index in range(2):
        Image.new("RGB", (64, 64), (120, 120, 120)).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    code, page, _ = selftest("--images", str(folder))
    assert code == 0
    assert any("broken.png" in line for line in page.splitlines() if line.startswith("Note: not read: "))
    code, page, _ = selftest("--precision", "int8", bundle=three_precisions)
    assert "Note: against fp32 is for information; on pictures of your own" in page


def test_a_quantized_model_far_from_fp32_fails_on_pictures_of_the_user(
    selftest: Selftest, three_precisions: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_ad.calibration.agreement.tolerances import Tolerances

    monkeypatch.setattr(Tolerances.__init__, "__defaults__", (0.002, 0.002, 0.005, 1.0))
    options = ("--precision", "int8", "--images", str(pictures))
    code, page, _ = selftest(*options, bundle=three_precisions)
    assert code == GATE
    assert "FAILED: against the fp32 model: correlation of the maps" in page.splitlines()[-1]
    code, _, _ = selftest("--precision", "int8", bundle=three_precisions)
    assert code == 0  # made-up pictures are not what a model was quantized for


def test_a_budget_that_is_missed_has_an_exit_code_of_its_own(selftest: Selftest) -> None:
    code, page, said = selftest("--budget-ms", "0.0001")
    assert code == DEADLINE
    assert page.splitlines()[-1].startswith("FAILED: 1 of 100 frames takes ")
    assert "the budget is 0.0001 ms; take a faster engine" in said
    code, page, _ = selftest("--budget-ms", "100000")
    assert code == 0
    assert "  budget 100000 ms: kept by 99 of 100 frames" in page.splitlines()


def test_the_name_of_the_user_is_on_no_page(
    tiny_bundle: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = pictures.parent
    monkeypatch.setenv("HOME", str(home))
    (pictures / "broken.png").write_bytes(b"no picture")
    cache = home / "cache"
    for options in ([], ["--json"]):
        arguments = ["selftest", str(tiny_bundle), "--images", str(pictures), "--frames", "1"]
        assert main([*arguments, "--engine-cache", str(cache), *options]) == 0
        page = capsys.readouterr().out
        assert str(home) not in page
        assert "~/pictures/broken.png" in page


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--engine", "cuda"], CONFIG, "engine: "),
        (["--frames", "0", "--precision", "fp64"], CONFIG, "precision: "),
        (["--engine", "openvino", "--dla", "0"], CONFIG, "dla: is for --engine tensorrt"),
        (["--images", "nowhere"], SOURCE, "images nowhere: does not exist"),
        (["--precision", "int8"], BUNDLE, "holds no int8 model, only fp32"),
        (["--engine", "tensorrt"], ENGINE, "no NVIDIA GPU can be used here"),
    ],
)
def test_what_cannot_be_tested_is_one_line(
    selftest: Selftest, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, words: str
) -> None:
    if "tensorrt" in options:
        from edge_ad.runtime.engines.tensorrt import gpu

        monkeypatch.setattr(gpu, "LIBRARY", "libcuda_of_nobody.so.1")
    got, page, said = selftest(*options)
    assert (got, page) == (code, "")
    (line,) = said.splitlines()
    assert words in line


def test_a_bundle_that_is_none(selftest: Selftest, tmp_path: Path) -> None:
    code, _, said = selftest(bundle=tmp_path / "nowhere")
    assert code == UNAVAILABLE and "does not exist" in said


def test_without_a_second_engine_there_is_nothing_to_compare_with(
    selftest: Selftest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, said = selftest()
    assert code == EXTRA
    assert "pip install 'edge-ad[onnxruntime]'" in said
