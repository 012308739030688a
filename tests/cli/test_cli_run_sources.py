"""`edge-ad run` on sources that end, arrive, break off and come back, as a user types it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from edge_ad.cli.main import main
from edge_ad.record.verdict import record_schema
from edge_ad.runtime.sources.backoff import Backoff
from edge_ad.runtime.sources.settings import SourceSettings
from edge_ad.runtime.station.file import run_options

Capture = pytest.CaptureFixture[str]
VALIDATOR = jsonschema.Draft202012Validator(record_schema())
FRAMES = 3  # that the camera gives before it breaks off


@pytest.fixture
def base(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(Backoff, "next_s", lambda self: 0.01)
    return ["run", str(tiny_bundle), "--engine", "fake", "--engine-cache", str(tmp_path / "cache")]


def lines(text: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records and events of a run."""
    entries = [json.loads(line) for line in text.splitlines()]
    for entry in entries:
        VALIDATOR.validate(entry)
    return [entry for entry in entries if "event" not in entry], [entry for entry in entries if "event" in entry]


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


class _Camera(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for _ in range(FRAMES):
            jpeg = bytes(cv2.imencode(".jpg", noise(time.monotonic_ns() % 2**32))[1])
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def camera() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Camera) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://user:hunter2@127.0.0.1:{httpd.server_address[1]}/live.mjpg?token=hunter2"
        httpd.shutdown()
        thread.join()


def test_a_camera_that_breaks_off_is_opened_again(base: list[str], camera: str, capsys: Capture) -> None:
    count = 2 * FRAMES + 2
    assert main([*base, "--source", camera, "--max-frames", str(count), "--buffer", "every-frame"]) == 0
    captured = capsys.readouterr()
    records, events = lines(captured.out)
    assert [record["frame_id"] for record in records] == list(range(count))
    assert [event["event"] for event in events] == ["disconnected", "reconnected"] * 2
    assert "was lost: 2 times, 0 of them by the watchdog" in captured.err
    assert "hunter2" not in captured.out + captured.err


@pytest.mark.parametrize("reconnect", ["never", "0"])
def test_a_camera_that_is_not_to_be_opened_again(base: list[str], camera: str, capsys: Capture, reconnect: str) -> None:
    assert main([*base, "--source", camera, "--buffer", "every-frame", "--reconnect", reconnect]) == 7
    captured = capsys.readouterr()
    records, events = lines(captured.out)
    assert (len(records), [event["cause"] for event in events]) == (FRAMES, ["lost"])
    assert f"after {FRAMES} frame(s)" in captured.err


def test_a_camera_that_is_absent_has_its_exit_code_or_is_waited_for_as_long_as_allowed(
    base: list[str], capsys: Capture
) -> None:
    absent = ["--source", "http://127.0.0.1:9/live"]
    assert main([*base, *absent]) == 7
    assert lines(capsys.readouterr().out) == ([], [])
    assert main([*base, *absent, "--wait-for-source", "--reconnect", "0.1"]) == 7
    captured = capsys.readouterr()
    records, events = lines(captured.out)
    assert records == [] and [event["cause"] for event in events] == ["absent"]
    assert "away for 0.1 s" in captured.err


def test_a_video_in_a_loop(base: list[str], tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (64, 64))
    for seed in range(3):
        writer.write(noise(seed))
    writer.release()
    assert main([*base, "--source", str(path), "--loop", "--max-frames", "8"]) == 0
    captured = capsys.readouterr()
    records, _ = lines(captured.out)
    assert [record["frame_id"] for record in records] == list(range(8))
    scores = [record["score"] for record in records]
    assert scores[:3] == scores[3:6] and scores[6:] == scores[:2] and len(set(scores)) == 3
    assert "damaged" not in captured.err


def test_a_watched_folder(base: list[str], tmp_path: Path, capsys: Capture) -> None:
    """The second picture is half there at first; the third comes when the second is through."""
    folder = tmp_path / "in"
    folder.mkdir()
    encoded = [bytes(cv2.imencode(".png", noise(seed))[1]) for seed in range(3)]
    (folder / "b.png").write_bytes(encoded[0])
    (folder / "c.png").write_bytes(encoded[1][:2000])

    def arrive() -> None:
        time.sleep(0.6)
        (folder / "c.png").write_bytes(encoded[1])
        time.sleep(0.6)
        (folder / "a.png").write_bytes(encoded[2])

    station = threading.Thread(target=arrive)
    station.start()
    code = main([*base, "--source", str(folder), "--watch", "--max-frames", "3"])
    station.join()
    assert code == 0
    records, events = lines(capsys.readouterr().out)
    assert [Path(record["path"]).name for record in records] == ["b.png", "c.png", "a.png"]
    assert [record["status"] for record in records] == ["ok"] * 3 and events == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--source", "camera:0", "--loop"], 7, "only videos and pictures can begin again"),
        (["--source", "camera:0", "--watch"], 7, "wanted a folder to watch"),
        (["--source", ".", "--watch", "--loop"], 3, "loop: a watched folder has no end"),
        (["--source", "camera:0", "--reconnect", "soon"], 3, "reconnect_s"),
        (["--source", "camera:0", "--reconnect", "-1"], 3, "reconnect_s"),
        (["--source", "camera:0", "--watchdog", "0"], 3, "watchdog_s"),
        (["--source", "camera:0", "--wait-for-source", "--reconnect", "never"], 3, "wait_for_source"),
        (["--source", "nowhere/at/all", "--watch"], 7, "nowhere/at/all does not exist"),
        (["--source", "csi://0?size=9"], 7, "unknown key 'size'"),
        (["--source", "genicam:1?x=9"], 7, "unknown key 'x'"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    base: list[str], capsys: Capture, arguments: list[str], code: int, words: str
) -> None:
    assert main([*base, *arguments]) == code
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1 and captured.out == ""


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, SourceSettings()),
        ({"reconnect_s": "forever", "watchdog_s": "never"}, SourceSettings(reconnect_s=None, watchdog_s=None)),
        ({"reconnect_s": "never"}, SourceSettings(reconnect_s=0)),
        ({"reconnect_s": "90", "watchdog_s": "2.5"}, SourceSettings(reconnect_s=90, watchdog_s=2.5)),
        ({"loop": True}, SourceSettings(loop=True)),
        ({"watch": True, "wait_for_source": True}, SourceSettings(watch=True, wait_for_source=True)),
    ],
)
def test_options_become_settings_of_the_sources(given: dict[str, Any], wanted: SourceSettings) -> None:
    (camera,) = run_options({"bundle": "b", "source": ["camera:0"], **given}, "test").cameras
    assert {field.name: getattr(camera, field.name) for field in fields(SourceSettings)} == asdict(wanted)
