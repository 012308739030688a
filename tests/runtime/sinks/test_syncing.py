"""Flushes at intervals: a disk that refuses them is said once, whatever is flushed."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_ad.runtime.sinks.jsonl import JsonLines
from edge_ad.runtime.sinks.spool import Spool
from edge_ad.runtime.sinks.sqlite import SqliteRecords
from edge_ad.runtime.sinks.syncing import SyncPolicy

SYNC = SyncPolicy(0.01)


def json_lines(folder: Path, say: Callable[[str], None]) -> tuple[Any, Callable[[Any], None]]:
    sink = JsonLines(folder, sync=SYNC, say=say)
    return sink, sink.event


def spool(folder: Path, say: Callable[[str], None]) -> tuple[Any, Callable[[Any], None]]:
    made = Spool(folder / "spool.sqlite", budget_bytes=1 << 22, sync=SYNC, say=say)
    return made, lambda entry: made.put(str(entry))


def sqlite_records(folder: Path, say: Callable[[str], None]) -> tuple[Any, Callable[[Any], None]]:
    sink = SqliteRecords(folder / "verdicts.sqlite", "run", sync=SYNC, say=say)
    return sink, sink.event


@pytest.mark.parametrize("make", [json_lines, spool, sqlite_records])
def test_a_disk_that_refuses_to_flush_is_said_once_until_it_works_again(
    tmp_path: Path, until: Any, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    said: list[str] = []
    refused: list[int] = []
    works = threading.Event()
    original = os.fsync

    def fsync(file: int) -> None:
        if works.is_set():
            original(file)
            return
        refused.append(file)
        raise OSError(errno.EIO, "Input/output error")

    sink, put = make(tmp_path, said.append)
    with sink:
        monkeypatch.setattr(os, "fsync", fsync)
        for outage in (1, 2):
            works.clear()
            refused.clear()
            put({"event": "no_frame", "source": "camera:0", "monotonic_ns": outage})
            until(lambda: len(refused) > 4)
            assert len(said) == outage
            works.set()
            until(lambda: not sink._flusher.failed)
    assert all("cannot be flushed: Input/output error" in line for line in said)
