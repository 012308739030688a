"""Somebody removes, moves, replaces, truncates, locks or keeps reading the database under the line."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import OutputError
from edge_ad.runtime.sinks import BusyError
from edge_ad.runtime.sinks import sqlite as sqlite_module
from edge_ad.runtime.sinks.sqlite import SqliteRecords
from edge_ad.runtime.sinks.sqlite_file import LOG_BYTES, SIDES, beside


def entry(number: int, **more: Any) -> dict[str, Any]:
    at = "2026-01-01T00:00:00.000Z"
    return {
        "frame_id": number,
        "source": "a",
        "captured_at": at,
        "captured_monotonic_ns": number + 1,
        "status": "ok",
        "bundle": "b" * 64,
        **more,
    }


def put(sink: SqliteRecords, *numbers: int) -> None:
    sink.write_many([entry(number) for number in numbers])


def found(*paths: Path) -> list[int]:
    numbers = []
    for path in paths:
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'records'").fetchall():  # else moved half-made
                numbers += [number for (number,) in db.execute("SELECT frame_id FROM records ORDER BY id")]
    return numbers


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "v.sqlite"


@pytest.fixture
def sink(path: Path, said: list[str]) -> Iterator[SqliteRecords]:
    with SqliteRecords(path, "run", say=said.append) as sink:
        put(sink, 0, 1, 2)
        yield sink


def test_several_records_and_events_are_one_transaction(sink: SqliteRecords, path: Path) -> None:
    sink.write_many([entry(3), {"event": "no_frame", "source": "a"}, entry(4)])
    assert found(path) == [0, 1, 2, 3, 4]
    with pytest.raises(OutputError, match="NOT NULL"):
        sink.write_many([entry(5), entry(6, status=None)])
    put(sink, 7)
    assert found(path) == [0, 1, 2, 3, 4, 7]


@pytest.mark.parametrize("what", ["file", "all of it", "folder"])
def test_a_database_that_is_removed_is_begun_anew_and_what_was_in_it_is_gone(
    sink: SqliteRecords, path: Path, said: list[str], what: str
) -> None:
    if what == "folder":
        shutil.rmtree(path.parent)
    else:
        for one in [path, *(beside(path, side) for side in SIDES)][: 1 if what == "file" else 3]:
            one.unlink()
    put(sink, 3)
    put(sink, 4, 5)
    assert found(path) == [3, 4, 5]
    assert (sink.written_off()["gone"], sink.written_off()["gone"]) == (3, 0)
    assert len(said) == 1 and "records lost: 3; a new one is begun" in said[0]


def test_it_is_noticed_without_a_record(sink: SqliteRecords, path: Path, said: list[str]) -> None:
    sink.look()
    assert said == []
    path.unlink()
    sink.look()
    assert (found(path), sink.written_off()["gone"], len(said)) == ([], 3, 1)


@pytest.mark.parametrize("reader", [False, True])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_moved_keeps_its_rows(
    sink: SqliteRecords, path: Path, tmp_path: Path, said: list[str], what: str, reader: bool
) -> None:
    """Those in its log, too, though somebody who reads keeps that from being moved to the file."""
    moved = tmp_path / "moved.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        if reader:
            other.execute("BEGIN")
            other.execute("SELECT * FROM records").fetchone()
            put(sink, 3)
        if what == "file":
            path.rename(moved)
        else:
            path.parent.rename(tmp_path / "elsewhere")
            moved = tmp_path / "elsewhere" / path.name
        put(sink, 4)
        put(sink, 5)
    assert found(moved, path) == [0, 1, 2, *([3] if reader else []), 4, 5]
    assert sink.written_off()["gone"] == 0
    assert said == [f"{path}: somebody has moved it to {moved}; a new one is begun"]


def test_what_is_moved_after_its_log_keeps_its_rows(
    sink: SqliteRecords, path: Path, tmp_path: Path, said: list[str]
) -> None:
    """As by `mv v.sqlite*`, looked at in between."""
    moved = tmp_path / "moved.sqlite"
    for side in SIDES:
        beside(path, side).rename(beside(moved, side))
    put(sink, 3)
    path.rename(moved)
    put(sink, 4)
    put(sink, 5)
    assert found(moved, path) == [0, 1, 2, 3, 4, 5]
    assert sink.written_off()["gone"] == 0
    assert said[1:] == [f"{path}: somebody has moved it to {moved}; a new one is begun"]


def test_a_copy_in_its_place_is_gone_on_with(sink: SqliteRecords, path: Path, tmp_path: Path) -> None:
    """As when an older state is restored; the log of the one before does not get into it."""
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(tmp_path / "copy")) as copy:
        db.backup(copy)
    put(sink, 3, 4)
    (tmp_path / "copy").replace(path)
    put(sink, 5)
    put(sink, 6)
    assert found(path) == [0, 1, 2, 6] or found(path) == [0, 1, 2, 5, 6]
    assert 7 - sink.written_off()["gone"] <= len(found(path))


def test_another_ones_database_in_its_place_is_left_alone(sink: SqliteRecords, path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "erp")) as db, db:
        db.execute("CREATE TABLE orders(id)")
    (tmp_path / "erp").replace(path)
    for _ in range(2):
        with pytest.raises(OutputError, match="not edge-ad's"):
            put(sink, 3)
    path.unlink()
    put(sink, 3)
    assert (found(path), sink.written_off()["gone"]) == ([3], 3)


@pytest.mark.parametrize("side", SIDES)
def test_a_log_that_is_removed_costs_no_row(sink: SqliteRecords, path: Path, said: list[str], side: str) -> None:
    beside(path, side).unlink()
    put(sink, 3)
    put(sink, 4)
    assert found(path) == [0, 1, 2, 3, 4]
    assert sink.written_off()["gone"] == 0
    assert said == [f"warning: {path}: somebody has removed its log; it is written again"]


def test_a_database_that_is_truncated_is_set_aside_and_its_rows_are_gone(
    sink: SqliteRecords, path: Path, said: list[str]
) -> None:
    put(sink, *range(3, 200))
    assert sink._db is not None
    sink._db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sink.look()  # knows the size
    os.truncate(path, 2048)
    written = 200
    for number in range(200, 210):
        for _ in range(4):
            try:
                put(sink, number)
                written += 1
                break
            except OutputError:
                continue
    assert written == 210
    rows = found(path)
    assert rows[-1] == 209 and len(rows) == written - sink.written_off()["gone"] < 20
    assert len(said) == 1 and "it is kept as" in said[0]


def test_what_somebody_else_holds_is_another_error_than_what_is_broken(sink: SqliteRecords, path: Path) -> None:
    assert sink._db is not None
    sink._db.connection.execute("PRAGMA busy_timeout = 10")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(BusyError, match="locked"):
                put(sink, 3, 4)
        other.execute("ROLLBACK")
        put(sink, 3, 4)
    assert (found(path), sink.written_off()["gone"]) == ([0, 1, 2, 3, 4], 0)


READER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN")
print(db.execute("SELECT count(*) FROM records").fetchone()[0], flush=True)
for line in sys.stdin:
    print(db.execute("SELECT count(*) FROM records").fetchone()[0], flush=True)
"""


