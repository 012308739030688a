"""Records in an SQLite database, for queries at the station."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_ad.errors import OutputError, one_line, os_reason
from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.host.held import HeldFolder, Standing
from edge_ad.runtime.host.messages import Seldom, UpAndDown
from edge_ad.runtime.sinks import output_folder, set_aside
from edge_ad.runtime.sinks.ages import Ages, Clocks, Deletions, in_words
from edge_ad.runtime.sinks.sqlite_file import SIDES, Database, beside, is_damage, named
from edge_ad.runtime.sinks.sqlite_rows import DATES, dated, newest_ids, put, rows_of_run
from edge_ad.runtime.sinks.syncing import Flusher, SyncPolicy, flush_log

DAY_S = 86400.0
EXPIRED = 200  # records that go at once, when one comes
ATTEMPTS = 3  # to write to a file that somebody removes meanwhile
MANY_LOG_BYTES = 16 << 20  # of a log that somebody who reads keeps from being moved to the file: said from here on
MOST_LOG_BYTES = 256 << 20  # from here on, another database is begun


class SqliteRecords:
    """One row for each frame; what counts as written is in the database.

    Others may read while it is written (WAL). A database that is damaged, or of a later edge-ad, is set aside under a
    name with its date. When somebody removes, moves or replaces it, a new one is begun; rows that nobody finds any more
    are `gone`. So it is when somebody who reads keeps its log from ever becoming small again.

    Args:
        path: the database; rows of earlier runs stay in it.
        run_id: of this run.
        keep_days: rows older than that are deleted, a few with each new one; None keeps all.
        sync: guard against power cuts.
        say: receives what the user should know.
        clocks: by which rows become old.
    """

    keeps_records = True
    linger_s = 0.25  # one transaction for all records of so much time writes a fifth of what one for each does

    def __init__(
        self,
        path: Path,
        run_id: str,
        *,
        keep_days: float | None = None,
        sync: SyncPolicy | None = None,
        say: Callable[[str], None] = lambda _: None,
        clocks: Clocks | None = None,
    ) -> None:
        self.path = path
        self._run_id = run_id
        self._sync = sync or SyncPolicy()
        self._say = say
        self._say_seldom = Seldom(say)
        self._deletions: Deletions | None = None
        # A run that keeps all rows notes what the clock does, too, for one that does not; nobody need hear of it.
        hears, limit_s = (lambda _: None, DAY_S) if keep_days is None else (say, keep_days * DAY_S)
        self._ages = Ages(limit_s, str(path), hears, clocks or Clocks(time.time))
        if keep_days is not None:
            self._deletions = Deletions(f"{path}: records and events deleted, older than {in_words(limit_s)}", say)
        self._log = UpAndDown(say, lambda: f"{path}: its log has become small again")
        self._folder: HeldFolder | None = None
        self._db: Database | None = None
        self._damage: sqlite3.DatabaseError | None = None  # of the file that was open
        self._without_log: Database | None = None  # left, but still watched: its log is moved first, then maybe itself
        self._first: dict[str, int] = {}  # numbers from which on rows of the open file are of this run
        self._rows = self._gone = 0  # rows of this run in the open file; in none any more
        self._flusher = Flusher(self._sync.interval_s, partial(flush_log, path), path, say, "edge-ad-sqlite-sync")

    def __enter__(self) -> SqliteRecords:
        """Raises: OutputError."""
        output_folder(self.path.parent)
        self._folder = HeldFolder(self.path.parent)
        self._open()
        self._flusher.__enter__()
        return self

    @property
    def trouble(self) -> str | None:
        """That the log grows, while it does."""
        return f"{self.path}: its log cannot be moved to the file, and grows" if self._log.down_for_s else None

    def _open(self) -> Database:
        assert self._folder is not None
        self._folder.restore()
        try:
            try:
                if self._damage is not None:
                    raise self._damage
                self._db = self._opened()
            except sqlite3.DatabaseError as exc:
                if not is_damage(exc):
                    raise
                self._db = self._open_another(exc)
        except sqlite3.Error as exc:
            raise named(self.path, "opened", exc) from exc
        except OSError as exc:
            raise OutputError(f"{self.path}: cannot be opened: {os_reason(exc)}") from exc
        self._forget_without_log()
        return self._db

    def _opened(self) -> Database:
        database = Database(self.path, self._sync)
        try:
            self._count_rows(database.connection)
        except BaseException:
            database.close()
            raise
        return database

    def _open_another(self, exc: sqlite3.DatabaseError) -> Database:
        """One in place of a file that is damaged, which is set aside."""
        self._damage = None
        moved = set_aside(self.path)
        for side in SIDES:
            if moved is not None and (log := beside(self.path, side)).exists():
                log.replace(beside(moved, side))
        lost = 0
        if moved is not None and self._rows:
            with suppress(sqlite3.Error):
                damaged = sqlite3.connect(moved, timeout=0.0, isolation_level=None)
                lost, self._rows = self._rows, 0
                with suppress(sqlite3.Error):
                    lost -= rows_of_run(damaged, self._run_id, self._first)
                damaged.close()
            self._gone += max(lost, 0)
        more = f"; records lost: {lost}" if lost else ""
        self._say(f"warning: {self.path}: {one_line(exc)}; it is kept as {moved}, and a new one is written{more}")
        return self._opened()

    def _count_rows(self, db: sqlite3.Connection) -> None:
        """Of a file that was just opened; it may be the one of before, or a copy of it."""
        if self._rows:
            found = rows_of_run(db, self._run_id, self._first)
            before = self._without_log
            if before is not None and before.standing == "renamed" and not found:
                self._say_moved(before)
            else:
                self._gone += max(self._rows - found, 0)
            self._rows = found
        else:
            self._first = {table: number + 1 for table, number in newest_ids(db).items()}
        self._ages.begin(db, {table: next(dated(db, table, newest_first=True), (0, None)) for table in DATES})

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        """Raises: OutputError."""
        self.write_many([entry])

    def event(self, entry: Mapping[str, Any]) -> None:
        """Raises: OutputError."""
        self.write_many([entry])

    def write_many(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Records and events, in one transaction. Raises: OutputError; then there is none of them."""
        for _ in range(ATTEMPTS):
            self._commit(self._db or self._open(), entries)
            if self._look(writing=len(entries)) != "removed":
                return
        raise OutputError(f"{self.path}: is removed again and again")

    def _commit(self, database: Database, entries: Sequence[Mapping[str, Any]]) -> None:
        db = database.connection
        try:
            self._ages.tick(db, lambda: newest_ids(db))
            db.execute("BEGIN IMMEDIATE")
            try:
                for entry in entries:
                    put(db, entry, self._run_id)
                expired, ours = self._expire(db)
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as exc:
            if isinstance(exc, sqlite3.DatabaseError) and is_damage(exc):
                self._give_up(database, exc)
            raise named(self.path, "written", exc) from exc
        self._rows += len(entries) - ours
        if self._deletions is not None and expired:
            self._deletions.add(expired, more=expired >= EXPIRED)

    def _expire(self, db: sqlite3.Connection) -> tuple[int, int]:
        """Delete the oldest rows that are too old. Returns: how many, and how many of them are of this run."""
        expired = ours = 0
        for table in DATES if self._deletions is not None else ():
            read: list[int] = []
            last = self._ages.last_old(table, dated(db, table, read), EXPIRED)
            if last is not None:
                last = min(last, read[:EXPIRED][-1])
                expired += db.execute(f"DELETE FROM {table} WHERE id <= ?", (last,)).rowcount
                ours += sum(self._first.get(table, 0) <= number <= last for number in read)
        return expired, ours

    def look(self) -> None:
        """Notice what somebody else did to the file, and begin a new one where there is none. Raises: OutputError."""
        self._look()
        self._log.remind()
        if self._db is None:
            self._open()

    def _look(self, *, writing: int = 0) -> Standing:
        """What somebody else did to the file since the last time; it is left behind unless it is there.

        Args: writing: rows that were just written, and are no loss where they are in a file that was removed.
        """
        database = self._db
        if database is None:
            return "there"
        standing = database.standing
        if standing == "there" and database.has_its_log:
            self._watch(database)
            return standing
        self._db = None
        if standing == "removed":
            gone, self._rows = self._rows - writing, 0
            self._gone += gone
            lost = f"records lost: {gone}"
            self._say_seldom(f"warning: {self.path}: somebody has removed or replaced it: {lost}; a new one is begun")
        elif standing == "renamed":
            self._rows = 0
            self._say_moved(database)
        else:
            self._say_seldom(f"warning: {self.path}: somebody has removed its log; it is written again")
            self._without_log = database
        database.leave(watched=standing == "there")
        return standing

    def _say_moved(self, database: Database) -> None:
        moved = database.now_at or "another name"
        self._say_seldom(f"{self.path}: somebody has moved it to {moved}; a new one is begun")

    def _forget_without_log(self) -> None:
        if self._without_log is not None:
            self._without_log.close()
            self._without_log = None

    def _watch(self, database: Database) -> None:
        try:
            database.check()
        except sqlite3.DatabaseError as exc:
            if is_damage(exc):
                self._give_up(database, exc)
            return
        log_bytes = database.log_bytes
        if log_bytes <= MANY_LOG_BYTES:
            self._log.up()
            return
        why = "because somebody has been reading there all the time, or the disk is full"
        rest = f"at {MOST_LOG_BYTES >> 20} MiB another database is begun"
        self._log.down(f"warning: {self.path}: its log has grown to {log_bytes >> 20} MiB, {why}; {rest}")
        if log_bytes > MOST_LOG_BYTES:
            self._db = None
            try:
                moved = database.set_aside()
            except OSError as exc:
                self._say_seldom(f"warning: {self.path}: cannot be set aside: {os_reason(exc)}")
                return
            if moved is not None:
                self._rows = 0
                self._say_seldom(f"warning: {self.path}: its rows stay in {moved.name}, where somebody reads them")

    def _give_up(self, database: Database, damage: sqlite3.DatabaseError) -> None:
        """Have the next attempt set the file aside."""
        self._damage, self._db = damage, None
        database.close()

    def written_off(self) -> Mapping[str, int]:
        """Rows that somebody took away, and that were deleted for their age, since this was last asked."""
        gone, self._gone = self._gone, 0
        return {"gone": gone, "expired": 0 if self._deletions is None else self._deletions.read()}

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._flusher.__exit__(None, None, None)
        if self._deletions is not None:
            self._deletions.tell()
        self._forget_without_log()
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._folder is not None:
            self._folder.close()
