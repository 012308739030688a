"""The file of an SQLite sink with its log beside it: making it, opening it, and leaving it to whoever took it away."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from edge_ad.errors import OutputError, one_line
from edge_ad.runtime.host.held import HeldName, Standing
from edge_ad.runtime.sinks import BusyError, free_name
from edge_ad.runtime.sinks.syncing import SyncPolicy

SCHEMA_VERSION = 1
APPLICATION_ID = 0x65644164  # "edAd": tells a database of ours from any other
PAGE_BYTES = 1024  # a transaction writes whole pages, and touches one of every index: a quarter of the usual 4096
LOG_BYTES = 4 << 20  # of the log, from which on it is moved to the file, and which it keeps
OPEN_S, WRITE_S = 5.0, 0.5  # how long somebody else may hold the file before it is an error
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
SIDES = ("-wal", "-shm")


class Database:
    """An open database that knows when somebody takes its file, or its log, from its name.

    Raises: sqlite3.OperationalError when it cannot be opened; any other sqlite3.DatabaseError when it is damaged;
        OutputError when it is not edge-ad's; OSError.

    Attributes:
        connection: in autocommit; for one thread at a time.
    """

    def __init__(self, path: Path, sync: SyncPolicy) -> None:
        self.path = path
        if not path.exists():
            path.touch()  # SQLite takes an empty file for a new one
        before = path.stat()
        self.connection = _connected(path, sync)
        try:
            # Once it is open: some file systems make a copy of a file when it is first opened for writing.
            self._file = HeldName(path)
            self._sides = {side: HeldName(name) for side in SIDES if (name := beside(path, side)).exists()}
            self._bytes = self._file.size_bytes
            if not os.path.samestat(before, path.stat()):
                raise BusyError(f"{path}: is moved while it is opened")
        except BaseException:
            self.connection.close()
            raise

    @property
    def standing(self) -> Standing:
        return self._file.standing

    @property
    def has_its_log(self) -> bool:
        """Whether nobody has taken the log from beside the file."""
        return all(side.standing == "there" for side in self._sides.values())

    @property
    def now_at(self) -> Path | None:
        return self._file.now_at

    @property
    def log_bytes(self) -> int:
        try:
            return beside(self.path, "-wal").stat().st_size
        except OSError:
            return 0

    def check(self) -> None:
        """Look further when the file has become smaller. Raises: sqlite3.DatabaseError when somebody truncated it."""
        before, self._bytes = self._bytes, self._file.size_bytes
        if self._bytes < before:  # as after a VACUUM, too
            with closing(sqlite3.connect(self.path, timeout=OPEN_S)) as fresh:  # which has nothing in memory
                (state,) = fresh.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise sqlite3.DatabaseError(f"somebody has truncated it: {str(state).splitlines()[-1]}")

    def leave(self, *, watched: bool = False) -> None:
        """Put what is in the log into the file, wherever that is now, and close it.

        Args: watched: `standing` and `now_at` go on until `close`.
        """
        moved = self.now_at
        busy, pages, done = 1, 0, 0
        with suppress(sqlite3.Error):
            busy, pages, done = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self.close(keep=True)
        if self.standing != "there":
            for side, held in self._sides.items():
                if held.standing != "there":
                    continue
                # Under the old name it would become the log of the next database of that name.
                with suppress(OSError):
                    if moved is not None and (busy or pages != done):
                        held.path.replace(beside(moved, side))
                    else:
                        held.path.unlink()
        self.close(keep=watched)

    def set_aside(self) -> Path | None:
        """Close the file and give it another name, with its log, which may be in use.

        Returns: the name; None when nobody used the log any more, so that closing put it into the file.

        Raises: OSError.
        """
        self.close()
        if not beside(self.path, "-wal").exists():
            return None
        moved = free_name(self.path)
        for side in SIDES:  # the log has both names until the file has its new one: no crash parts them
            with suppress(OSError):
                os.link(beside(self.path, side), beside(moved, side))
        self.path.rename(moved)
        for side in SIDES:
            old, new = beside(self.path, side), beside(moved, side)
            if new.exists():
                old.unlink(missing_ok=True)
            elif old.exists():
                old.rename(new)
        return moved

    def close(self, *, keep: bool = False) -> None:
        """Args: keep: what the names are held by."""
        with suppress(sqlite3.Error):
            self.connection.close()
        if not keep:
            for held in (self._file, *self._sides.values()):
                held.close()


def beside(path: Path, side: str) -> Path:
    return path.with_name(path.name + side)


def is_damage(exc: sqlite3.DatabaseError) -> bool:
    """Whether it is about the file; other kinds have classes of their own."""
    return type(exc) is sqlite3.DatabaseError


def named(path: Path, what: str, exc: sqlite3.Error) -> OutputError:
    """An error of SQLite in words; whether somebody else only holds the file is in its text up to Python 3.10."""
    is_busy = isinstance(exc, sqlite3.OperationalError) and ("locked" in str(exc) or "busy" in str(exc))
    return (BusyError if is_busy else OutputError)(f"{path}: cannot be {what}: {one_line(exc)}")


def _connected(path: Path, sync: SyncPolicy) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=OPEN_S, isolation_level=None, check_same_thread=False)
    try:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if sync.every_record else 'NORMAL'}")
        (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // page_bytes}")
        db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
            db.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA} {marks} COMMIT;")
        elif db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
            raise OutputError(f"{path}: is a database, but not edge-ad's; choose another path")
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"version {version} of the layout, wanted {SCHEMA_VERSION}")
        db.execute(f"PRAGMA busy_timeout = {round(WRITE_S * 1e3)}")
    except BaseException:
        db.close()
        raise
    return db
