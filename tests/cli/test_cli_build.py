"""`edge-ad build` as a user types it, with NVIDIA's builder in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_ad.bundle.bundle import Bundle
from edge_ad.cli.main import main
from edge_ad.errors import EngineError
from edge_ad.runtime.engines.tensorrt.builder.payload import plan_payload

CONFIG, BUNDLE, ENGINE, OUTPUT = 3, 5, 9, 11
SECONDS = 120


def edge_ad(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_ad", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.rung(3)
def test_an_int8_bundle_becomes_an_int8_engine(tensorrt_rtx: None, three_precisions: Path, tmp_path: Path) -> None:
    chosen = ["--flavour", "rtx", "--sm", "86", "--precision", "int8", "--engine-cache", tmp_path]
    done = edge_ad("build", three_precisions, *chosen)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    payload = plan_payload(path.read_bytes())
    assert next(iter(payload)) == "int8" and payload["int8"] > 20 * payload["float"]
    building, wrote = done.stderr.splitlines()
    assert building == "building int8 for SM86, batches of 1"
    assert wrote == f"wrote {path.stat().st_size / 1e6:.1f} MB: int8 0.7 MB, float {payload['float'] / 1e3:.1f} kB"
    bundle = Bundle.read(three_precisions)
    fingerprint = json.loads(path.with_suffix(".json").read_text())["fingerprint"]
    assert fingerprint["onnx_sha256"] == bundle.manifest.files["model.int8.onnx"]
    again = edge_ad("build", three_precisions, *chosen)
    assert again.stdout == done.stdout and again.stderr.startswith("found ")
    path.write_bytes(path.read_bytes()[:-1])
    repaired = edge_ad("build", three_precisions, *chosen)
    assert repaired.stderr.splitlines()[:2] == [f"engine {path} is damaged", building]
    assert edge_ad("build", three_precisions, *chosen).stderr.startswith("found ")


@pytest.mark.rung(3)
def test_a_dry_run_writes_nothing(tensorrt_rtx: None, three_precisions: Path, tmp_path: Path) -> None:
    chosen = ["--flavour", "rtx", "--sm", "86,89", "--precision", "fp16", "--batch", "4", "--optimum", "2"]
    done = edge_ad("build", three_precisions, *chosen, "--workspace", "512", "-o", tmp_path / "a.plan", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0].startswith("TensorRT-RTX 1.") and " reads the fp16 graph: " in lines[0]
    assert lines[1:5] == [
        "image uint8 (any, 64, 64, 3)",
        "patch_map float (any, 16, 16)",
        "anomaly_map float (any, 64, 64)",
        "pred_score float (any)",
    ]
    assert lines[5:] == [
        "precision fp16, the graph's own types",
        "for SM86, SM89",
        "profile of batches of 1 to 4, fastest at 2",
        "workspace 512 MiB",
        f"would be written: {tmp_path / 'a.plan'}",
    ]


@pytest.mark.rung(3)
def test_a_build_that_cannot_be_is_one_line(tensorrt_rtx: None, three_precisions: Path, tmp_path: Path) -> None:
    chosen = ["--flavour", "rtx", "--sm", "75", "--precision", "fp32", "-o", tmp_path / "engines" / "a.plan"]
    done = edge_ad("build", three_precisions, *chosen)
    assert done.returncode == ENGINE
    error = done.stderr.splitlines()[-1]
    assert error.startswith("edge-ad: error: TensorRT-RTX 1.") and "cannot build fp32 for SM75: " in error
    assert list((tmp_path / "engines").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--dla", "0", "--precision", "int8"], CONFIG, "dla: computes in fp16 alone, not int8"),
        (["--dla", "0"], CONFIG, "dla: computes in fp16 alone, and an explicit Q/DQ graph not at all; got fp32"),
        (["--flavour", "rtx", "--sm", "90"], CONFIG, "does not build for 90, wanted 75, 80, 86, 89, 120, 121"),
        (["--sm", "86"], CONFIG, "sm: TensorRT builds for the GPU that it runs on"),
        (["--precision", "int4"], CONFIG, "precision: wanted 'fp32', 'fp16' or 'int8'"),
    ],
)
def test_refusals(
    arguments: list[str], code: int, words: str, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(tiny_bundle), *arguments]) == code
    shown = capsys.readouterr()
    assert words in shown.err and shown.err.count("\n") == 1 and shown.out == ""


def test_a_bundle_without_the_precision(
    tensorrt_rtx: None, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["build", str(tiny_bundle), "--flavour", "rtx", "--sm", "86", "--precision", "int8"]
    assert main(command) == BUNDLE
    assert "holds no int8 model, only fp32" in capsys.readouterr().err


def test_no_gpu_and_no_sm(
    tensorrt_rtx: None, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_ad.runtime.engines.tensorrt import gpu

    monkeypatch.setattr(gpu, "LIBRARY", "libno-such-library.so.1")
    assert main(["build", str(tiny_bundle), "--flavour", "rtx"]) == ENGINE
    assert "name their GPUs, such as --sm 86,89" in capsys.readouterr().err


def test_an_output_that_is_in_the_way(
    tensorrt_rtx: None, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.plan").write_bytes(b"precious")
    command = ["build", str(tiny_bundle), "--flavour", "rtx", "--sm", "86", "-o", str(tmp_path / "a.plan")]
    assert main(command) == OUTPUT
    assert "give --force to replace it" in capsys.readouterr().err
    assert (tmp_path / "a.plan").read_bytes() == b"precious"


@pytest.mark.rung(3)
def test_export_builds_an_engine(tensorrt_rtx: None, tiny_checkpoint: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, weights = tiny_checkpoint
    settings = tmp_path / "export.yaml"
    settings.write_text("format: engine\nflavour: rtx\nsm: '86'\nbackbone: resnet18\nlayers: [layer1, layer2]\n")
    arguments = ["--backbone-weights", weights, "--imgsz", 64, "--pretrain-embed-dim", 48, "--batch", 2]
    places = ["-o", tmp_path / "b.edgead", "--engine-cache", tmp_path / "engines"]
    done = edge_ad("export", checkpoint, "-c", settings, *arguments, *places)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'b.edgead'}\n"
    assert "building fp32 for SM86, batches of 2" in done.stderr
    bundle = Bundle.read(tmp_path / "b.edgead")
    (plan,) = (tmp_path / "engines").glob("*.plan")
    fingerprint = json.loads(plan.with_suffix(".json").read_text())["fingerprint"]
    assert fingerprint["onnx_sha256"] == bundle.manifest.files["model.onnx"]


def test_export_keeps_the_bundle_when_there_is_no_engine(
    tensorrt_rtx: None,
    tiny_checkpoint: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from edge_ad.cli import export

    def refuse(options: object) -> None:
        raise EngineError("the builder is out of memory")

    monkeypatch.setattr(export, "build", refuse)
    checkpoint, weights = map(str, tiny_checkpoint)
    command = ["export", checkpoint, "--backbone", "resnet18", "--backbone-weights", weights, "--imgsz", "64"]
    command += ["--layers", "layer1,layer2", "--pretrain-embed-dim", "48", "-o", str(tmp_path / "b.edgead")]
    assert main([*command, "--format", "engine", "--flavour", "rtx", "--sm", "86"]) == ENGINE
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        error == f"edge-ad: error: the builder is out of memory; {tmp_path / 'b.edgead'} is written, without an engine"
    )
    Bundle.read(tmp_path / "b.edgead")
