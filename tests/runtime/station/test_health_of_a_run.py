"""A whole run whose threads die while it goes on: /healthz names each of them, and the records go on."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from patience import PATIENCE_S

from edge_ad.bundle.bundle import Bundle

Until = Callable[..., None]
DEFECTS = """
import sys
from edge_ad.cli.main import main
from edge_ad.runtime.sinks.spooled import SpooledSink
from edge_ad.runtime.sinks.syncing import Flusher
Flusher._run = lambda self: 1 / 0
SpooledSink._run = lambda self: sys.exit(3)
sys.exit(main(sys.argv[1:]))
"""


def test_threads_that_defects_end_are_named(bundle: Bundle, tmp_path: Path, until: Until) -> None:
    line = {
        "bundle": str(bundle.path),
        "engine": "fake",
        "output": str(tmp_path / "out"),
        "cameras": [{"name": "a", "source": "sim:?fps=50&size=64x64"}],
        "sinks": {"records": {"fsync": 1}, "mqtt": {"host": "127.0.0.1", "port": 1, "flush_s": 0}},
        "http": {"port": 0},
    }
    (tmp_path / "line.yaml").write_text(yaml.safe_dump(line))
    said, records = tmp_path / "said", tmp_path / "out" / "verdicts.jsonl"
    with said.open("wb") as log:
        command = [sys.executable, "-c", DEFECTS, "run", "-c", str(tmp_path / "line.yaml")]
        process = subprocess.Popen(command, stderr=log)

    def health() -> tuple[int, dict[str, Any]]:
        port = said.read_text().split("listening on http://127.0.0.1:")[1].split()[0]
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=PATIENCE_S)
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    try:
        until(lambda: records.exists() and records.read_bytes().count(b"\n") > 5)
        count = records.read_bytes().count(b"\n")
        status, told = health()
        assert (status, told["status"]) == (503, "ill")
        assert set(told["reasons"]) == {
            "the thread edge-ad-records-sync has ended: ZeroDivisionError",
            "the thread edge-ad-spool-sync has ended: ZeroDivisionError",
            "the thread edge-ad-MqttRecords-sender has ended",
            "the thread edge-ad-MqttRecords-sender has ended: SystemExit",
        }
        until(lambda: records.read_bytes().count(b"\n") > count)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 130
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in said.read_text()
