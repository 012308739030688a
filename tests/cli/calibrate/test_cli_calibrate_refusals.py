"""`edge-ad calibrate` with pictures, options and bundles that it cannot use, each refused in one line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from calibrate_command import fails, refused_at_once
from PIL import Image

from edge_ad.bundle.bundle import Bundle
from edge_ad.cli.main import main

Capture = pytest.CaptureFixture[str]
CONFIG, BUNDLE, SOURCE, MISSING, OUTPUT, GATE, UNAVAILABLE = 3, 5, 7, 10, 11, 13, 18


def test_an_existing_bundle_is_replaced_on_demand_only(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path, capsys: Capture
) -> None:
    wanted = base(micro_bundle, "--data", checked_parts, "-o", "new.edgead", "--gate", "off")
    assert main(wanted) == 0
    assert "--force" in refused_at_once(OUTPUT, [*wanted, "--seed", "1"], capsys)
    assert Bundle.read("new.edgead").manifest.quantization["int8"].seed == 0
    assert main([*wanted, "--seed", "1", "--force"]) == 0
    assert Bundle.read("new.edgead").manifest.quantization["int8"].seed == 1
    Path("mine").mkdir()
    Path("mine", "diary.txt").write_text("x")
    foreign = base(micro_bundle, "--data", checked_parts, "-o", "mine", "--force")
    assert "mine" in refused_at_once(OUTPUT, foreign, capsys)


def test_pictures_that_cannot_be_read_are_counted_and_named(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    data = Path(shutil.copytree(checked_parts, tmp_path / "data"))
    for index in (2, 5):
        picture = data / "train" / "good" / f"{index:02}.png"
        picture.write_bytes(picture.read_bytes()[:400])
    assert main(base(micro_bundle, "--data", data, "--val", data, "-o", "new.edgead", "--gate", "off")) == 0
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "cannot be read" in line)
    assert line.startswith("warning: 2 of 16 images cannot be read and do not calibrate: ")
    assert "02.png" in line and "05.png" in line
    assert Bundle.read("new.edgead").manifest.quantization["int8"].images == 14


def test_black_pictures_are_refused(
    base: Callable[..., list[str]], micro_bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    data = tmp_path / "dark"
    data.mkdir()
    for index in range(3):
        Image.fromarray(np.full((70, 90, 3), index, np.uint8)).save(data / f"{index}.png")
    line = fails(SOURCE, base(micro_bundle, "--data", data, "-o", "new.edgead"), capsys)
    assert "got none that can be used" in line and "the frame is black" in line
    assert list(Path().iterdir()) == []


def test_too_few_pictures(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    data = tmp_path / "one"
    data.mkdir()
    shutil.copy(checked_parts / "train" / "good" / "00.png", data)
    for gate in ("enforce", "off"):
        line = refused_at_once(SOURCE, base(micro_bundle, "--data", data, "-o", "n.edgead", "--gate", gate), capsys)
        assert "at least 2 different good images" in line and "--val" in line
    assert "nowhere" in refused_at_once(SOURCE, base(micro_bundle, "--data", "nowhere", "-o", "n.edgead"), capsys)


def test_every_option_fault_at_once(base: Callable[..., list[str]], here: Path, capsys: Capture) -> None:
    wrong = ["--quantize", "int4", "--ranges", "best", "--images", "0", "--gate", "maybe", "--max-flips", "2"]
    line = refused_at_once(CONFIG, base("b", *wrong, "-o", "new", "--in-place"), capsys)
    for key in ("quantize: ", "ranges: ", "images: ", "gate: ", "max_flips: ", "data: missing", "output: give either"):
        assert key in line
    line = refused_at_once(CONFIG, base("b", "--data", "d", "-o", "n", "--quantize", "fp16", "--ranges", "mse"), capsys)
    assert "ranges: float16 is not calibrated" in line
    assert "bundle: missing" in refused_at_once(CONFIG, base("--data", "d", "-o", "n"), capsys)
    line = refused_at_once(
        CONFIG, base("b", "--data", "d", "-o", "n", "--quantize", "fp16", "--engine", "openvino"), capsys
    )
    assert "onnxruntime" in line


@pytest.mark.parametrize("engine", ["abacus", "fake"])
def test_an_engine_that_proves_nothing_is_refused_in_one_line(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path, here: Path, capsys: Capture, engine: str
) -> None:
    """To the engine that computes brightness, any int8 graph is as good as the float one."""
    line = fails(CONFIG, base(micro_bundle, "--data", checked_parts, "-o", "n.edgead", "--engine", engine), capsys)
    assert f"'{engine}' cannot compute any graph, wanted one of openvino, onnxruntime" in line
    assert list(here.iterdir()) == []


def test_a_file_of_options(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path, capsys: Capture
) -> None:
    values = {
        "bundle": str(micro_bundle),
        "data": str(checked_parts),
        "output": "file.edgead",
        "ranges": "percentile",
        "images": 8,
        "gate": "off",
        "seed": 3,
    }
    Path("options.yaml").write_text(yaml.safe_dump(values))
    assert main(base("-c", "options.yaml", "--images", "4", "-o", "line.edgead")) == 0  # the command line wins
    assert not Path("file.edgead").exists()
    record = Bundle.read("line.edgead").manifest.quantization["int8"]
    assert (record.ranges, record.images, record.seed, record.gate) == ("percentile", 4, 3, "unproven")
    Path("options.yaml").write_text("max-flips: 0.1\nmax_flips: 0.2\ncolour: red\n")
    line = refused_at_once(CONFIG, base("b", "--data", "d", "-o", "n", "-c", "options.yaml"), capsys)
    assert "options.yaml" in line and "max_flips: given twice" in line and "colour: unknown key" in line


def test_a_damaged_bundle(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path, capsys: Capture
) -> None:
    assert "does not exist" in refused_at_once(UNAVAILABLE, base("nowhere", "--data", checked_parts, "-o", "n"), capsys)
    own = Path(shutil.copytree(micro_bundle, "own.edgead"))
    (own / "model.onnx").write_bytes(b"other")
    line = refused_at_once(BUNDLE, base(own, "--data", checked_parts, "-o", "n.edgead"), capsys)
    assert "model.onnx is not what was written" in line


@pytest.mark.parametrize("module", ["onnx", "onnxruntime", "scipy", "matplotlib", "jinja2"])
def test_a_missing_extra_is_said_before_any_work(
    base: Callable[..., list[str]], here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    wanted = base("nowhere", "--data", "nowhere", "-o", "new")
    line = refused_at_once(MISSING, wanted, capsys)
    extra = "quantize" if module.startswith("onnx") else "eval"
    assert f"'{module}', which is not installed: pip install 'edge-ad[{extra}]'" in line
    # Without the gate there is no report to draw.
    refused_at_once(MISSING if extra == "quantize" else UNAVAILABLE, [*wanted, "--gate", "off"], capsys)
