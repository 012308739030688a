"""A line with a password at every door, all of which are shut: no way out of the process shows one of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
import yaml

DISC = str(resources.files("edge_ad.demo") / "disc.edgead")
PATIENCE_S = 60
SECRET = "S3CRET"
VARIABLES = {
    "CAMERA": f"rtsp://user:{SECRET}@127.0.0.1:1/live?password={SECRET}",
    "ENCODED": f"http://user%3A{SECRET}%40@127.0.0.1:1/user%3Dadmin_password%3D{SECRET}/x",
    "PIPELINE": f'gst:rtspsrc location=rtsp://127.0.0.1:1/x user-id=a user-pw="{SECRET} two" ! decodebin',
    "HOOK": f"http://user:{SECRET}@127.0.0.1:1/services/{SECRET}?token={SECRET}",
    "NAME": f"{SECRET}-name",
    "PASSWORD": SECRET,
    "TOKEN": f"{SECRET}-token",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def asked(port: int, path: str) -> str:
    headers = {"Authorization": f"Bearer {VARIABLES['TOKEN']}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.read().decode()


def wait_for(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.05)


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_password_is_seen(log_format: str, tmp_path: Path) -> None:
    port = free_port()
    away = {"wait_for_source": True}
    line = {
        "bundle": DISC,
        "engine": "fake",
        "output": str(tmp_path / "out"),
        "cameras": [
            {"source": "sim:?fps=20&size=64x64"},
            {"source_env": "CAMERA", **away},
            {"source_env": "ENCODED", **away},
            {"name": "named", "source_env": "CAMERA", "trigger": "software", **away},
        ],
        "sinks": {
            "sqlite": {},
            "mqtt": {"host": "127.0.0.1", "port": 1, "username_env": "NAME", "password_env": "PASSWORD", "flush_s": 0},
            "webhook": {"url_env": "HOOK", "token_env": "TOKEN", "headers_env": {"X-Key": "PASSWORD"}, "flush_s": 0},
        },
        "triggers": {"mqtt": {"host": "127.0.0.1", "port": 1, "username_env": "NAME", "password_env": "PASSWORD"}},
        "http": {"port": port, "token_env": "TOKEN"},
    }
    (tmp_path / "line.yaml").write_text(yaml.safe_dump(line))
    command = [sys.executable, "-m", "edge_ad", "run", "-c", "line.yaml", "--log-level", "debug"]
    command += ["--log-format", log_format]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | VARIABLES, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    records = tmp_path / "out" / "verdicts.jsonl"
    try:
        wait_for(lambda: records.exists() and records.read_bytes().count(b"disconnected") >= 3)
        wait_for(lambda: len(json.loads(asked(port, "/healthz")).get("warnings", [])) == 3)
        seen = {path: asked(port, path) for path in ("/healthz", "/readyz", "/metrics", "/thresholds", "/none")}
        arguments = Path(f"/proc/{process.pid}/cmdline")
        seen["arguments"] = arguments.read_text() if arguments.exists() else ""
        process.send_signal(signal.SIGTERM)
        seen["said"] = process.communicate(timeout=PATIENCE_S)[0]
    finally:
        process.kill()
        process.wait()
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            seen[str(path)] = path.read_bytes().decode("latin-1")
    assert [name for name, text in seen.items() if SECRET in text] == []
    assert "MQTT" in seen["/healthz"] and "webhook" in seen["/healthz"]
    assert "127.0.0.1:1" in seen["said"] and "disconnected" in seen[str(records)]  # control: they were spoken of


@pytest.mark.parametrize("variable", [name for name in VARIABLES if name in ("CAMERA", "ENCODED", "PIPELINE")])
def test_a_source_that_does_not_open_is_named_without_its_password(variable: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_ad", "run", DISC, "--engine", "fake", "--source-env", variable]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | VARIABLES, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 7
    assert SECRET not in done.stdout + done.stderr


def test_a_password_on_the_command_line_is_warned_of(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_ad", "run", DISC, "--engine", "fake", "--source", VARIABLES["CAMERA"]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stderr.startswith("warning: every user of this machine can read the password in --source; put the")
    assert SECRET not in done.stdout + done.stderr
