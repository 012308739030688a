"""`edge-ad export` and `edge-ad info` as a user types them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from edge_ad.bundle.bundle import Bundle
from edge_ad.cli.main import main

Capture = pytest.CaptureFixture[str]
CONFIG = {"backbone": "resnet18", "layers": ["layer1", "layer2"], "imgsz": 64, "pretrain-embed-dim": 48}


@pytest.fixture
def config(tmp_path: Path, tiny_checkpoint: tuple[Path, Path]) -> Path:
    """A complete configuration file, written with the long names of the options."""
    file = tmp_path / "export.yaml"
    values = CONFIG | {
        "checkpoint": str(tiny_checkpoint[0]),
        "backbone-weights": str(tiny_checkpoint[1]),
        "output": str(tmp_path / "from-file.edgead"),
        "score": "patch_max",
        "threshold": 0.25,
    }
    file.write_text(yaml.safe_dump(values))
    return file


def test_the_command_line_writes_a_bundle(tmp_path: Path, tiny_checkpoint: tuple[Path, Path], capsys: Capture) -> None:
    checkpoint, weights = tiny_checkpoint
    output = tmp_path / "deep" / "b.edgead"
    arguments = ["export", str(checkpoint), "--backbone", "resnet18", "--backbone-weights", str(weights)]
    arguments += ["--layers", "layer1,layer2", "--imgsz", "64x80", "--resize", "70", "--embed-dim", "48"]
    arguments += ["--pretrain-embed-dim", "48", "--hidden-dim", "32", "--score", "patch_max", "--threshold", "0.5"]
    assert main([*arguments, "--batch", "2", "--opset", "13", "-o", str(output)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{output}\n"
    assert "largest difference from the published network" in captured.err
    manifest = Bundle.read(output).manifest
    assert manifest.preprocess.size_hw == (64, 80)
    assert (manifest.preprocess.resize, manifest.preprocess.resize_mode) == (70, "shorter_side_crop")
    assert (manifest.postprocess.score, manifest.thresholds.image) == ("patch_max", 0.5)
    assert (manifest.opset, manifest.input.shape) == (13, (2, 64, 80, 3))
    assert manifest.parity is not None


def test_the_file_gives_every_option_and_the_command_line_wins(tmp_path: Path, config: Path, capsys: Capture) -> None:
    output = tmp_path / "from-line.edgead"
    assert main(["export", "-c", str(config), "--threshold", "0.75", "-o", str(output)]) == 0
    manifest = Bundle.read(output).manifest
    assert not (tmp_path / "from-file.edgead").exists()
    assert (manifest.postprocess.score, manifest.thresholds.image) == ("patch_max", 0.75)
    assert manifest.model.config["layers"] == ["layer1", "layer2"]
    # The same again: refused, then replaced on request.
    again = ["export", "-c", str(config), "-o", str(output)]
    capsys.readouterr()
    assert main(again) == 11
    assert "--force" in capsys.readouterr().err
    assert Bundle.read(output).manifest.thresholds.image == 0.75
    assert main([*again, "--force"]) == 0
    assert Bundle.read(output).manifest.thresholds.image == 0.25


def test_null_in_the_file_means_not_given(config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text().replace("threshold: 0.25", "threshold: null").replace("imgsz: 64", "imgsz:"))
    assert main(["export", "-c", str(config), "--imgsz", "64"]) == 0
    assert Bundle.read(tmp_path / "from-file.edgead").manifest.thresholds.image is None


def test_two_spellings_in_the_file(config: Path, capsys: Capture) -> None:
    with config.open("a") as file:
        file.write("pretrain_embed_dim: 40\n")
    assert main(["export", "-c", str(config), "--pretrain-embed-dim", "48", "--opset", "99"]) == 3
    line = capsys.readouterr().err
    assert "pretrain_embed_dim: given twice, as pretrain-embed-dim and pretrain_embed_dim" in line
    assert "opset: wanted" in line


def test_missing_files_beside_other_faults(config: Path, capsys: Capture) -> None:
    files = ["nowhere.pth", "--backbone-weights", "nowhere.bin"]
    assert main(["export", *files, "-c", str(config), "--layers", "layer1,layer9", "--opset", "x"]) == 3
    line = capsys.readouterr().err
    for words in (
        "checkpoint: nowhere.pth: no such file",
        "backbone_weights: nowhere.bin: no such file",
        "layers: 'layer9' is no layer",
        "opset: wanted a whole number, got 'x'",
    ):
        assert words in line
    # Nothing else is wrong: the error of files, naming both.
    assert main(["export", *files, "-c", str(config)]) == 4
    line = capsys.readouterr().err
    assert "checkpoint nowhere.pth: no such file; backbone weights nowhere.bin: no such file" in line


@pytest.fixture
def quantizing(config: Path, checked_parts: Path, tmp_path: Path) -> Path:
    """The configuration file with the options of a quantization, on ONNX Runtime, whose calibration is kept."""
    values = {
        "quantize": "int8",
        "data": str(checked_parts),
        "engine": "onnxruntime",
        "images": 8,
        "calibration-cache": str(tmp_path / "calibrations"),
        "engine_cache": str(tmp_path / "engines"),
    }
    with config.open("a") as file:
        file.write(yaml.safe_dump(values))
    return config


def test_export_and_quantize_in_one_command(quantizing: Path, tmp_path: Path, capsys: Capture) -> None:
    """Proven; then not, for which the float model alone stays at its place; then without being asked for."""
    output = tmp_path / "from-file.edgead"
    assert main(["export", "-c", str(quantizing)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{output}\n"
    assert "gate passed: every check holds on 4 images" in captured.err
    both = Bundle.read(output).manifest
    record = both.quantization["int8"]
    assert (list(both.models), record.gate, record.images) == (["fp32", "int8"], "passed", 8)
    assert both.thresholds.image == 0.25
    assert both.parity is not None

    again = ["export", "-c", str(quantizing), "--force"]
    assert main([*again, "--min-map-correlation", "1"]) == 13
    captured = capsys.readouterr()
    page = tmp_path / "from-file.rejected.html"
    assert captured.out == ""
    assert captured.err.splitlines()[-1].endswith(f"see {page}; {output} holds the float model alone")
    assert "calibration from the cache" in captured.err
    assert "<b>failed</b>" in page.read_text("utf-8")
    left = Bundle.read(output).manifest
    assert (list(left.models), left.quantization) == (["fp32"], {})
    assert left.files == {"model.onnx": both.files["model.onnx"]}

    assert main([*again, "--gate", "off", "--data", str(tmp_path / "nowhere")]) == 7
    assert list(Bundle.read(output).manifest.models) == ["fp32"]


def test_faults_of_export_and_quantization_come_together(quantizing: Path, tmp_path: Path, capsys: Capture) -> None:
    wrong = ["--opset", "99", "--images", "0", "--max-flips", "7", "--gate", "maybe", "--layers", "layer9"]
    assert main(["export", "-c", str(quantizing), *wrong]) == 3
    line = capsys.readouterr().err
    for fault in ("opset: wanted", "images: wanted", "max_flips: wanted", "gate: wanted", "'layer9' is no layer"):
        assert fault in line
    assert line.count("\n") == 1
    assert not (tmp_path / "from-file.edgead").exists()


def test_options_of_the_quantization_need_one(config: Path, quantizing: Path, tmp_path: Path, capsys: Capture) -> None:
    quantizing.write_text(quantizing.read_text().replace("quantize: int8\n", ""))
    assert main(["export", "-c", str(quantizing), "--opset", "99"]) == 3
    line = capsys.readouterr().err
    for key in ("data", "engine", "images", "calibration_cache"):
        assert f"{key}: belongs to --quantize int8 or fp16, which is not given" in line
    assert "opset: wanted" in line
    assert not (tmp_path / "from-file.edgead").exists()


def test_data_is_missing_for_a_quantization(config: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["export", "-c", str(config), "--quantize", "fp16", "--ranges", "mse"]) == 3
    line = capsys.readouterr().err
    assert "data: missing" in line and "ranges: float16 is not calibrated" in line
    assert not (tmp_path / "from-file.edgead").exists()


def test_packages_of_the_gate_are_looked_for_before_the_export(
    quantizing: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["export", "-c", str(quantizing)]) == 10
    assert "pip install 'edge-ad[eval]'" in capsys.readouterr().err
    assert not (tmp_path / "from-file.edgead").exists()


def test_info(tiny_bundle: Path, capsys: Capture) -> None:
    assert main(["info", str(tiny_bundle)]) == 0
    facts = yaml.safe_load(capsys.readouterr().out)
    assert main(["info", "--json", str(tiny_bundle)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == facts
    assert captured.err == ""
    bundle = Bundle.read(tiny_bundle)
    assert facts["sha256"] == bundle.sha256
    assert facts["path"] == str(tiny_bundle)
    assert facts["size_bytes"] == sum((tiny_bundle / name).stat().st_size for name in bundle.manifest.files)
    assert facts["thresholds"]["image"] == 0.5
    assert facts["model"]["config"]["backbone"] == "resnet18"


def test_without_torch_the_message_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    for name in [name for name in sys.modules if name.startswith(("edge_ad.export.", "edge_ad.models"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["export", "a.pth", "-o", str(tmp_path / "b")]) == 10
    assert "pip install 'edge-ad[export]'" in capsys.readouterr().err
