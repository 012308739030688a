"""How a run ends: lost records are told, what may pass is told apart from what is wrong, one picture ends nothing."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from patience import wait_until
from PIL import Image

from edge_ad.cli.main import main
from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.line.scheduling import output as output_module
from edge_ad.runtime.sinks.jsonl import JsonLines

CONFIG, BUNDLE, OUTPUT, LOST, UNAVAILABLE, INTERRUPTED = 3, 5, 11, 17, 18, 130
DISC = Path(str(resources.files("edge_ad.demo") / "disc.edgead"))
PATIENCE_S = 30
Capture = pytest.CaptureFixture[str]


def run(*arguments: object) -> int:
    return main(["run", str(DISC), "--engine", "fake", *map(str, arguments)])


def pictures(folder: Path, *names: bytes) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        path = os.path.join(os.fsencode(folder), name)
        with open(path, "wb") as file:
            Image.linear_gradient("L").rotate(number).convert("RGB").save(file, "PNG")
    return folder


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]


def on_a_full_disk(folder: Path, *arguments: str) -> list[str]:
    """A live line that does not wait for its sinks as long as others do."""
    quick = "import sys\nfrom edge_ad.runtime.line.scheduling import output\nfrom edge_ad.__main__ import main\n"
    quick += "output.FLUSH_S = 0.5\nsys.exit(main())"
    source = ["--source", "sim:?fps=50&size=160x120", "--output", str(folder / "out")]
    return [sys.executable, "-c", quick, "run", str(DISC), "--engine", "fake", *source, *arguments]


def full_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_live_line_that_lost_records_says_so_at_its_end(tmp_path: Path, log_format: str) -> None:
    command = on_a_full_disk(tmp_path, "--max-frames", "30", "--log-format", log_format)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, preexec_fn=full_disk)
    assert done.returncode == LOST, done.stderr
    last = done.stderr.splitlines()[-1]
    kept = len(records(tmp_path / "out"))
    assert f"records are lost: {30 - kept} of 30 by JsonLines" in last and kept < 30
    if log_format == "json":
        assert json.loads(last)["exit_code"] == LOST


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_records_that_were_lost_before_somebody_stopped_the_line_are_lost_all_the_same(tmp_path: Path) -> None:
    command = on_a_full_disk(tmp_path)
    said = tmp_path / "said"
    with said.open("w") as file, subprocess.Popen(command, stderr=file, preexec_fn=full_disk) as process:
        try:
            wait_until(lambda: "records wait for it" in said.read_text())
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == LOST
        finally:
            process.kill()
    assert "stopped by the user" in said.read_text()


def test_a_line_of_files_that_cannot_write_has_the_code_of_outputs(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(self: JsonLines, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(JsonLines, "write", refuse)
    assert run("--source", pictures(tmp_path / "in", b"1.png"), "--output", tmp_path / "out") == OUTPUT


def test_a_record_in_a_write_that_never_came_back_counts_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    release, hung = threading.Event(), []

    def hang(self: JsonLines, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        hung.append(self)
        release.wait(PATIENCE_S)

    monkeypatch.setattr(JsonLines, "write", hang)
    monkeypatch.setattr(output_module, "FLUSH_S", 0.2)
    try:
        code = run("--source", "sim:?fps=50&size=160x120", "--max-frames", "1", "--output", tmp_path / "out")
    finally:
        release.set()
        for sink in hung:
            sink.__exit__(None, None, None)  # the line does not wait for it
    assert code == LOST
    assert "records are lost: what JsonLines was still writing at the end" in capsys.readouterr().err


def test_a_run_that_lost_nothing_ends_well(tmp_path: Path) -> None:
    assert run("--source", "sim:?fps=50&size=160x120", "--max-frames", "3", "--output", tmp_path / "out") == 0


def test_what_may_pass_has_a_code_of_its_own(tmp_path: Path, capsys: Capture) -> None:
    out = ["--source", "sim:?fps=50&size=160x120", "--max-frames", "1", "--output", tmp_path / "out"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(*out, "--http", taken.getsockname()[1]) == UNAVAILABLE
    (tmp_path / "mount").mkdir()
    for bundle in (tmp_path / "nothing", tmp_path / "mount"):
        assert main(["run", str(bundle), "--engine", "fake", *map(str, out)]) == UNAVAILABLE
    assert main(["run", "-c", str(tmp_path / "mount" / "line.yaml")]) == UNAVAILABLE
    assert main(["check", "-c", str(tmp_path / "mount" / "line.yaml")]) == UNAVAILABLE
    said = capsys.readouterr().err
    assert "another program has it" in said and "mount what it lies on" in said
    assert all(line.startswith("edge-ad: error: ") for line in said.splitlines())


def test_what_is_wrong_has_its_old_code(tmp_path: Path) -> None:
    """What the unit does not try again."""
    (tmp_path / "line.yaml").write_text("cameras: none\n")
    assert main(["run", "-c", str(tmp_path / "line.yaml")]) == CONFIG
    assert main(["run", "-c", str(tmp_path)]) == CONFIG
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "file").touch()
    assert main(["run", str(tmp_path / "some"), "--source", "sim:"]) == BUNDLE


NAMES = (
    b"1.png",
    b"x" * 251 + b".png",
    "ü".encode() * 125 + b".png",
    "検".encode() * 83 + b".png",
    b"not \xff\xfe UTF-8.png",
    b"\xff" * 251 + b".png",
)


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no UTF-8")
@pytest.mark.parametrize("quota", [False, True])
def test_no_name_ends_a_run(tmp_path: Path, quota: bool) -> None:
    """The index of a quota is a database, which takes no text but UTF-8."""
    folder = pictures(tmp_path / "in", *NAMES)
    text = f"bundle: {DISC}\nengine: fake\noutput: {tmp_path / 'out'}\ncameras: [{{source: {folder}}}]\n"
    text += f"sinks: {{sqlite: {{}}, pictures: {{save: [masks, overlays]{', quota_mb: 50' if quota else ''}}}}}\n"
    (tmp_path / "line.yaml").write_text(text)
    assert main(["run", "-c", str(tmp_path / "line.yaml")]) == 0
    assert [entry["status"] for entry in records(tmp_path / "out")] == ["ok"] * len(NAMES)
    for kind in ("masks", "overlays"):
        found = os.listdir(tmp_path / "out" / kind)
        assert sorted(name[:6] for name in found) == [f"{number:06}" for number in range(len(NAMES))]
        assert all(name.encode().decode() == name for name in found)


def test_a_picture_that_cannot_be_drawn_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from edge_ad.runtime.sinks import pictures as pictures_module

    suffix, draw = pictures_module.PICTURES["overlays"]

    def draw_some(frame: Frame, verdict: Verdict) -> Any:
        if frame.frame_id == 1:
            raise ValueError("of a kind that nobody has thought of")
        return draw(frame, verdict)

    monkeypatch.setitem(pictures_module.PICTURES, "overlays", (suffix, draw_some))
    folder = pictures(tmp_path / "in", b"0.png", b"1.png", b"2.png")
    assert run("--source", folder, "--output", tmp_path / "out", "--save", "overlays") == 0
    assert len(records(tmp_path / "out")) == 3
    assert sorted(os.listdir(tmp_path / "out" / "overlays")) == ["000000_0.jpg", "000002_2.jpg"]
    said = capsys.readouterr().err
    assert "cannot be drawn: of a kind that nobody has thought of; it is left out" in said
    assert "overlays: 2 of 3 written, 0 lost, 1 left out" in said
