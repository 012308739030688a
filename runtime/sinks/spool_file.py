"""The SQLite file of a spool: making it, opening it, and saving what can be read of a damaged one."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

PAGE_BYTES = 4096
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE lines(id INTEGER PRIMARY KEY AUTOINCREMENT, line BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE aside(id INTEGER PRIMARY KEY, line BLOB NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL);
CREATE TABLE totals(name TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO totals VALUES ('taken', 0), ('delivered', 0), ('lost', 0);
"""
_SIDES = ("-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Salvaged:
    """What could be read of a damaged file.

    Attributes:
        rows: number and bytes of intact lines, oldest first.
        totals: lifetime counts; empty when they are unreadable.
        kept_as: where the damaged file is now.
    """

    rows: list[tuple[int, bytes]]
    totals: Mapping[str, int] = field(default_factory=dict)
    kept_as: Path = Path()


def open_file(path: Path, *, wal_pages: int, every_record: bool) -> sqlite3.Connection:
    """Open a spool, or make it where there is none.

    Args:
        wal_pages: pages in the write-ahead log from which on they are moved to the file.
        every_record: flush to the device with every transaction.

    Raises: sqlite3.OperationalError when it cannot be opened, or is another process's; any other sqlite3.DatabaseError
        when it is damaged, or no spool.
    """
    # Autocommit: transactions are begun and ended by name. Threads take turns under the lock of the spool.
    db = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if every_record else 'NORMAL'}")
        db.execute(f"PRAGMA wal_autocheckpoint = {wal_pages}")
        db.execute(f"PRAGMA journal_size_limit = {wal_pages * PAGE_BYTES}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            db.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"version {version} of its layout, wanted {SCHEMA_VERSION}")
        else:
            (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise sqlite3.DatabaseError(str(state).splitlines()[-1])
            counts = dict(db.execute("SELECT name, count FROM totals"))
            if set(counts) != {"taken", "delivered", "lost"}:
                raise sqlite3.DatabaseError("its counts are missing")
        db.execute("BEGIN EXCLUSIVE")
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def is_intact(data: object, crc: object) -> bool:
    """Whether the bytes of a line are those that were stored."""
    return isinstance(data, bytes) and zlib.crc32(data) == crc


def salvage(path: Path) -> Salvaged:
    """Read what can be read of a damaged file, and move it aside, in place of one that lies there. Raises: OSError."""
    rows: dict[int, bytes] = {}
    totals: dict[str, int] = {}
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=1.0)) as db:
        db.text_factory = bytes
        for order in ("ASC", "DESC"):  # up to the damage from both ends
            with suppress(sqlite3.Error, TypeError, OverflowError):
                found = db.execute(f"SELECT id, line, crc FROM lines ORDER BY id {order}")
                # Not a comprehension: what comes before the damage counts.
                for number, data, crc in found:
                    if isinstance(number, int) and is_intact(data, crc):
                        rows[number] = data  # noqa: PERF403
        with suppress(sqlite3.Error, TypeError, ValueError):
            read = {name.decode(): int(count) for name, count in db.execute("SELECT name, count FROM totals")}
            if set(read) == {"taken", "delivered", "lost"} and min(read.values()) >= 0:
                totals = read
    kept_as = path.with_name(f"{path.stem}.damaged{path.suffix}")
    for side in _SIDES:
        path.with_name(path.name + side).unlink(missing_ok=True)
    if path.exists():
        path.replace(kept_as)
    return Salvaged(sorted(rows.items()), totals, kept_as)
