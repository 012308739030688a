"""`edge-ad run` while somebody takes its files away or holds them: noticed at once, said once, gone on with."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from edge_ad.errors import LostRecordsError
from edge_ad.signals.supervisor import EXIT_INTERRUPTED

BUNDLE = Path(str(resources.files("edge_ad.demo") / "disc.edgead"))
PATIENCE_S = 60


class Station:
    """A run in a process of its own, with records, pictures and a database."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.out, self.log = folder / "out", folder / "log"
        sinks = {"sqlite": {}, "pictures": {"save": ["masks"], "quota_mb": 1}, **more}
        cameras = [{"name": "a", "source": "sim:?fps=40&size=64x64"}]
        settings = {"bundle": str(BUNDLE), "engine": "fake", "output": str(self.out), "cameras": cameras}
        settings |= {"sinks": sinks, "http": {"port": 0}}
        (folder / "line.yaml").write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "edge_ad", "run", "-c", str(folder / "line.yaml")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log)
        self.until(lambda: self.records.exists() and self.records.read_bytes().count(b"\n") > 10)

    @property
    def records(self) -> Path:
        return self.out / "verdicts.jsonl"

    @property
    def database(self) -> Path:
        return self.out / "verdicts.sqlite"

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, true: Callable[[], bool]) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not true():
            assert self.process.poll() is None and time.monotonic() < end_s, self.said
            time.sleep(0.02)

    def health(self) -> Any:
        address = re.search(r"listening on (\S+)", self.said)
        assert address is not None
        with urlopen(f"{address[1]}/healthz", timeout=PATIENCE_S) as answer:
            return json.loads(answer.read())

    def stop(self) -> dict[str, tuple[int, int, int]]:
        """Returns: of every sink that lost something, what was written, taken and lost."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        found = re.findall(r"^(\w+): (\d+) of (\d+) written, (\d+) lost", self.said, re.MULTILINE)
        counts = {name: (int(delivered), int(taken), int(lost)) for name, delivered, taken, lost in found}
        has_lost = any(lost for _, _, lost in counts.values())
        assert code == (LostRecordsError.exit_code if has_lost else EXIT_INTERRUPTED), self.said
        return counts


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path)
    yield station
    station.process.kill()
    station.process.wait(PATIENCE_S)


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM records").fetchone()[0])


def test_the_folder_is_deleted(station: Station) -> None:
    station.until(lambda: station.database.exists() and rows(station.database) > 0)
    while station.out.exists():
        shutil.rmtree(station.out, ignore_errors=True)
    station.until(lambda: station.records.exists() and station.database.exists() and (station.out / "masks").exists())
    station.until(lambda: station.records.stat().st_size > 3000 and bool(list((station.out / "masks").iterdir())))
    counts = station.stop()
    lines = station.records.read_bytes().splitlines()
    assert [json.loads(line)["frame_id"] for line in lines][-1] + 1 == counts["JsonLines"][1]
    assert counts["JsonLines"][0] == len(lines) and counts["JsonLines"][2] > 0
    assert counts["SqliteRecords"][0] == rows(station.database) and counts["SqliteRecords"][2] > 0
    assert station.said.count("verdicts.jsonl: somebody has removed or replaced it") in (1, 2)  # as rmtree goes along
    assert "Traceback" not in station.said


def test_a_log_rotation_loses_nothing(station: Station) -> None:
    """Moved, and a new file put in its place with the rights of another; then copied and truncated."""
    moved = station.out / "verdicts.jsonl.1"
    station.records.rename(moved)
    station.records.touch(mode=0o640)
    station.until(lambda: station.records.stat().st_size > 3000)
    copy = station.out / "verdicts.jsonl.2"
    shutil.copyfile(station.records, copy)
    os.truncate(station.records, 0)
    station.until(lambda: station.records.stat().st_size > 3000)
    counts = station.stop().get("JsonLines")
    numbers = [
        json.loads(line)["frame_id"]
        for path in (moved, copy, station.records)
        for line in path.read_bytes().splitlines()
    ]
    missing = set(range(numbers[-1] + 1)) - set(numbers)  # what came between copy and truncation
    assert numbers == sorted(set(numbers)) and len(missing) <= 2
    assert counts is None if not missing else counts == (len(numbers), len(numbers) + len(missing), len(missing))


def test_a_database_that_is_held_for_three_seconds_loses_nothing(station: Station) -> None:
    station.until(lambda: station.database.exists() and rows(station.database) > 0)
    with closing(sqlite3.connect(station.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        held_s = time.monotonic()
        station.until(lambda: "database is locked" in station.said)
        noticed_s = time.monotonic() - held_s
        assert station.health() == {"status": "ok", "reasons": [], "warnings": ["sink SqliteRecords is in trouble"]}
        time.sleep(max(0.0, 3.0 - noticed_s))
        other.execute("ROLLBACK")
    station.until(lambda: "SqliteRecords writes again; 0 of its records are lost" in station.said)
    assert station.health() == {"status": "ok", "reasons": []}
    delivered, taken, lost = station.stop()["SqliteRecords"]
    assert (delivered, lost) == (taken, 0) and rows(station.database) == taken
    assert station.said.count("locked") == 1
