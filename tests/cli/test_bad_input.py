"""Whatever a user gets wrong: one line on stderr, the exit code of its kind, nothing half written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from edge_ad.bundle.bundle import CHECKSUM, MANIFEST, SCHEMA_VERSION
from edge_ad.cli.main import main

USAGE, CONFIG, CHECKPOINT, BUNDLE, SOURCE, IMAGE, ENGINE, OUTPUT, UNAVAILABLE, INTERNAL = (
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    11,
    18,
    70,
)
Fails = Callable[..., str]


@pytest.fixture
def fails(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fails:
    """Run the command line in an empty folder; check code, form and absence of debris; return the line.

    `notes` is how many lines of plain information may stand before the error.
    """
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(code: int, *arguments: object, notes: int = 0) -> str:
        capfd.readouterr()
        before = sorted(here.rglob("*"))
        assert main([str(argument) for argument in arguments]) == code
        captured = capfd.readouterr()
        lines = captured.err.splitlines()
        assert lines[-1].startswith("edge-ad: error: ")
        assert len(lines) <= 1 + notes, captured.err
        assert not any(line.startswith("edge-ad: error") for line in lines[:-1])
        assert "Traceback" not in captured.err
        assert captured.out == ""
        assert sorted(here.rglob("*")) == before, "something was left behind"
        return lines[-1]

    return run


@pytest.fixture
def export(tiny_checkpoint: tuple[Path, Path]) -> list[str]:
    """A good export but for what a test adds: the last of two equal options counts."""
    checkpoint, weights = tiny_checkpoint
    options = ["--backbone", "resnet18", "--backbone-weights", str(weights), "--layers", "layer1,layer2"]
    return ["export", str(checkpoint), *options, "--imgsz", "64", "--pretrain-embed-dim", "48", "-o", "b.edgead"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def damaged(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A copy of the bundle, to be damaged."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy.edgead"))


# Checkpoints


def test_missing_checkpoint(fails: Fails, export: list[str]) -> None:
    export[1] = "nowhere.pth"
    assert "checkpoint nowhere.pth: no such file" in fails(CHECKPOINT, *export)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_checkpoint(fails: Fails, export: list[str], tmp_path: Path, share: float) -> None:
    whole = Path(export[1]).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: int(share * len(whole))])
    export[1] = str(tmp_path / "cut.pth")
    assert "truncated" in fails(CHECKPOINT, *export)


def test_checkpoint_of_another_architecture(fails: Fails, export: list[str]) -> None:
    assert "no GLASS checkpoint" in fails(CHECKPOINT, *[export[0], export[4 + 1], *export[2:]])


def test_a_pickle_that_torch_warns_about(fails: Fails, export: list[str], tmp_path: Path) -> None:
    import pickle

    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"x": Path("y")}, protocol=4))
    export[1] = str(tmp_path / "a.pkl")
    assert "not opened" in fails(CHECKPOINT, *export)


def test_sizes_that_do_not_fit_the_checkpoint(fails: Fails, export: list[str]) -> None:
    line = fails(CHECKPOINT, *export, "--embed-dim", "64")
    assert "body.block1.0.weight" in line
    assert "(32, 48)" in line
    assert "(32, 64)" in line


def test_weights_that_are_no_numbers(fails: Fails, export: list[str], tmp_path: Path) -> None:
    data: dict[str, Any] = torch.load(export[1], weights_only=True)
    data["discriminator"]["tail.0.weight"][0, 0] = float("nan")
    torch.save(data, tmp_path / "nan.pth")
    export[1] = str(tmp_path / "nan.pth")
    assert "NaN" in fails(CHECKPOINT, *export)


# Options and configuration files


@pytest.mark.parametrize("size", ["0", "-5", "abc", "12.5", "0x10", "256x", "288x0", ""])
def test_image_sizes(fails: Fails, export: list[str], size: str) -> None:
    assert "imgsz: wanted" in fails(CONFIG, *export, "--imgsz", size)


def test_a_configuration_file_with_three_faults(fails: Fails, export: list[str], tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump({"imgsz": "huge", "opset": 99, "bachbone": "resnet18"}))
    line = fails(CONFIG, "export", export[1], "-o", "b.edgead", "-c", file)
    for words in (str(file), "imgsz: wanted", "opset: ", "bachbone: unknown key"):
        assert words in line


@pytest.mark.parametrize(
    "text",
    ["[1, 2]", "just words", "a: [", "imgsz: 64\nimgsz: 65", "\x00", "1: 2", "!!python/object/apply:os.abort []"],
)
def test_a_file_that_is_no_configuration(fails: Fails, export: list[str], tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    assert "bad.yaml" in fails(CONFIG, *export, "-c", tmp_path / "bad.yaml")


def test_missing_configuration_file(fails: Fails, export: list[str]) -> None:
    assert "nowhere.yaml: cannot be read" in fails(CONFIG, *export, "-c", "nowhere.yaml")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--backbone", "resnet81"], "did you mean resnet18"),
        (["--layers", "layer1,layer9"], "'layer9' is no layer of 'resnet18'"),
        (["--layers", "fc"], ""),
        (["--family", "glas"], "'glas' is unknown"),
        (["--resize-mode", "stretch", "--resize", "300"], "resize: belongs to"),
    ],
)
def test_options_that_fit_nothing(fails: Fails, export: list[str], options: list[str], words: str) -> None:
    weights_do_not_fit = options == ["--layers", "fc"]
    line = fails(CHECKPOINT if weights_do_not_fit else CONFIG, *export, *options)
    assert words in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--flavour", "rtx"], "flavour: belongs to --format engine, which is not given"),
        (["--format", "onnx", "--sm", "86"], "sm: belongs to --format engine"),
        (["--format", "engine", "--sm", "86"], "sm: TensorRT builds for the GPU that it runs on"),
        (["--format", "engine", "--flavour", "rtx", "--sm", "87"], "does not build for 87, wanted 75"),
        (["--format", "onnx", "--engine-cache", "engines"], "engine_cache: belongs to --quantize"),
    ],
)
def test_engine_options(fails: Fails, export: list[str], options: list[str], words: str) -> None:
    assert words in fails(CONFIG, *export, *options)


def test_an_engine_without_tensorrt(fails: Fails, export: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    line = fails(ENGINE, *export, "--format", "engine")
    assert "TensorRT is not installed" in line and "JetPack" in line


def test_an_output_that_is_no_bundle(fails: Fails, export: list[str], pictures: Path) -> None:
    assert "is no bundle" in fails(OUTPUT, *export, "-o", pictures, "--force")
    assert len(list(pictures.iterdir())) == 3


def test_an_output_that_cannot_be_written(fails: Fails, export: list[str], pictures: Path) -> None:
    fails(OUTPUT, *export, "-o", pictures / "0.png" / "b.edgead", notes=4)


# Bundles


@pytest.mark.parametrize("command", ["info", "run"])
@pytest.mark.parametrize("name", ["model.onnx", MANIFEST, CHECKSUM])
def test_one_byte_changed(fails: Fails, damaged: Path, pictures: Path, command: str, name: str) -> None:
    data = bytearray((damaged / name).read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / name).write_bytes(data)
    line = fails(BUNDLE, command, damaged, *(["--source", pictures] if command == "run" else []))
    assert "is not what was written" in line


def test_newer_schema(fails: Fails, damaged: Path, pictures: Path) -> None:
    text = (damaged / MANIFEST).read_text()
    own = f"schema_version: {SCHEMA_VERSION}\n"
    assert own in text
    (damaged / MANIFEST).write_text(text.replace(own, "schema_version: 99\nnews: 1\n"))
    for arguments in (["info", damaged], ["run", damaged, "--source", pictures]):
        assert f"schema version 99, this edge-ad reads {SCHEMA_VERSION}; update edge-ad" in fails(BUNDLE, *arguments)


@pytest.mark.parametrize("name", ["model.onnx", MANIFEST, CHECKSUM])
def test_a_file_of_the_bundle_is_missing(fails: Fails, damaged: Path, name: str) -> None:
    (damaged / name).unlink()
    fails(BUNDLE, "info", damaged)


def test_missing_bundle(fails: Fails, pictures: Path) -> None:
    assert "does not exist" in fails(UNAVAILABLE, "run", "nowhere.edgead", "--source", pictures)
    assert "does not exist" in fails(UNAVAILABLE, "info", "nowhere.edgead")
    assert "no manifest.yaml" in fails(BUNDLE, "run", pictures, "--source", pictures)


def test_precision_that_the_bundle_lacks(fails: Fails, tiny_bundle: Path, pictures: Path) -> None:
    assert "holds no int8 model" in fails(BUNDLE, "run", tiny_bundle, "--source", pictures, "--precision", "int8")


# Sources


def test_empty_folder(fails: Fails, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    line = fails(SOURCE, "run", tiny_bundle, "--source", tmp_path / "empty", "--output", "out")
    assert "holds no picture" in line


@pytest.mark.parametrize(
    "source", ["nowhere/*.png", "nowhere.mp4", "ftp://host/x", "camera:x", "camera:100", "sim:?fps=x"]
)
def test_a_source_that_is_none(fails: Fails, tiny_bundle: Path, source: str) -> None:
    fails(SOURCE, "run", tiny_bundle, "--source", source, "--output", "out")


def test_only_corrupt_pictures(
    tiny_bundle: Path, tmp_path: Path, engine_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    arguments = ["run", str(tiny_bundle), "--source", str(tmp_path), "--engine", "fake"]
    assert main([*arguments, "--engine-cache", str(engine_cache), "--output", str(tmp_path / "out")]) == IMAGE
    assert "none of 1 frames could be judged" in capfd.readouterr().err.splitlines()[-1]


def test_a_camera_that_does_not_open(tiny_bundle: Path, tmp_path: Path) -> None:
    """In a process of its own: OpenCV writes past Python, and only once it is loaded for the first time."""
    command = [sys.executable, "-m", "edge_ad", "run", str(tiny_bundle), "--camera", "97"]
    command += ["--engine", "fake", "--output", str(tmp_path / "out")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENCV")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == SOURCE
    (error,) = done.stderr.splitlines()
    assert error.startswith("edge-ad: error: ")
    assert "camera 97 does not open" in error
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


# Options of a run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "wanted either --source or --camera"),
        (["--source", "x", "--camera", "0"], "wanted either --source or --camera"),
        (["--source", "sim:", "--save", "masks"], "save: wanted an --output folder"),
        (["--source", "sim:", "--save", "pictures", "--output", "out"], "save: wanted a list of masks, overlays"),
        (["--source", "sim:", "--engine", "tensorflow"], "engine: wanted one of"),
        (["--source", "sim:", "--max-frames", "0"], "max_frames: "),
        (["--source", "sim:", "--budget-ms", "-1"], "budget_ms: "),
        (["--source", "sim:", "--budget-ms", "nan"], "budget_ms: "),
        (["--source", "sim:", "--threshold", "high"], "threshold: "),
        (["--source", "sim:", "--precision", "fp8"], "precision: "),
    ],
)
def test_options_of_a_run(fails: Fails, tiny_bundle: Path, options: list[str], words: str) -> None:
    assert words in fails(CONFIG, "run", tiny_bundle, *options)


def test_all_faults_of_a_run_at_once(fails: Fails, tiny_bundle: Path) -> None:
    line = fails(CONFIG, "run", tiny_bundle, "--max-frames", "x", "--threshold", "y", "--save", "masks")
    assert all(words in line for words in ("--source or --camera", "max_frames", "threshold"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["fly"],
        ["--colour"],
        ["run", "b", "--colour"],
        ["info", "a", "b"],
        ["info", "a", "--families"],
        ["run", "b", "--source"],
    ],
)
def test_a_command_line_that_cannot_be_parsed(fails: Fails, arguments: list[str]) -> None:
    assert "--help" in fails(USAGE, *arguments)


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == USAGE
    captured = capsys.readouterr()
    assert "Usage: edge-ad" in captured.out
    assert captured.err == ""


# Defects of edge-ad itself


def test_an_unexpected_exception(fails: Fails, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.delenv("EDGE_AD_TRACEBACK", raising=False)
    monkeypatch.setattr("edge_ad.bundle.bundle.Bundle.read", defect)
    line = fails(INTERNAL, "info", tiny_bundle)
    assert "a defect in edge-ad: ZeroDivisionError: first line second line; EDGE_AD_TRACEBACK=1 shows where" in line
    monkeypatch.setenv("EDGE_AD_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["info", str(tiny_bundle)])
