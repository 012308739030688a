"""`edge-ad run` with its engine in a process of its own, as a user meets it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.cli.main import main

BUNDLE = str(resources.files("edge_ad.demo") / "disc.edgead")
RUN = [sys.executable, "-c", "import sys; from edge_ad.cli.main import main; sys.exit(main())", "run"]
Capture = pytest.CaptureFixture[str]

OPTIONS = [BUNDLE, "--source", "sim:?size=320x256", "--max-frames", "2", "--engine", "fake"]


def line(folder: Path, **changes: Any) -> str:
    cameras = [{"name": "sim", "source": "sim:?size=320x256&fps=100", "max_frames": 6}]
    path = folder / "line.yaml"
    path.write_text(yaml.safe_dump({"bundle": BUNDLE, "engine": "fake", "cameras": cameras, **changes}))
    return str(path)


def process_in(said: str) -> int | None:
    found = re.search(r"in process (\d+); bundle", said)
    return None if found is None else int(found[1])


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["-c"], True),
        (["-c", "--engine-process", "off"], False),
        ([BUNDLE, "--source", "sim:?size=320x256", "--max-frames", "2", "--engine", "fake"], False),
        (
            [
                BUNDLE,
                "--source",
                "sim:?size=320x256",
                "--max-frames",
                "2",
                "--engine",
                "fake",
                "--engine-process",
                "on",
            ],
            True,
        ),
    ],
    ids=["file", "file, off", "options", "options, on"],
)
def test_who_gets_a_process(tmp_path: Path, capsys: Capture, arguments: list[str], wanted: bool) -> None:
    if arguments[0] == "-c":
        arguments = ["-c", line(tmp_path), *arguments[1:]]
    assert main(["run", *arguments]) == 0
    pid = process_in(capsys.readouterr().err)
    assert (pid is not None) == wanted
    assert pid is None or not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(("value", "wanted"), [("off", False), ("on", True), ("'off'", False), ("'on'", True)])
def test_the_file_says_it_as_it_is_written(tmp_path: Path, capsys: Capture, value: str, wanted: bool) -> None:
    path = Path(line(tmp_path))
    path.write_text(f"{path.read_text()}engine_process: {value}\n")
    assert main(["check", "-c", str(path)]) == 0
    assert main(["run", "-c", str(path)]) == 0
    assert (process_in(capsys.readouterr().err) is not None) == wanted


def test_anything_else_is_a_fault(tmp_path: Path, capsys: Capture) -> None:
    path = line(tmp_path, engine_process="sometimes")
    assert main(["check", "-c", path]) == 3
    assert "engine_process: wanted 'on' or 'off'" in capsys.readouterr().err
    assert main(["run", BUNDLE, "--source", "sim:", "--engine-process", "maybe"]) == 3
    assert "engine_process: wanted 'on' or 'off'" in capsys.readouterr().err


def test_a_graph_that_no_engine_loads_ends_alike(tmp_path: Path, capsys: Capture) -> None:
    broken = write_changed(Bundle.read(BUNDLE), tmp_path / "broken.edgead", {}, files={"model.onnx": b"no graph"})
    path = line(tmp_path, bundle=str(broken.path), engine="openvino", engine_cache=str(tmp_path / "engines"))
    said = []
    for where in ("on", "off"):
        assert main(["run", "-c", path, "--engine-process", where]) in (5, 9)
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert said[0].count("\n") == 1


def test_kill_9_and_then_a_stop(tmp_path: Path) -> None:
    """The engine's process is killed twice while the line runs; then the line is asked to end."""
    out = tmp_path / "out"
    cameras = [{"name": "sim", "source": "sim:?size=320x256&fps=50"}]
    path = line(tmp_path, cameras=cameras, output=str(out), http={"port": 0})
    with subprocess.Popen([*RUN, "-c", path], stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        port, pid, said = None, None, ""
        while pid is None:
            said += (text := run.stderr.readline())
            assert text, said
            port = port or re.search(r"listening on http://127.0.0.1:(\d+)", said)
            pid = process_in(said)
        assert port is not None
        for restarts in (1, 2):
            os.kill(pid, signal.SIGKILL)
            while metric(int(port[1]), "edge_ad_engine_restarts_total") != restarts:
                time.sleep(0.05)
            pid = only_child(run.pid)
        assert metric(int(port[1]), "edge_ad_engine_up") == 1
        assert ask(int(port[1]), "/healthz") == {"status": "ok", "reasons": []}
        run.send_signal(signal.SIGTERM)
        said += run.stderr.read()
        assert run.wait(30) == 130
    assert not Path(f"/proc/{pid}").exists()
    assert said.count("warning: engine fake: its process was killed (SIGKILL") == 2
    assert "the engine failed and was started again 2 times" in said
    assert "Traceback" not in said
    entries = [json.loads(text) for text in (out / "verdicts.jsonl").read_text().splitlines()]
    assert [entry["frame_id"] for entry in entries] == list(range(len(entries)))
    assert entries[-1]["status"] == "ok"
    lost = [entry for entry in entries if entry["status"] == "error"]
    assert len(lost) <= 2  # the frame in hand, if there was one
    assert f"{len(entries)} frames captured" in said


def ask(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        body = connection.getresponse().read().decode()
    finally:
        connection.close()
    return body if path == "/metrics" else json.loads(body)


def metric(port: int, name: str) -> float | None:
    found = re.search(rf"^{name} (\S+)$", ask(port, "/metrics"), re.M)
    return None if found is None else float(found[1])


def only_child(parent: int) -> int:
    (child,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split() or [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and f"\nPPid:\t{parent}\n" in (entry / "status").read_text()
    ]
    return int(child)
