"""`edge-ad run` as a user types it: records, summary, signals, pipes."""

from __future__ import annotations

import dataclasses
import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

import edge_ad
from edge_ad.bundle.bundle import Bundle, write_bundle, write_changed
from edge_ad.bundle.manifest import Quantization
from edge_ad.cli.main import main
from edge_ad.errors import OutputError
from edge_ad.record.verdict import record_schema
from edge_ad.runtime.host.results import ResultFolder

Capture = pytest.CaptureFixture[str]
VALIDATOR = jsonschema.Draft202012Validator(record_schema())
COMMAND = [sys.executable, "-m", "edge_ad", "run"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures in two folders; one in the middle is corrupt."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    (folder / "b").mkdir()
    for name in ("1.png", "2.png", "4.jpg", "b/5.png"):
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(folder / name)
    (folder / "3.png").write_bytes((folder / "2.png").read_bytes()[:700])
    return folder


@pytest.fixture
def base(tiny_bundle: Path, engine_cache: Path) -> list[str]:
    return [str(tiny_bundle), "--engine-cache", str(engine_cache)]


def records(text: str) -> list[dict[str, Any]]:
    """Every line of a text as a record that the shipped schema accepts."""
    assert text == "" or text.endswith("\n")
    entries = [json.loads(line) for line in text.splitlines()]
    for entry in entries:
        VALIDATOR.validate(entry)
    assert [entry["frame_id"] for entry in entries] == list(range(len(entries)))
    return entries


def test_the_schema_is_one_and_refuses_something() -> None:
    jsonschema.Draft202012Validator.check_schema(record_schema())
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate({"frame_id": 0})


@pytest.mark.parametrize(("threshold", "rejects"), [("0", [0, 1, 3, 4]), ("0.99999", [])])
def test_only_rejects_get_pictures_and_full_files_of_records_go_on_in_new_ones(
    base: list[str], pictures: Path, tmp_path: Path, threshold: str, rejects: list[int]
) -> None:
    output = tmp_path / "out"
    arguments = ["run", *base, "--source", str(pictures), "--engine", "fake", "--output", str(output)]
    arguments += ["--threshold", threshold]
    assert main([*arguments, "--save", "masks,overlays", "--save-which", "rejects", "--rotate-mb", "0.0015"]) == 0
    files = sorted(output.glob("verdicts*.jsonl"))
    assert len(files) > 2 and max(path.stat().st_size for path in files) <= 1500
    entries = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert sorted(entry["frame_id"] for entry in entries) == list(range(5))
    assert sorted(entry["frame_id"] for entry in entries if entry["verdict"] == "anomalous") == rejects
    for kind in ("masks", "overlays"):
        assert sorted(int(path.name[:6]) for path in (output / kind).iterdir()) == rejects


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_folder_with_a_corrupt_picture(
    base: list[str], pictures: Path, tmp_path: Path, capsys: Capture, engine: str
) -> None:
    output = tmp_path / "out"
    arguments = ["run", *base, "--source", str(pictures), "--engine", engine, "--output", str(output)]
    assert main([*arguments, "--save", "masks,overlays"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    entries = records((output / "verdicts.jsonl").read_text())
    assert [entry["status"] for entry in entries] == ["ok", "ok", "error", "ok", "ok"]
    assert [Path(entry["path"]).name for entry in entries] == ["1.png", "2.png", "3.png", "4.jpg", "5.png"]
    assert "3.png" in entries[2]["reason"]
    assert {entry["engine"] for entry in entries} == {engine}
    assert {entry["precision"] for entry in entries} == {"fp32"}
    for entry in entries:
        if entry["status"] == "ok":
            assert entry["verdict"] == ("anomalous" if entry["score"] >= entry["threshold"] else "normal")
            assert {"decode", "wait", "preprocess", "infer", "postprocess", "total"} <= entry["timings_ms"].keys()
            assert entry["inspected_box"] == [9, 0, 81, 70]  # rounded outwards
            assert entry["frame_size"] == [90, 70]
    assert len(list((output / "masks").iterdir())) == len(list((output / "overlays").iterdir())) == 4
    with Image.open(next((output / "masks").iterdir())) as mask:
        assert mask.size == (90, 70)
    for words in ("p50", "p95", "p99", "max", "5 frames captured: 4 ok, 1 error", "missed deadlines", "dropped"):
        assert words in captured.err
    assert captured.err.count("NOT inspected") == 1


def test_engines_agree(base: list[str], pictures: Path, capsys: Capture) -> None:
    scores = []
    for engine in ("openvino", "onnxruntime"):
        assert main(["run", *base, "--source", str(pictures / "*.png"), "--engine", engine]) == 0
        scores.append([entry["score"] for entry in records(capsys.readouterr().out) if entry["status"] == "ok"])
    assert len(scores[0]) == 2
    # The project's parity tolerance: two float32 implementations of one graph.
    np.testing.assert_allclose(scores[0], scores[1], rtol=0, atol=2e-5)


@pytest.mark.parametrize(("name", "count"), [("1.png", 1), ("[12].png", 2), ("**/*.png", 4)])
def test_a_picture_or_a_pattern_goes_to_standard_output(
    base: list[str], pictures: Path, capsys: Capture, name: str, count: int
) -> None:
    assert main(["run", *base, "--source", str(pictures / name)]) == 0
    captured = capsys.readouterr()
    assert len(records(captured.out)) == count
    assert "\r" not in captured.err
    assert "━" not in captured.err.split("milliseconds")[0]


def test_max_frames_and_threshold(base: list[str], capsys: Capture) -> None:
    arguments = ["run", *base, "--source", "sim:?size=160x120&seed=1&defects=0.5", "--max-frames", "6"]
    for threshold, verdict in (("0", "anomalous"), ("2", "normal")):
        assert main([*arguments, "--threshold", threshold]) == 0
        entries = records(capsys.readouterr().out)
        assert len(entries) == 6
        assert {entry["verdict"] for entry in entries} == {verdict}
        assert all("truth" in entry for entry in entries)
        assert all(bool(entry["regions"]) == (verdict == "anomalous") for entry in entries)


def test_a_precision_that_nobody_proved_is_said(
    two_precisions: Path, engine_cache: Path, tmp_path: Path, capsys: Capture
) -> None:
    record = Quantization("min-max", 300, "a" * 64, 0, 9, (), "passed", 60, 0, None, 0.999, 3.0)
    rest = ["--engine-cache", str(engine_cache), "--source", "sim:?size=160x120&seed=1", "--max-frames", "1"]
    for gate, precision, said in (
        (None, "int8", "int8 model is unproven"),
        ("failed", "int8", "int8 model is failed"),
        ("failed", "fp32", None),
        ("passed", "int8", None),
    ):
        bundle = Bundle.read(two_precisions)
        if gate is not None:
            changes = {"quantization": {"int8": dataclasses.replace(record, gate=gate)}}
            bundle = write_changed(bundle, tmp_path / f"{gate}.edgead", changes, replace=True)
        assert main(["run", str(bundle.path), *rest, "--precision", precision]) == 0
        errors = capsys.readouterr().err
        assert ("warning: the gate of" in errors) == (said is not None) and (said or "") in errors


def test_a_missed_budget_is_said(base: list[str], pictures: Path, capsys: Capture) -> None:
    assert main(["run", *base, "--source", str(pictures / "1.png"), "--budget-ms", "0.0001"]) == 0
    captured = capsys.readouterr()
    (entry,) = records(captured.out)
    assert entry["status"] == "late"  # a file waits, so it is judged all the same
    assert entry["score"] is not None
    assert "missed deadlines: 1 (1 judged too late" in captured.err


def test_a_second_run_keeps_the_records_of_the_first(base: list[str], pictures: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert main(["run", *base, "--source", str(pictures / "1.png"), "--output", str(tmp_path)]) == 0
    files = sorted(tmp_path.glob("verdicts*.jsonl"))
    assert [len(records(file.read_text())) for file in files] == [1, 1]


def test_a_second_start_compiles_nothing(tiny_bundle: Path, pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    arguments = ["run", str(tiny_bundle), "--engine-cache", str(tmp_path), "--source", str(pictures / "1.png")]
    said = []
    for _ in range(2):
        assert main(arguments) == 0
        said.append(capsys.readouterr().err.splitlines()[0])
    assert "compiled" in said[0]
    assert "from the cache" in said[1]


@pytest.mark.usefixtures("heard_interrupts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_loses_no_line(base: list[str], tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "verdicts.jsonl"
    command = [*COMMAND, *base, "--source", "sim:?fps=20&size=160x120", "--output", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 40
            while not (file.exists() and file.read_bytes().count(b"\n") >= 4):
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert out == ""
    entries = records(file.read_text())
    assert len(entries) >= 4
    assert f"{len(entries)} frames captured" in err
    assert "milliseconds by stage" in err
    assert "stopped by the user" in err
    assert "Traceback" not in err


def test_a_closed_pipe_is_no_accident(base: list[str], pictures: Path) -> None:
    command = [*COMMAND, *base, "--source", "sim:?size=160x120", "--engine", "fake", "--max-frames", "200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        VALIDATOR.validate(json.loads(process.stdout.readline()))
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(30) == 141
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_a_run_never_imports_torch(base: list[str], pictures: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from edge_ad.cli.main import main; code = main(sys.argv[1:]); print(*sys.modules); sys.exit(code)"
    )
    arguments = ["run", *base, "--source", str(pictures), "--output", str(tmp_path), "--save", "overlays"]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert {"openvino", "cv2", "edge_ad"} <= loaded
    assert loaded & {"torch", "torchvision", "timm", "onnx", "onnxruntime", "scipy"} == set()
    # Not one picture, warning or bar of a library's own on stderr.
    assert done.stderr.splitlines()[0].startswith("engine openvino")


def test_two_runs_do_not_share_an_output(tmp_path: Path) -> None:
    """The first run's file must not be renamed under its hands."""
    with ResultFolder(tmp_path), pytest.raises(OutputError, match="another run"), ResultFolder(tmp_path):
        pass
    with ResultFolder(tmp_path):
        pass


def test_a_file_system_without_locks_is_used_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with ResultFolder(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize("inside", [".", "out"])
@pytest.mark.parametrize("source", ["{}", "{}/*", "{}/**/*.*"])
def test_results_are_no_pictures_of_the_next_run(base: list[str], tmp_path: Path, inside: str, source: str) -> None:
    (tmp_path / "masks of mine").mkdir()
    for name in ("1.png", "masks of mine/2.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(tmp_path / name)
    output = tmp_path / inside
    counts = []
    for _ in range(3):
        arguments = ["--source", source.format(tmp_path), "--output", str(output), "--save", "overlays"]
        assert main(["run", *base, *arguments]) == 0
        counts.append(len(records((output / "verdicts.jsonl").read_text())))
    assert counts == [2, 2, 2]


def test_a_folder_of_the_user_is_not_moved(base: list[str], pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "truth.png").write_bytes(b"mine")
    arguments = ["--source", str(pictures / "1.png"), "--output", str(tmp_path), "--save", "masks"]
    for _ in range(2):
        assert main(["run", *base, *arguments]) == 11
        assert "is not edge-ad's" in capsys.readouterr().err
    assert not list(tmp_path.glob("verdicts*"))
    assert (tmp_path / "masks" / "truth.png").read_bytes() == b"mine"


def test_masks_without_a_threshold_are_left_out_and_said(
    tiny_bundle: Path, pictures: Path, tmp_path: Path, capsys: Capture
) -> None:
    plain = tmp_path / "plain.edgead"
    opened = edge_ad.Bundle.read(tiny_bundle)
    fields = {field.name: getattr(opened.manifest, field.name) for field in dataclasses.fields(opened.manifest)}
    fields["thresholds"] = {}
    files = {name: opened.read_file(name) for name in fields.pop("files")}
    fields.pop("schema_version")
    write_bundle(plain, fields, files)
    arguments = ["run", str(plain), "--engine", "onnxruntime", "--source", str(pictures / "1.png")]
    assert main([*arguments, "--output", str(tmp_path / "out"), "--save", "masks,overlays"]) == 0
    assert "no masks are saved" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == ["overlays", "verdicts.jsonl"]


def test_no_display_is_an_error_and_no_abort(
    base: list[str], pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert main(["run", *base, "--source", str(pictures / "1.png"), "--show"]) == 11
    assert "no display" in capsys.readouterr().err


def test_a_service_without_standard_error_runs(tiny_bundle: Path, pictures: Path, tmp_path: Path) -> None:
    command = [*COMMAND, str(tiny_bundle), "--engine", "fake", "--source", str(pictures / "1.png")]
    command += ["--output", str(tmp_path / "out")]
    done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", *command], check=False, timeout=60)
    assert done.returncode == 0
    assert len(records((tmp_path / "out" / "verdicts.jsonl").read_text())) == 1
