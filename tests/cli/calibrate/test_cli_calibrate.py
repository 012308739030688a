"""`edge-ad calibrate` as a user types it, on small generated data: new bundles, the gate, thresholds, the cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calibrate_command import content_of, fails, report_of, with_threshold
from PIL import Image

import edge_ad
from edge_ad.bundle.bundle import Bundle
from edge_ad.calibration.quantize import quantized
from edge_ad.cli.main import main

Capture = pytest.CaptureFixture[str]
CONFIG, BUNDLE, SOURCE, MISSING, OUTPUT, GATE = 3, 5, 7, 10, 11, 13
IMPOSSIBLE = ("--min-map-correlation", "1")
CACHED = "calibration from the cache"


@pytest.mark.parametrize(("ratio", "default"), [(2.0, "int8"), (0.5, "fp32")])
def test_a_new_bundle_with_both_models(
    base: Callable[..., list[str]],
    speed_up: Callable[[float], None],
    micro_bundle: Path,
    checked_parts: Path,
    engine_cache: Path,
    capsys: Capture,
    ratio: float,
    default: str,
) -> None:
    speed_up(ratio)
    assert main(base(micro_bundle, "--data", checked_parts, "--val", checked_parts, "-o", "new.edgead")) == 0
    captured = capsys.readouterr()
    assert captured.out == "new.edgead\n"
    bundle = Bundle.read("new.edgead")
    files = {entry.name for entry in Path("new.edgead").iterdir()}
    assert files == {*content_of(micro_bundle), "model.int8.onnx", "report.html", "report.json"}
    assert bundle.read_file("model.onnx") == (micro_bundle / "model.onnx").read_bytes()
    assert b"<b>passed</b>" in bundle.read_file("report.html")
    record = bundle.manifest.quantization["int8"]
    assert (record.gate, record.speed_up, record.images, record.held_out) == ("passed", ratio, 16, 18)
    # What is said is what the report says.
    for check in report_of(Path("new.edgead"))["statements"]:
        assert f"holds: {check['name']}: {check['figure']}; allowed: {check['allowed']}\n" in captured.err
    assert "80 pairs" in captured.err
    assert "warning: only 16 images calibrate, 300 or more are better" in captured.err
    assert (
        f"gate passed: every check holds on 18 images; {ratio:.2f} times as fast as float on openvino" in captured.err
    )
    # Who opens it gets the quantized model, if it is faster.
    with edge_ad.open("new.edgead", engine_cache=engine_cache) as detector:
        assert detector.provenance.precision == default
    assert main(["run", "new.edgead", "--source", str(checked_parts / "test" / "good"), "--output", "out"]) == 0
    records = [json.loads(line) for line in Path("out", "verdicts.jsonl").read_text().splitlines()]
    assert {record["precision"] for record in records} == {default}
    assert main(["run", "new.edgead", "--source", str(checked_parts / "test" / "good"), "--precision", "fp32"]) == 0
    assert main(["info", "--json", "new.edgead"]) == 0
    assert '"gate": "passed"' in capsys.readouterr().out


def test_int8_or_fp16_in_place_and_both(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path, here: Path, capsys: Capture
) -> None:
    own = Path(shutil.copytree(micro_bundle, "own.edgead"))
    before = Bundle.read(own)
    wanted = ["--data", checked_parts, "--engine", "onnxruntime"]
    assert main(base(own, *wanted, "--in-place")) == 0
    int8 = Bundle.read(own)
    assert main(base(own, *wanted, "--in-place", "--quantize", "fp16")) == 0
    both = Bundle.read(own)
    assert list(both.manifest.models) == ["fp32", "int8", "fp16"]
    assert both.manifest.quantization["int8"] == int8.manifest.quantization["int8"]
    assert both.manifest.quantization["fp16"].ranges is None
    for name in ("model.onnx", "model.int8.onnx"):
        assert both.manifest.files[name] == int8.manifest.files[name]
    assert both.manifest.files["model.onnx"] == before.manifest.files["model.onnx"]
    assert [entry.name for entry in here.iterdir()] == ["own.edgead"]
    assert report_of(own)["about"]["candidate"]["precision"] == "fp16"


def test_the_gate_keeps_what_does_not_hold(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path, here: Path, capsys: Capture
) -> None:
    own = Path(shutil.copytree(micro_bundle, "own.edgead"))
    before = content_of(own)
    line = fails(GATE, base(own, "--data", checked_parts, "-o", "deep/new.edgead", *IMPOSSIBLE), capsys)
    assert "int8 does not hold the tolerances, with 2 layers back in float: correlation of the maps: " in line
    page = Path("deep", "new.rejected.html")
    assert line.endswith(f"see {page}")
    assert "<b>failed</b>" in page.read_text("utf-8")
    # In place: the bundle stays, and the page lies beside it.
    assert fails(GATE, base(own, "--data", checked_parts, "--in-place", *IMPOSSIBLE), capsys).endswith(
        "see own.rejected.html"
    )
    assert content_of(own) == before
    left = {path.as_posix() for path in Path().rglob("*") if path.parent != own}
    assert left == {"deep", "deep/new.rejected.html", "own.edgead", "own.rejected.html"}


def test_what_the_gate_says_is_said_where_its_report_cannot_be_written(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path, capsys: Capture
) -> None:
    Path("new.rejected.html").mkdir()
    line = fails(GATE, base(micro_bundle, "--data", checked_parts, "-o", "new.edgead", *IMPOSSIBLE), capsys)
    assert "int8 does not hold the tolerances" in line
    assert "its report new.rejected.html cannot be written: " in line
    assert [entry.name for entry in Path().iterdir()] == ["new.rejected.html"]


def test_a_report_does_not_outlive_the_graph_that_it_speaks_of(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path
) -> None:
    own = Path(shutil.copytree(micro_bundle, "own.edgead"))
    wanted = [own, "--data", checked_parts, "--in-place"]
    assert main(base(*wanted)) == 0
    proven = Bundle.read(own)
    assert main(base(*wanted, "--gate", "off", "--quantize", "fp16")) == 0
    assert Bundle.read(own).manifest.files["report.html"] == proven.manifest.files["report.html"]
    assert main(base(*wanted, "--gate", "off", "--ranges", "mse")) == 0
    assert sorted(content_of(own)) == sorted([*content_of(micro_bundle), "model.fp16.onnx", "model.int8.onnx"])


def test_a_threshold_that_is_written_meanwhile_is_not_lost(
    base: Callable[..., list[str]],
    micro_bundle: Path,
    checked_parts: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = Path(shutil.copytree(micro_bundle, "own.edgead"))
    quantize = quantized.quantize_bundle

    def slow(*arguments: Any) -> Any:
        made = quantize(*arguments)
        assert main(["threshold", str(own), "--value", "0.25", "--in-place"]) == 0
        capsys.readouterr()
        return made

    monkeypatch.setattr(quantized, "quantize_bundle", slow)
    line = fails(BUNDLE, base(own, "--data", checked_parts, "--in-place", "--gate", "off"), capsys)
    assert "own.edgead: was replaced while it was in use" in line
    assert Bundle.read(own).thresholds("fp32").image == 0.25


def test_layers_that_go_back_are_said(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path, capsys: Capture
) -> None:
    """Whatever int8 reaches by itself on this machine, a little less error is asked for."""
    wanted = base(micro_bundle, "--data", checked_parts, "--val", checked_parts, "--force", "-o", "new.edgead")
    assert main(wanted) == 0
    reached = Bundle.read("new.edgead").manifest.quantization["int8"].map_correlation
    assert reached is not None
    capsys.readouterr()
    assert main([*wanted, "--min-map-correlation", repr(1 - 0.9 * (1 - reached))]) == 0
    said = capsys.readouterr().err
    floats = Bundle.read("new.edgead").manifest.quantization["int8"].float_layers
    assert floats
    assert "all 5 layers in lower precision: correlation of the maps: " in said
    for layer in floats:
        assert f"\n{layer} back in float, " in said
    assert " ms: holds\n" in said
    assert f"with {len(floats)} layers back in float; " in said
    for layer in floats:
        assert layer in Path("new.edgead", "report.html").read_text("utf-8")


@pytest.mark.parametrize("gate", ["report", "off"])
def test_what_is_not_proven_is_not_the_default(
    base: Callable[..., list[str]],
    speed_up: Callable[[float], None],
    micro_bundle: Path,
    checked_parts: Path,
    engine_cache: Path,
    capsys: Capture,
    gate: str,
) -> None:
    speed_up(3.0)
    assert main(base(micro_bundle, "--data", checked_parts, "-o", "n.edgead", "--gate", gate, *IMPOSSIBLE)) == 0
    said = capsys.readouterr().err
    bundle = Bundle.read("n.edgead")
    assert bundle.manifest.quantization["int8"].gate == ("failed" if gate == "report" else "unproven")
    with edge_ad.open("n.edgead", engine_cache=engine_cache) as detector:
        assert detector.provenance.precision == "fp32"
    with edge_ad.open("n.edgead", precision="int8", engine_cache=engine_cache) as detector:
        assert detector.provenance.precision == "int8"
    if gate == "report":
        assert "BROKEN: correlation of the maps" in said
        assert "warning: written all the same; ask for it with 'run --precision int8'" in said
        assert b"<b>failed</b>" in bundle.read_file("report.html")
    else:
        assert "warning: the gate is off, nobody knows how far this int8 model is from the float one" in said
        assert "report.html" not in bundle.manifest.files


def test_thresholds_are_derived_anew_and_the_shift_is_said(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path, capsys: Capture
) -> None:
    first = with_threshold(micro_bundle, checked_parts, "first.edgead")
    capsys.readouterr()
    assert main(base(first, "--data", checked_parts, "--val", checked_parts, "-o", "new.edgead")) == 0
    said = capsys.readouterr().err
    bundle, shift = Bundle.read("new.edgead"), report_of(Path("new.edgead"))["thresholds"]
    old, new = (bundle.thresholds(precision).image for precision in ("fp32", "int8"))
    assert old == Bundle.read(first).thresholds("fp32").image
    assert old is not None and new is not None and old != new
    assert (shift["old"], shift["new"], shift["shift"]) == (old, new, new - old)
    assert f"threshold {old:.6g} to {new:.6g} ({new - old:+.2g}), by the shift of best-f1" in said
    # Both tell the same images apart.
    for row in report_of(Path("new.edgead"))["scores"]:
        anomalous = row["defect"] != "good"
        assert (row["reference"] >= old) == (row["candidate"] >= new) == anomalous


def test_flips_are_named(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path, capsys: Capture
) -> None:
    """A threshold between what an image scores in float and in int8; its neighbours stay where they are."""
    wanted = base(micro_bundle, "--data", checked_parts, "--val", checked_parts, "--force", "-o", "new.edgead")
    assert main(wanted) == 0
    row = max(report_of(Path("new.edgead"))["scores"], key=lambda row: row["reference"] - row["candidate"])
    middle = (row["reference"] + row["candidate"]) / 2
    assert main(["threshold", str(micro_bundle), "--value", repr(middle), "-o", "edge.edgead"]) == 0
    capsys.readouterr()
    edge = base("edge.edgead", "--data", checked_parts, "--val", checked_parts, "-o", "e8.edgead", "--gate", "report")
    assert main(edge) == 0
    said = capsys.readouterr().err
    assert "BROKEN: label flips: " in said
    assert f"\nflip: {row['name']}: {row['reference']:.6g} to {row['candidate']:.6g}, beyond the score noise\n" in said
    flips = report_of(Path("e8.edgead"))["agreement"]["flips"]
    assert said.count("\nflip: ") == len(flips)
    assert Bundle.read("e8.edgead").manifest.quantization["int8"].flips == len(flips)


def test_a_second_run_takes_the_calibration_from_the_cache(
    base: Callable[..., list[str]], micro_bundle: Path, checked_parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    data = Path(shutil.copytree(checked_parts, tmp_path / "data"))
    own = ["--calibration-cache", tmp_path / "own", "--gate", "off", "--force", "-o", "new.edgead"]

    def graph(*arguments: Any) -> tuple[bytes, bool]:
        capsys.readouterr()
        assert main(base(micro_bundle, "--data", data, *own, *arguments)) == 0
        return Path("new.edgead", "model.int8.onnx").read_bytes(), CACHED in capsys.readouterr().err

    first, cached = graph()
    assert not cached
    assert graph() == (first, True)
    assert not graph("--seed", 1)[1]
    assert not graph("--ranges", "mse")[1]
    picture = data / "train" / "good" / "03.png"
    Image.open(picture).rotate(180).save(picture)
    changed, cached = graph()
    assert not cached and changed != first
    assert graph() == (changed, True)
    # The same pictures under other names and in another folder are the same calibration.
    for index, image in enumerate(sorted((data / "train" / "good").iterdir())):
        image.rename(image.with_name(f"renamed{99 - index}.png"))
    assert graph() == (changed, True)
