"""Lines that wait on disk until a receiver has confirmed them: a queue that survives the process.

SQLite keeps it, in WAL mode: a line is stored or it is not, whatever kills the process; lines that were confirmed out
of order leave holes without a format of our own; freed pages are used again, so the file stays within its budget.
docs/sinks.md has the figures beside a plain file.
"""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_ad.errors import OutputError, one_line, os_reason
from edge_ad.runtime.host.messages import Seldom
from edge_ad.runtime.sinks import output_folder
from edge_ad.runtime.sinks.counts import SinkCounts
from edge_ad.runtime.sinks.rescue import OwnNames
from edge_ad.runtime.sinks.spool_file import PAGE_BYTES, is_intact, open_file, salvage
from edge_ad.runtime.sinks.syncing import Flusher, SyncPolicy, flush_log

EVICTED = 32  # lines that make room at once
MAX_ASIDE = 1000  # refused lines that are kept to be looked at
MIN_BUDGET_BYTES = 1 << 18


class Spool:
    """A bounded queue of lines on disk, oldest first, for one process and any number of its threads.

    Args:
        path: the file; made where there is none. What is in it from earlier runs comes first.
        budget_bytes: of the disk, at least 256 KiB. When it is spent the oldest lines go, which is counted.
        sync: guard against power cuts.
        say: receives what the user should know, one line each.
        name: of the account in the counters.
    """

    def __init__(
        self,
        path: Path,
        *,
        budget_bytes: int,
        sync: SyncPolicy,
        say: Callable[[str], None] = lambda _: None,
        name: str = "Spool",
    ) -> None:
        self.path = path
        self.name = name
        pages = max(budget_bytes, MIN_BUDGET_BYTES) // PAGE_BYTES
        self._wal_pages = pages // 8  # grows by a transaction beyond that before it is moved to the file
        self._max_pages = pages * 3 // 4
        self._sync = sync
        self._say = say
        self._say_seldom = Seldom(say)
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._names: OwnNames | None = None
        # Replaced, never changed: who reads it does not wait for a disk that hangs.
        self._counts: Mapping[str, int] = {"taken": 0, "delivered": 0, "lost": 0}
        self._failures = 0
        self._entered = False
        self._evicting = False
        self._unsynced = False
        self._flusher = Flusher(sync.interval_s, self._flush, path, say, "edge-ad-spool-sync")

    def __enter__(self) -> Spool:
        """Raises: OutputError when the file cannot be opened, or another run has it."""
        output_folder(self.path.parent)
        with self._lock:
            self._count(taken=self._open())
            self._entered = True
        self._flusher.__enter__()
        return self

    def _open(self) -> int:
        """Returns: how many lines wait in the file. Raises: OutputError."""
        try:
            try:
                self._db = self._connected()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as exc:
                self._db = self._rebuild(one_line(exc))
            (waiting,) = self._db.execute("SELECT count(*) FROM lines").fetchone()
            self._names = OwnNames(self.path)
        except (sqlite3.Error, OSError) as exc:
            self._close()
            reason = os_reason(exc) if isinstance(exc, OSError) else one_line(exc)
            hint = "; another run is using it" if "locked" in reason else ""
            raise OutputError(f"{self.path}: cannot be opened: {reason}{hint}") from exc
        return int(waiting)

    def _connected(self) -> sqlite3.Connection:
        return open_file(self.path, wal_pages=self._wal_pages, every_record=self._sync.every_record)

    def _rebuild(self, reason: str) -> sqlite3.Connection:
        """A new file with what can be read of a damaged one."""
        found = salvage(self.path)
        db = self._connected()
        taken, delivered, lost_before = (found.totals.get(name, 0) for name in ("taken", "delivered", "lost"))
        lost = max(lost_before, taken - delivered - len(found.rows))
        db.execute("BEGIN")
        rows = [(number, data, zlib.crc32(data)) for number, data in found.rows]
        db.executemany("INSERT INTO lines(id, line, crc) VALUES (?, ?, ?)", rows)
        totals = {"taken": delivered + lost + len(found.rows), "delivered": delivered, "lost": lost}
        db.executemany("UPDATE totals SET count = ? WHERE name = ?", [(count, name) for name, count in totals.items()])
        db.execute("COMMIT")
        missing = str(lost - lost_before) if found.totals else "an unknown number"
        self._say(
            f"warning: {self.path} is damaged ({reason}): {len(found.rows)} waiting records were saved, {missing} are"
            f" lost; what is left of it lies in {found.kept_as.name}"
        )
        return db

    def put(self, line: str) -> None:
        """Store a line; once this returns, no end of the process loses it. Raises: OutputError."""
        data = line.encode("utf-8")
        if len(data) > self._max_pages * PAGE_BYTES // 4:
            self._say(f"warning: {self.name}: a record of {len(data)} bytes is too large for its spool, and lost")
            self._change({"taken": 1, "lost": 1}, lambda db: 1)
            return

        def insert(db: sqlite3.Connection) -> int:
            return db.execute("INSERT INTO lines(line, crc) VALUES (?, ?)", (data, zlib.crc32(data))).rowcount

        with self._lock:
            self._make_room()
            self._change({"taken": 1}, insert)

    def _make_room(self) -> None:
        while self._value("PRAGMA page_count") - self._value("PRAGMA freelist_count") > self._max_pages:
            oldest = [number for (number,) in self._rows("SELECT id FROM lines ORDER BY id LIMIT ?", EVICTED)]
            if not oldest:
                return  # what is left are lines that were refused, and those are few
            self._delete(oldest, "lost")
            if not self._evicting:
                self._evicting = True
                self._say(f"warning: {self.name}: its disk budget is spent; the oldest waiting records are lost")

    def read(self, after: int = 0, limit: int = 100) -> list[tuple[int, str]]:
        """The oldest lines whose number is above `after`, with their numbers. Raises: OutputError.

        Lines whose bytes have changed on the disk are lost, which is counted.
        """
        with self._lock:
            while True:
                rows = self._rows("SELECT id, line, crc FROM lines WHERE id > ? ORDER BY id LIMIT ?", after, limit)
                good = [(number, data) for number, data, crc in rows if is_intact(data, crc)]
                if len(good) < len(rows):
                    damaged = sorted({row[0] for row in rows} - {number for number, _ in good})
                    self._say(f"warning: {self.path}: {len(damaged)} waiting records are damaged, and lost")
                    self._delete(damaged, "lost")
                if good or not rows:
                    return [(number, data.decode("utf-8")) for number, data in good]

    def delivered(self, numbers: Iterable[int]) -> None:
        """Forget lines that their receiver has confirmed. Raises: OutputError; they are still there then."""
        self._delete(list(numbers), "delivered")
        self._evicting = False

    def refuse(self, number: int, reason: str) -> None:
        """Set a line aside that its receiver will never take; it is lost. Raises: OutputError."""

        def move(db: sqlite3.Connection) -> int:
            row = "id, line, ?, strftime('%Y-%m-%dT%H:%M:%SZ')"
            db.execute(f"INSERT OR REPLACE INTO aside SELECT {row} FROM lines WHERE id = ?", (reason, number))
            newest = "(SELECT id FROM aside ORDER BY id DESC LIMIT ?)"
            db.execute(f"DELETE FROM aside WHERE id NOT IN {newest}", (MAX_ASIDE,))
            return db.execute("DELETE FROM lines WHERE id = ?", (number,)).rowcount

        self._change({"lost": 1}, move)

    def aside(self) -> list[tuple[str, str]]:
        """The last refused lines and why, oldest first."""
        rows = self._rows("SELECT line, reason FROM aside ORDER BY id")
        return [(bytes(line).decode("utf-8", "replace"), reason) for line, reason in rows]

    def failed(self) -> None:
        """Count an attempt to deliver that failed; for one thread."""
        self._failures += 1

    @property
    def waiting(self) -> int:
        """Lines that nobody has confirmed."""
        return self.counts().waiting

    def counts(self) -> SinkCounts:
        """What became of the lines that waited when the spool was opened, and of those since then. Never waits."""
        counts = self._counts
        waiting = counts["taken"] - counts["delivered"] - counts["lost"]
        return SinkCounts(self.name, **counts, waiting=waiting, failures=self._failures)

    def _count(self, **changes: int) -> None:
        self._counts = {name: count + changes.get(name, 0) for name, count in self._counts.items()}

    def totals(self) -> dict[str, int]:
        """Lines `taken`, `delivered` and `lost` since the file was made; the rest of the taken ones wait."""
        return dict(self._rows("SELECT name, count FROM totals"))

    def _delete(self, numbers: Sequence[int], outcome: str) -> None:
        def delete(db: sqlite3.Connection) -> int:
            return sum(db.execute("DELETE FROM lines WHERE id = ?", (number,)).rowcount for number in numbers)

        if numbers:
            self._change({outcome: 1}, delete)

    def _change(self, each: dict[str, int], act: Callable[[sqlite3.Connection], int]) -> None:
        """One transaction over lines and totals, so that they agree after any crash.

        Args:
            each: what one line adds to the totals.
            act: changes the lines. Returns: how many.
        """

        def transaction(db: sqlite3.Connection) -> int:
            db.execute("BEGIN IMMEDIATE")
            try:
                count = act(db)
                for name, one in each.items():
                    db.execute("UPDATE totals SET count = count + ? WHERE name = ?", (one * count, name))
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise
            return count

        with self._lock:
            count = self._attempt(transaction)
            self._count(**{name: one * count for name, one in each.items()})
            self._unsynced = True

    def _rows(self, query: str, *values: int) -> list[Any]:
        with self._lock:
            return list(self._attempt(lambda db: db.execute(query, values).fetchall()))

    def _value(self, query: str) -> int:
        return int(self._rows(query)[0][0])

    def _attempt(self, act: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do something with the file; once more on a new one, where it turns out to be damaged."""
        for last in (False, True):
            try:
                return act(self._connection())
            except sqlite3.DatabaseError as exc:
                if last or isinstance(exc, sqlite3.OperationalError):
                    raise OutputError(f"{self.path}: cannot be written: {one_line(exc)}") from exc
                self._close()
        raise AssertionError

    def look(self) -> None:
        """Write the file again if somebody took it away. Raises: OutputError."""
        self._value("PRAGMA user_version")

    def _connection(self) -> sqlite3.Connection:
        if self._db is not None and self._names is not None and not self._names.are_there:
            self._db, self._names, said = self._names.write_again(self._db, self._connected)
            self._say_seldom(f"warning: {said}; records waiting in it: {self.waiting}")
        if self._db is None:
            if not self._entered:
                raise OutputError(f"{self.path}: is closed")
            found = self._open() - self.waiting
            # A log that was cut off brings confirmed lines back.
            self._count(taken=max(found, 0), lost=max(-found, 0))
        assert self._db is not None
        return self._db

    def _close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None
        if self._names is not None:
            self._names.close()
            self._names = None

    def _flush(self) -> None:
        if self._unsynced:
            self._unsynced = False
            try:
                flush_log(self.path)
            except OSError:
                self._unsynced = True
                raise

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._flusher.__exit__(None, None, None)
        with self._lock:
            with suppress(OutputError):
                self.look()
            self._entered = False
            self._close()
