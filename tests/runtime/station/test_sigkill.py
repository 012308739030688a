"""`edge-ad run` is killed without a warning, and started again: what was recorded is whole, in every sink."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

BUNDLE = Path(str(resources.files("edge_ad.demo") / "disc.edgead"))
PATIENCE_S = 60
KILLS = 3


def start(line_file: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "edge_ad", "run", "-c", str(line_file)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def wait_for_records(process: subprocess.Popen[bytes], file: Path, count: int, old: int | None) -> None:
    """Wait until a run has written so many records to a file of its own. Args: old: inode of the last run's file."""
    until_s = time.monotonic() + PATIENCE_S
    while not (file.exists() and file.stat().st_ino != old and file.read_bytes().count(b"\n") >= count):
        assert process.poll() is None
        assert time.monotonic() < until_s
        time.sleep(0.005)


def check_records(content: bytes) -> int:
    """Whole lines, and of each camera all numbers from 0 on; only the end of the last line may be missing."""
    *lines, last = content.split(b"\n")
    assert b"}" not in last  # empty, or a line that was cut off
    numbers: dict[str, int] = {}
    for line in lines:
        entry = json.loads(line)
        assert entry["frame_id"] == numbers.get(entry["source"], 0)
        numbers[entry["source"]] = entry["frame_id"] + 1
    return len(lines)


def check_entries(entries: Iterable[Mapping[str, Any]]) -> None:
    """Of each run and camera all numbers from 0 on, each once; and no verdict without a score."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for entry in entries:
        run = entry["key"].split("/")[1]
        numbers.setdefault((run, entry["source"]), []).append(entry["frame_id"])
        assert entry["verdict"] is None or entry["score"] is not None
    for found in numbers.values():
        assert sorted(found) == list(range(len(found)))


def rows(file: Path) -> dict[str, dict[str, Any]]:
    """Records in the database, by their key."""
    if not file.exists():
        return {}
    with closing(sqlite3.connect(file, timeout=PATIENCE_S)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'records'").fetchall():
            return {}
        return {key: json.loads(text) for key, text in db.execute("SELECT key, record FROM records")}


def taken(file: Path) -> int:
    """Records that a spool has taken, ever; it belongs to its run while that lives."""
    with closing(sqlite3.connect(file, timeout=PATIENCE_S)) as db:
        return int(db.execute("SELECT count FROM totals WHERE name = 'taken'").fetchone()[0])


def test_killed_at_any_moment_it_loses_nothing_that_was_recorded(
    tmp_path: Path, broker: Any, subscriber: Any, until: Any
) -> None:
    rng = random.Random(0)
    folder, line_file = tmp_path / "out", tmp_path / "line.yaml"
    file, database, spool = folder / "verdicts.jsonl", folder / "verdicts.sqlite", folder / "spool" / "mqtt.sqlite"
    sources = ["sim:?fps=200&size=64x64", "sim:?fps=100&size=64x64&seed=1"]
    mqtt = {"host": "127.0.0.1", "port": broker.port, "prefix": "line", "reconnect_s": [1, 1], "flush_s": PATIENCE_S}
    sinks = {"sqlite": {}, "mqtt": mqtt}
    cameras = [{"source": source, "buffer": "every_frame"} for source in sources]
    settings = {"bundle": str(BUNDLE), "engine": "fake", "output": str(folder), "cameras": cameras, "sinks": sinks}
    line_file.write_text(yaml.safe_dump(settings))
    earlier: list[bytes] = []
    for number in range(KILLS):
        old = file.stat().st_ino if file.exists() else None
        process = start(line_file)
        try:
            wait_for_records(process, file, rng.randrange(1, 60), old)
            if number == 1:
                broker.stop(signal.SIGTERM)  # what follows waits in the spool of a process that is killed
            time.sleep(rng.uniform(0, 0.1))
            before, in_database, arrived = file.read_bytes(), rows(database), len(subscriber.bodies)
        finally:
            process.kill()
            process.wait(PATIENCE_S)
        content = file.read_bytes()
        assert content.startswith(before)
        assert check_records(content) >= before.count(b"\n") > 0
        kept = rows(database)
        assert all(kept[key] == record for key, record in in_database.items())
        assert taken(spool) >= arrived
        aside = {path: path.read_bytes() for path in folder.glob("verdicts-*.jsonl")}
        assert sorted(aside.values()) == sorted(earlier)  # whole, under another name, and not touched again
        earlier.append(content)
        if number == 1:  # and once before it has written anything
            broker.start()
            process = start(line_file)
            time.sleep(rng.uniform(0, 0.4))
            process.kill()
            process.wait(PATIENCE_S)
            found = [path.read_bytes() for path in folder.glob("verdicts*.jsonl")]
            assert all(content in found for content in earlier)
            earlier += [content for content in found if content not in earlier]

    old = file.stat().st_ino
    process = start(line_file)  # and in the end it is asked to stop
    try:
        wait_for_records(process, file, 20, old)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 130
    finally:
        process.kill()
        process.wait(PATIENCE_S)
    until(lambda: len(subscriber.bodies) >= taken(spool), "what was in the spool does not arrive")
    assert len(subscriber.bodies) == taken(spool)  # all that any run has put there, each under its own key
    kept = rows(database)
    check_entries(subscriber.bodies.values())
    check_entries({"key": key, **record} for key, record in kept.items())
    for key in kept.keys() & subscriber.bodies.keys():
        assert {"key": key, **kept[key]} == subscriber.bodies[key]
    last = [json.loads(line) for line in file.read_text().splitlines()]
    check_records(file.read_bytes())
    (run,) = {key.split("/")[1] for key, record in kept.items() if record == last[0]}
    for by_key in (kept, subscriber.bodies):  # of the run that was stopped nothing is missing anywhere
        assert sum(key.split("/")[1] == run for key in by_key) == len(last)


@pytest.mark.parametrize(
    "damage",
    [
        b'{"frame_id": 0, "source": "a"}\n{"frame_id": 2, "source": "a"}\n',  # a record is missing
        b'{"frame_id": 0, "source": "a"}\n{"frame_id": 0, "source": "a"}\n',  # a record twice
        b'{"frame_id": 0, "sou\n{"frame_id": 1, "source": "a"}\n',  # torn in the middle
    ],
)
def test_control_damage_is_seen(damage: bytes) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check_records(damage)
