"""Records in an SQLite database, for queries at the station."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_ad.errors import OutputError, one_line, os_reason
from edge_ad.image.frame import Frame
from edge_ad.record.timestamps import utc_text
from edge_ad.record.verdict import Verdict, record_line
from edge_ad.runtime.sinks import output_folder, set_aside
from edge_ad.runtime.sinks.naming import idempotency_key
from edge_ad.runtime.sinks.syncing import Flusher, SyncPolicy, flush_log

SCHEMA_VERSION = 1
APPLICATION_ID = 0x65644164  # "edAd": tells a database of ours from any other
EXPIRED = 200  # records that go at once, when one comes
_SCHEMA = """
CREATE TABLE records(
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, captured_at TEXT NOT NULL, source TEXT NOT NULL,
    frame_id INTEGER NOT NULL, status TEXT NOT NULL, verdict TEXT, score REAL, threshold REAL, part_id TEXT,
    bundle TEXT NOT NULL, run TEXT NOT NULL, record TEXT NOT NULL
);
CREATE INDEX records_by_time ON records(captured_at);
CREATE INDEX records_by_source ON records(source, captured_at);
CREATE INDEX records_by_verdict ON records(verdict, captured_at);
CREATE TABLE events(
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, at TEXT, source TEXT, event TEXT NOT NULL,
    run TEXT NOT NULL, record TEXT NOT NULL
);
CREATE INDEX events_by_time ON events(at);
"""
_RECORD = ("captured_at", "source", "frame_id", "status", "verdict", "score", "threshold", "part_id", "bundle")
_EVENT = ("at", "source", "event")


class SqliteRecords:
    """One row for each frame, in a transaction of its own: what counts as written is in the database.

    Others may read while it is written (WAL). A database that is damaged, or of a later edge-ad, is set aside under a
    name with its date.

    Args:
        path: the database; rows of earlier runs stay in it.
        run_id: of this run.
        keep_days: rows older than that are deleted, a few with each new one; None keeps all.
        sync: guard against power cuts.
        say: receives what the user should know.
    """

    keeps_records = True

    def __init__(
        self,
        path: Path,
        run_id: str,
        *,
        keep_days: float | None = None,
        sync: SyncPolicy | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = path
        self._run_id = run_id
        self._keep_days = keep_days
        self._sync = sync or SyncPolicy()
        self._say = say
        self._db: sqlite3.Connection | None = None
        flush = partial(flush_log, path)
        self._flusher = Flusher(self._sync.interval_s, flush, path, say, "edge-ad-sqlite-sync")

    def __enter__(self) -> SqliteRecords:
        """Raises: OutputError."""
        output_folder(self.path.parent)
        self._open()
        self._flusher.__enter__()
        return self

    def _open(self) -> sqlite3.Connection:
        try:
            try:
                self._db = _open(self.path, self._sync)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as exc:
                moved = set_aside(self.path)
                for side in ("-wal", "-shm"):
                    if moved is not None and (log := self.path.with_name(self.path.name + side)).exists():
                        log.replace(moved.with_name(moved.name + side))
                self._say(f"warning: {self.path}: {one_line(exc)}; it is kept as {moved}, and a new one is written")
                self._db = _open(self.path, self._sync)
        except sqlite3.Error as exc:
            raise OutputError(f"{self.path}: cannot be opened: {one_line(exc)}") from exc
        except OSError as exc:
            raise OutputError(f"{self.path}: cannot be opened: {os_reason(exc)}") from exc
        return self._db

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self._insert("records", _RECORD, entry)

    def event(self, entry: Mapping[str, Any]) -> None:
        """Raises: OutputError."""
        self._insert("events", _EVENT, entry)

    def _insert(self, table: str, columns: tuple[str, ...], entry: Mapping[str, Any]) -> None:
        values = [idempotency_key(entry, self._run_id), self._run_id, record_line(entry)]
        values += [_storable(entry.get(column)) for column in columns]
        names = ", ".join(("key", "run", "record", *columns))
        # Ignored is a row that is there: of an attempt that failed after it had been written.
        insert = f"INSERT OR IGNORE INTO {table}({names}) VALUES ({', '.join('?' * len(values))})"
        db = self._db or self._open()
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                db.execute(insert, values)
                self._expire(db)
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as exc:
            if not isinstance(exc, sqlite3.OperationalError):  # damaged: the next attempt sets it aside
                db.close()
                self._db = None
            raise OutputError(f"{self.path}: cannot be written: {one_line(exc)}") from exc

    def _expire(self, db: sqlite3.Connection) -> None:
        if self._keep_days is None:
            return
        oldest = datetime.now(timezone.utc) - timedelta(days=self._keep_days)
        for table, column in (("records", "captured_at"), ("events", "at")):
            old = f"SELECT id FROM {table} WHERE {column} < ? ORDER BY {column} LIMIT {EXPIRED}"
            db.execute(f"DELETE FROM {table} WHERE id IN ({old})", (utc_text(oldest),))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._flusher.__exit__(None, None, None)
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def _open(path: Path, sync: SyncPolicy) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if sync.every_record else 'NORMAL'}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
            db.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA} {marks} COMMIT;")
        elif db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
            raise OutputError(f"{path}: is a database, but not edge-ad's; choose another path")
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"version {version} of the layout, wanted {SCHEMA_VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def _storable(value: Any) -> Any:
    """Text that is no UTF-8, as in file names, cannot be stored as it is."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
