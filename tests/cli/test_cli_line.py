"""A line from its file, `edge-ad run -c`, and what reaches it while it runs."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from line_yaml import two_cameras, written
from prometheus_client.parser import text_string_to_metric_families

from edge_ad.cli.main import main
from edge_ad.record.verdict import record_schema

Capture = pytest.CaptureFixture[str]
VALIDATOR = jsonschema.Draft202012Validator(record_schema())
PATIENCE_S = 60
ENDLESS = "sim:?size=96x64&fps=40"


@pytest.fixture
def line(tiny_bundle: Path, tmp_path: Path) -> dict[str, Any]:
    return two_cameras(tiny_bundle, tmp_path)


def records(folder: Path) -> list[dict[str, Any]]:
    entries = [json.loads(text) for text in (folder / "verdicts.jsonl").read_text().splitlines()]
    for entry in entries:
        VALIDATOR.validate(entry)
    return entries


def test_a_line_from_its_file(line: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    path = written(tmp_path, line)
    assert main(["run", "-c", path]) == 0
    entries = records(tmp_path / "out")
    left = [entry for entry in entries if entry["source"] == "left"]
    right = [entry for entry in entries if entry["source"] == "right"]
    assert (len(left), len(right)) == (4, 3)
    assert {(entry["threshold"], tuple(entry["inspected_box"]), entry["budget_ms"]) for entry in left} == {
        (0.1, (8, 0, 72, 64), None)
    }
    assert {(entry["threshold"], entry["budget_ms"]) for entry in right} == {(0.5, 60000)}
    said = capsys.readouterr().err
    assert "budget 60000 ms" in said
    assert "damaged" not in said


def test_options_win_over_the_file(line: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "other"
    path = written(tmp_path, line)
    assert main(["run", "-c", path, "--threshold", "0.9", "--output", str(other), "--max-frames", "2"]) == 0
    assert [entry["threshold"] for entry in records(other)] == [0.9] * 4
    assert not (tmp_path / "out").exists()


def test_a_region_outside_of_the_frames(line: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    line["cameras"][0]["roi"] = [0, 0, 97, 64]
    assert main(["run", "-c", written(tmp_path, line)]) == 0
    entries = records(tmp_path / "out")
    assert [entry["status"] for entry in entries if entry["source"] == "left"] == ["error"] * 4
    assert [entry["status"] for entry in entries if entry["source"] == "right"] == ["ok"] * 3
    assert "outside of the 96x64 frame" in next(entry["reason"] for entry in entries if entry["source"] == "left")


def test_every_interval_one_picture(line: dict[str, Any], tmp_path: Path) -> None:
    line["cameras"] = [{"source": "sim:?size=96x64&frames=4", "trigger": {"interval_ms": 30}}]
    assert main(["run", "-c", written(tmp_path, line)]) == 0
    times_ns = [entry["captured_monotonic_ns"] for entry in records(tmp_path / "out")]
    assert len(times_ns) == 4
    assert times_ns[3] - times_ns[0] >= 60_000_000  # the source waits; no interval has two


@pytest.mark.parametrize(("host", "warned"), [("0.0.0.0", True), ("127.0.0.1", False), ("localhost", False)])
def test_a_token_that_others_can_read_on_its_way_is_warned_of(
    line: dict[str, Any], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, host: str, warned: bool
) -> None:
    monkeypatch.setenv("LINE_TOKEN", "s3cret")
    line["http"] = {"host": host, "port": 0, "token_env": "LINE_TOKEN"}
    assert main(["run", "-c", written(tmp_path, line)]) == 0
    said = capsys.readouterr().err
    assert said.count("listening on http://") == 1
    assert said.count("warning: the token for http://0.0.0.0:") == said.count("can be read on its way") == warned
    assert "s3cret" not in said


def test_a_bundle_or_a_file_is_wanted(capsys: Capture) -> None:
    assert main(["run", "--source", "sim:"]) == 2
    assert "Missing argument 'BUNDLE'" in capsys.readouterr().err


class Station:
    """`edge-ad run -c` as a service of its own, and a client."""

    def __init__(self, path: str, folder: Path) -> None:
        self.log = folder / "log"
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "edge_ad", "run", "-c", path]
            environment = {**os.environ, "LINE_TOKEN": "s3cret"}
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment)
        self.wait_for("listening on http://")
        text = self.said.split("listening on http://")[1].split()[0]
        self.host, _, port = text.rpartition(":")
        self.port = int(port)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, words: str, count: int = 1) -> None:
        self.until(lambda: self.said.count(words) >= count)

    def until(self, true: Callable[[], bool]) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not true():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end_s, self.said
            time.sleep(0.02)

    def ask(self, method: str, path: str, body: Any = None, token: str | None = "s3cret") -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        headers = {"Content-Type": "application/json"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, text if path == "/metrics" else json.loads(text)
        finally:
            connection.close()


def test_a_line_that_is_asked_triggered_and_tuned_while_it_runs(line: dict[str, Any], tmp_path: Path) -> None:
    line["cameras"] = [
        {"name": "belt", "source": ENDLESS, "threshold": 0.3},
        {"name": "door/1", "source": ENDLESS, "trigger": "software", "trigger_timeout_ms": 20000},
    ]
    line["http"] = {"port": 0, "token_env": "LINE_TOKEN"}
    path = written(tmp_path, line)
    station = Station(path, tmp_path)
    try:
        station.until(lambda: station.ask("GET", "/readyz")[0] == 200)
        assert station.ask("GET", "/healthz", token=None) == (200, {"status": "ok", "reasons": []})
        assert station.ask("GET", "/readyz", token=None)[0] == 401
        # Triggers.
        for number in range(5):
            status, told = station.ask("POST", "/trigger/door%2F1", {"part_id": f"part {number}"})
            assert (status, told) == (202, {"camera": "door/1", "part_id": f"part {number}"})
        assert station.ask("POST", "/trigger/belt", {"part_id": "1"})[0] == 409
        assert station.ask("POST", "/trigger/gate", {"part_id": "1"})[0] == 404
        assert station.ask("POST", "/trigger/door/1", {"part_id": "a\n"})[0] == 400
        # Thresholds by request.
        assert station.ask("PUT", "/thresholds", {"belt": 0.9, "gate": 0.1})[0] == 400
        assert station.ask("GET", "/thresholds")[1]["cameras"]["belt"] == {"threshold": 0.3, "from": "camera"}
        assert station.ask("PUT", "/thresholds", {"belt": 0.9})[1]["cameras"]["belt"] == {
            "threshold": 0.9,
            "from": "http",
        }
        station.until(lambda: any(entry["threshold"] == 0.9 for entry in whole_records(tmp_path / "out")))
        # And by the file: a bad one changes nothing, a good one counts from the next frame on.
        line["cameras"][0]["threshold"] = "high"
        written(tmp_path, line)
        station.process.send_signal(signal.SIGHUP)
        station.wait_for("thresholds stay as they are: ")
        assert "cameras.0.threshold: wanted a number, got 'high'" in station.said
        assert station.ask("POST", "/thresholds/reload", {})[0] == 409
        assert station.ask("GET", "/thresholds")[1]["cameras"]["belt"]["threshold"] == 0.9
        line["cameras"][0]["threshold"] = 0.45
        written(tmp_path, line)
        station.process.send_signal(signal.SIGHUP)
        station.wait_for("thresholds read again: belt 0.45, door/1 0.5")
        assert station.ask("GET", "/thresholds")[1]["cameras"]["belt"] == {"threshold": 0.45, "from": "camera"}
        station.until(lambda: any(entry["threshold"] == 0.45 for entry in whole_records(tmp_path / "out")))
        # The figures.
        status, text = station.ask("GET", "/metrics")
        values = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert values["edge_ad_ready",] == 1
        assert values["edge_ad_threshold", "belt"] == 0.45
        assert values["edge_ad_triggers_total", "accepted", "door/1"] == 5
        assert values["edge_ad_threshold_reloads_total", "failed"] == 2
        assert values["edge_ad_threshold_reloads_total", "done"] == 1
        assert values["edge_ad_frames_captured_total", "door/1"] == 5
        assert values["edge_ad_frames_left_out_total", "door/1"] > 0
        assert values["edge_ad_frames_total", "belt", "ok"] > 0
        assert values["edge_ad_stage_seconds_count", "total"] > 0
        assert values["edge_ad_source_up", "belt"] == 1
        assert [value for (name, *_), value in values.items() if name == "edge_ad_build_info"] == [1]
        assert status == 200
        station.process.send_signal(signal.SIGTERM)
        assert station.process.wait(PATIENCE_S) == 130
    finally:
        if station.process.poll() is None:
            station.process.kill()
            station.process.wait(PATIENCE_S)
    with pytest.raises(ConnectionRefusedError):
        station.ask("GET", "/healthz")
    assert "Traceback" not in station.said and "s3cret" not in station.said
    entries = records(tmp_path / "out")
    parts = [entry["part_id"] for entry in entries if entry["source"] == "door/1"]
    assert sorted(parts) == [f"part {number}" for number in range(5)]
    belt = [entry for entry in entries if entry["source"] == "belt" and "event" not in entry]
    assert [entry["frame_id"] for entry in belt] == list(range(len(belt)))
    used = [entry["threshold"] for entry in belt if entry["threshold"] is not None]
    assert [score for index, score in enumerate(used) if index == 0 or used[index - 1] != score] == [0.3, 0.9, 0.45]
    for entry in belt:
        if entry["status"] == "ok":
            assert entry["verdict"] == ("anomalous" if entry["score"] >= entry["threshold"] else "normal")


def whole_records(folder: Path) -> list[dict[str, Any]]:
    """The records so far; the last line may still be on its way."""
    path = folder / "verdicts.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(one) for one in text[: text.rfind("\n") + 1].splitlines()]
