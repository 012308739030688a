"""The database of records: complete, readable while it is written, and careful with files that are not its own."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_ad.errors import OutputError
from edge_ad.runtime.sinks.sqlite import SqliteRecords
from edge_ad.runtime.sinks.syncing import SyncPolicy

Write = Callable[..., None]


def _rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


@pytest.mark.parametrize("sync", [SyncPolicy(None), SyncPolicy(0.02), SyncPolicy(0)])
def test_each_record_is_a_row_that_others_can_read_at_once(tmp_path: Path, write: Write, sync: SyncPolicy) -> None:
    path = tmp_path / "new" / "v.sqlite"
    with SqliteRecords(path, "run", sync=sync) as sink:
        for number in range(20):
            write(sink, number, score=number / 20)
            assert _rows(path, "SELECT count(*) FROM records") == [(number + 1,)]
        sink.event({"event": "no_frame", "source": "camera:0", "at": "2026-01-01T00:00:00Z", "monotonic_ns": 3})
    rejects = _rows(path, "SELECT frame_id, score, status FROM records WHERE verdict = 'anomalous' ORDER BY frame_id")
    assert rejects == [(number, number / 20, "ok") for number in range(10, 20)]
    (text,) = _rows(path, "SELECT record FROM records WHERE frame_id = 7")[0]
    assert json.loads(text)["frame_id"] == 7
    assert _rows(path, "SELECT event, source FROM events") == [("no_frame", "camera:0")]
    assert _rows(path, "PRAGMA user_version") == [(1,)]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("captured_at > '2026'", "records_by_time"),
        ("source = 'a' AND captured_at > '2026'", "records_by_source"),
        ("verdict = 'anomalous' AND captured_at > '2026'", "records_by_verdict"),
    ],
)
def test_the_usual_questions_use_an_index(tmp_path: Path, query: str, index: str) -> None:
    with SqliteRecords(tmp_path / "v.sqlite", "run"):
        plan = _rows(tmp_path / "v.sqlite", f"EXPLAIN QUERY PLAN SELECT frame_id FROM records WHERE {query}")
    assert index in plan[0][3]


def test_a_record_that_is_written_twice_is_one_row(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "v.sqlite"
    for run in ("a", "b"):
        with SqliteRecords(path, run) as sink:
            for number in (0, 1, 1, 0):
                write(sink, number)
    assert _rows(path, "SELECT run, frame_id FROM records ORDER BY id") == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_text_that_is_no_utf8_is_stored(tmp_path: Path, write: Write) -> None:
    with SqliteRecords(tmp_path / "v.sqlite", "run") as sink:
        write(sink, 0, source="line\udcff")
    ((source, text),) = _rows(tmp_path / "v.sqlite", "SELECT source, record FROM records")
    assert source == "line\\udcff"
    assert json.loads(text)["source"] == "line\udcff"


def test_old_rows_go(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "v.sqlite"
    with SqliteRecords(path, "run") as sink:
        for number in range(500):
            write(sink, number)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE records SET captured_at = '2020-01-01T00:00:00.000Z' WHERE frame_id < 300")
    with SqliteRecords(path, "run", keep_days=30) as sink:
        for number in range(500, 503):
            write(sink, number)
    assert _rows(path, "SELECT min(frame_id), count(*) FROM records") == [(300, 203)]


def test_a_locked_database_is_an_error_and_the_record_comes_with_the_next_attempt(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "v.sqlite"
    with SqliteRecords(path, "run") as sink, closing(sqlite3.connect(path)) as other:
        assert sink._db is not None
        sink._db.connection.execute("PRAGMA busy_timeout = 10")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutputError, match="locked"):
            write(sink, 0)
        other.rollback()
        write(sink, 0)
    assert _rows(path, "SELECT frame_id FROM records") == [(0,)]


def test_a_damaged_database_is_set_aside_and_another_ones_left_alone(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "v.sqlite"
    path.write_bytes(b"x" * 5000)
    said: list[str] = []
    with SqliteRecords(path, "run", say=said.append) as sink:
        write(sink, 0)
    assert "not a database" in said[0]
    (aside,) = tmp_path.glob("v-*.sqlite")
    assert aside.read_bytes() == b"x" * 5000
    assert _rows(path, "SELECT frame_id FROM records") == [(0,)]
    with closing(sqlite3.connect(tmp_path / "erp.sqlite")) as db, db:
        db.execute("CREATE TABLE orders(id)")
    with pytest.raises(OutputError, match="not edge-ad's"):
        SqliteRecords(tmp_path / "erp.sqlite", "run").__enter__()
    assert _rows(tmp_path / "erp.sqlite", "SELECT count(*) FROM orders") == [(0,)]


def test_a_database_that_breaks_during_a_run_costs_an_attempt_and_no_record(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "v.sqlite"
    said: list[str] = []
    with SqliteRecords(path, "run", say=said.append) as sink:
        for number in range(200):
            write(sink, number)
        assert sink._db is not None
        sink._db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.write(b"\0" * 50_000)
        written = []
        for number in range(200, 210):
            for _ in range(3):
                try:
                    write(sink, number)
                    written.append(number)
                    break
                except OutputError:
                    continue
    assert written == list(range(200, 210))


WRITER = """
import sys
from pathlib import Path
from edge_ad.runtime.sinks.sqlite import SqliteRecords
with SqliteRecords(Path(sys.argv[1]), "run") as sink:
    for number in range(1 << 40):
        sink.write_many([dict(
            captured_at="2026", source="a", frame_id=number, status="ok", bundle="b", captured_monotonic_ns=number)])
        print(number, flush=True)
"""


def test_a_kill_loses_no_row_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(200):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    last = int((["199", *process.stdout.read().split("\n")[:-1]])[-1])
    process.stdout.close()
    process.wait(20)
    numbers = [number for (number,) in _rows(path, "SELECT frame_id FROM records ORDER BY id")]
    assert numbers == list(range(len(numbers)))
    assert numbers[-1] in (last, last + 1)