@pytest.fixture
def reader(path: Path, sink: SqliteRecords) -> Iterator[Callable[[], int]]:
    """Another process that reads without an end, and says how much it sees."""
    process = subprocess.Popen(
        [sys.executable, "-c", READER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout
    assert stdout.readline() == "3\n"

    def look() -> int:
        stdin.write("\n")
        stdin.flush()
        return int(stdout.readline())

    yield look
    stdin.close()
    stdout.close()
    process.wait(20)


def test_a_log_that_grows_beside_a_reader_is_said_and_bounded(
    sink: SqliteRecords, path: Path, said: list[str], reader: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "MANY_LOG_BYTES", 200_000)
    monkeypatch.setattr(sqlite_module, "MOST_LOG_BYTES", 600_000)
    largest, total = 0, 3
    for number in range(3, 1000):
        put(sink, number)
        total += 1
        if said and sink.trouble is None:
            pytest.fail("the log grows, and that is no trouble")
        if len(said) == 2:
            break
        largest = max(largest, beside(path, "-wal").stat().st_size)
    assert 500_000 < largest < 700_000
    assert "its log has grown to 0 MiB, because somebody has been reading there all the time" in said[0]
    (aside,) = path.parent.glob("v-*.sqlite")
    assert said[1] == f"warning: {path}: its rows stay in {aside.name}, where somebody reads them"
    assert reader() == 3  # what it sees does not change under it
    put(sink, *range(total, total + 50))
    assert said[2:] == [f"{path}: its log has become small again"] and sink.trouble is None
    assert found(aside, path) == list(range(total + 50))
    assert sink.written_off()["gone"] == 0
    assert reader() == 3


@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_kill_while_it_is_set_aside_loses_no_row(tmp_path: Path, is_renamed: bool) -> None:
    path, aside = tmp_path / "v.sqlite", tmp_path / "v-20260101T000000Z.sqlite"
    with closing(sqlite3.connect(tmp_path / "other")), SqliteRecords(path, "run") as sink:
        put(sink, *range(20))
        copies = {side: beside(path, side).read_bytes() for side in ("", *SIDES)}  # as a kill leaves them
    for side, content in copies.items():
        beside(path, side).write_bytes(content)
    for side in SIDES:
        os.link(beside(path, side), beside(aside, side))
    if is_renamed:
        path.rename(aside)
    with SqliteRecords(path, "next") as sink:
        put(sink, 20)
    assert found(*([aside] if is_renamed else []), path) == list(range(21))


def test_what_cannot_be_set_aside_is_gone_on_with(
    sink: SqliteRecords, path: Path, said: list[str], reader: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sqlite_module, "MANY_LOG_BYTES", 50_000)
    monkeypatch.setattr(sqlite_module, "MOST_LOG_BYTES", 100_000)
    monkeypatch.setattr(Path, "rename", fail)
    for number in range(3, 100):
        put(sink, number)
    assert found(path) == list(range(100))
    assert said[1] == f"warning: {path}: cannot be set aside: Permission denied"
    assert len(said) == 7  # six times a minute


def test_the_log_becomes_small_again_when_the_reader_has_gone(sink: SqliteRecords, path: Path, said: list[str]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM records").fetchone()
        number = 3
        while beside(path, "-wal").stat().st_size < 2 * LOG_BYTES:
            sink.write_many([entry(number + more, pad="x" * 20_000) for more in range(32)])
            number += 32
    put(sink, number)
    put(sink, number + 1)
    assert beside(path, "-wal").stat().st_size <= LOG_BYTES
    assert (len(found(path)), said) == (number + 2, [])


def test_one_record_alone_writes_less_than_half_of_what_it_did(tmp_path: Path) -> None:
    """29 kB were written for a record of 1.1 kB; with others in its transaction it is a fifth of that."""

    def written() -> int:
        return int(Path("/proc/self/io").read_text().split("wchar:")[1].split()[0])

    if not Path("/proc/self/io").exists():
        pytest.skip("the system does not say how much is written")
    with SqliteRecords(tmp_path / "v.sqlite", "run") as sink:
        costs = {}
        for many, begin in ((1, 0), (16, 3000)):
            before = written()
            for number in range(begin, begin + 3000, many):
                numbers = range(number, min(number + many, begin + 3000))
                sink.write_many([entry(one, source=f"camera:{one % 4}", pad="x" * 700) for one in numbers])
            costs[many] = (written() - before) / 3000
    assert costs[1] < 14_500 and costs[16] < 6_000


ACTS: list[Callable[[Path, Path], None]] = [
    lambda path, aside: path.unlink(missing_ok=True),
    lambda path, aside: path.rename(aside),
    lambda path, aside: beside(path, "-wal").unlink(missing_ok=True),
    lambda path, aside: shutil.rmtree(path.parent),
]


@settings(max_examples=20, deadline=None)
@given(steps=st.lists(st.integers(0, 9), max_size=15))
def test_what_is_delivered_is_found(steps: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    top = tmp_path_factory.mktemp("away")
    path = top / "out" / "v.sqlite"
    with SqliteRecords(path, "run") as sink:
        written = 0
        for number, step in enumerate(steps):
            if step < len(ACTS):
                ACTS[step](path, top / f"aside-{number}.sqlite")
                sink.look()
            else:
                put(sink, 2 * number, 2 * number + 1)
                written += 2
        gone = sink.written_off()["gone"]
    numbers = found(*top.glob("aside-*.sqlite"), *path.parent.glob("v*.sqlite"))
    assert len(numbers) == len(set(numbers)) == written - gone


@pytest.mark.parametrize("act", [0, 1])
def test_somebody_else_at_any_moment(tmp_path: Path, act: int) -> None:
    path, over = tmp_path / "out" / "v.sqlite", threading.Event()
    rng = random.Random(act)

    def disturb() -> None:
        for number in range(12):
            over.wait(rng.random() / 20)
            try:
                ACTS[act](path, tmp_path / f"aside-{number}.sqlite")
            except OSError:
                continue
        over.set()

    other = threading.Thread(target=disturb)
    with SqliteRecords(path, "run") as sink:
        other.start()
        written = 0
        while not over.is_set():
            number, written = written, written + 1
            while True:
                try:
                    put(sink, number)
                    break
                except OutputError:  # the queue tries again
                    continue
        other.join()
        sink.look()
        gone = sink.written_off()["gone"]
    numbers = found(*tmp_path.glob("aside-*.sqlite"), path)
    assert len(set(numbers)) == written - gone
    assert gone > 0 if act == 0 else gone == 0
