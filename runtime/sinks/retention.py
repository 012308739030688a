"""Which pictures stay on the disk: within a quota and an age, oldest first, rejects longer than the rest."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edge_ad.errors import OutputError, one_line, os_reason
from edge_ad.runtime.host.messages import Seldom
from edge_ad.runtime.host.results import is_drawn
from edge_ad.runtime.sinks import OnePictureError, output_folder
from edge_ad.runtime.sinks.ages import Ages, Clocks, Deletions, in_words
from edge_ad.runtime.sinks.rescue import OwnNames

EXPIRED = 100  # pictures that go at once, when one comes
_SCHEMA = """
CREATE TABLE IF NOT EXISTS pictures(
    id INTEGER PRIMARY KEY, folder TEXT, name TEXT, bytes INTEGER, at REAL, reject INTEGER
);
CREATE INDEX IF NOT EXISTS by_reject ON pictures(reject, id);
"""


@dataclass(frozen=True)
class Limits:
    """None stands for no limit.

    Attributes:
        quota_bytes: of all pictures of one kind.
        max_age_s: of a picture.
    """

    quota_bytes: int | None = None
    max_age_s: float | None = None


class Retention:
    """Pictures of one kind that runs have written to a folder of results, and their end.

    An index names every picture before it is written, with its size, so that only edge-ad's own are ever deleted: a
    regular file of that name and size, in a folder that runs have drawn, is one; whatever else lies there stays.

    Args:
        folder: of the pictures; `<folder>-<date>` holds those of earlier runs.
        limits: when pictures go.
        say: receives what the user should know.
        clocks: by which pictures become old.
    """

    def __init__(
        self, folder: Path, limits: Limits, say: Callable[[str], None] = lambda _: None, clocks: Clocks | None = None
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._say = Seldom(say)
        self._clocks = clocks or Clocks()
        self._index = folder.with_name(f".edge-ad-{folder.name}.sqlite")
        self._names: OwnNames | None = None
        self._db: sqlite3.Connection | None = None
        self._bytes = 0
        # What the clock does is noted for a later run, too, though nobody need hear of it where pictures keep no age.
        hears, limit_s = (lambda _: None, 86400.0) if limits.max_age_s is None else (say, limits.max_age_s)
        self._ages = Ages(limit_s, str(folder), hears, self._clocks)
        self._too_old = self._too_many = Deletions(f"{folder}: pictures deleted, more than their quota", say)
        if limits.max_age_s is not None:
            old = f"older than {in_words(limits.max_age_s)}"
            self._too_old = Deletions(f"{folder}: pictures deleted, {old}", say)

    def __enter__(self) -> Retention:
        """Raises: OutputError."""
        output_folder(self._folder.parent)
        index = self._index
        try:
            try:
                self._open(index)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                _set_aside(index)  # its pictures stay for ever: nothing says whose they are
                self._open(index)
        except sqlite3.Error as exc:
            raise OutputError(f"{index}: cannot be opened: {one_line(exc)}") from exc
        except OSError as exc:
            raise OutputError(f"{index}: is damaged, and cannot be set aside: {os_reason(exc)}") from exc
        return self

    def _open(self, index: Path) -> None:
        self._db = _connected(index)
        try:
            self._names = OwnNames(index)
            newest = self._db.execute("SELECT id, at FROM pictures ORDER BY id DESC LIMIT 1").fetchone()
            self._ages.begin(self._db, {"pictures": newest or (0, None)})
            self._add_up()
        except BaseException:
            self._close()
            raise

    def _add_up(self) -> None:
        (total,) = self._connection.execute("SELECT coalesce(sum(bytes), 0) FROM pictures").fetchone()
        self._bytes = int(total)

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._db is not None, "not entered"
        return self._db

    def moved(self, name: str) -> None:
        """Note that the folder of an earlier run was renamed. Raises: OutputError."""
        try:
            with self._connection as db:
                db.execute("UPDATE pictures SET folder = ? WHERE folder = ?", (name, self._folder.name))
        except sqlite3.Error as exc:
            raise self._unwritable(exc) from exc

    def restore(self) -> None:
        """Write the index again if somebody has taken it away. Raises: OutputError."""
        if self._names is None or self._names.are_there:
            return
        self._db, self._names, said = self._names.write_again(self._connection, lambda: _connected(self._index))
        self._say(said)

    def deleted(self) -> int:
        """How many pictures were deleted since this was last asked."""
        return self._too_many.read() + (0 if self._too_old is self._too_many else self._too_old.read())

    @contextmanager
    def room(self, name: str, size_bytes: int, *, reject: bool) -> Iterator[None]:
        """Delete what has to go for a picture that is written inside of this context.

        Raises: OnePictureError when the picture alone is larger than the quota; OutputError when the index cannot be
            written.
        """
        quota_bytes = self._limits.quota_bytes
        if quota_bytes is not None and size_bytes > quota_bytes:
            raise OnePictureError(f"{self._folder / name}: its {size_bytes} bytes are more than the quota for pictures")
        self.restore()
        try:
            number = self._enter(name, size_bytes, reject)
        except sqlite3.Error as exc:
            with suppress(sqlite3.Error):
                self._add_up()
            raise self._unwritable(exc) from exc
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error), self._connection as db:
                db.execute("DELETE FROM pictures WHERE id = ?", (number,))
                self._bytes -= size_bytes
            raise

    def _unwritable(self, exc: sqlite3.Error) -> OutputError:
        return OutputError(f"{self._folder}: the index of pictures cannot be written: {one_line(exc)}")

    def _enter(self, name: str, size_bytes: int, reject: bool) -> int:
        self._ages.tick(self._connection, self._newest)
        too_many = 0
        with self._connection as db:
            too_old = self._expire(db)
            quota_bytes = self._limits.quota_bytes
            while quota_bytes is not None and self._bytes + size_bytes > quota_bytes:
                oldest = "SELECT id, folder, name, bytes FROM pictures ORDER BY reject, id LIMIT 1"
                row = db.execute(oldest).fetchone()
                if row is None:
                    self._add_up()
                    break
                self._forget(db, row)
                too_many += 1
            values = (self._folder.name, name, size_bytes, self._clocks.now_s(), int(reject))
            into = "INSERT INTO pictures(folder, name, bytes, at, reject) VALUES (?, ?, ?, ?, ?)"
            number = db.execute(into, values).lastrowid
            self._bytes += size_bytes
        self._too_old.add(too_old, more=too_old >= EXPIRED)
        self._too_many.add(too_many, more=False)
        return int(number or 0)

    def _newest(self) -> dict[str, int]:
        return {"pictures": self._connection.execute("SELECT coalesce(max(id), 0) FROM pictures").fetchone()[0]}

    def _expire(self, db: sqlite3.Connection) -> int:
        """Delete the oldest pictures that are too old. Returns: how many."""
        count = 0
        for reject in (0, 1) if self._limits.max_age_s is not None else ():
            of_kind = "FROM pictures WHERE reject = ? AND id <= ? ORDER BY id"
            rows = db.execute(f"SELECT id, at {of_kind}", (reject, 1 << 62))
            last = self._ages.last_old("pictures", rows, EXPIRED)
            if last is not None:
                for row in db.execute(f"SELECT id, folder, name, bytes {of_kind}", (reject, last)).fetchmany(EXPIRED):
                    self._forget(db, row)
                    count += 1
        return count

    def _forget(self, db: sqlite3.Connection, row: tuple[int, str, str, int]) -> None:
        number, folder, name, size_bytes = row
        db.execute("DELETE FROM pictures WHERE id = ?", (number,))
        self._bytes -= size_bytes
        self._delete(folder, name, size_bytes)

    def _delete(self, folder: str, name: str, size_bytes: int) -> None:
        """Delete a picture if it is edge-ad's; no link is followed, nor a path that an index names."""
        path = self._folder.parent / folder
        if Path(folder).name != folder or Path(name).name != name or not is_drawn(path):
            return
        with suppress(OSError):
            file = path / name
            found = file.lstat()
            if not path.is_symlink() and stat.S_ISREG(found.st_mode) and found.st_size == size_bytes:
                file.unlink()
            if folder != self._folder.name:
                path.rmdir()  # fails until it is empty

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for deletions in (self._too_old, self._too_many):
            deletions.tell()
        self._close()

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._names is not None:
            self._names.close()
            self._names = None


def _connected(index: Path) -> sqlite3.Connection:
    db = sqlite3.connect(index, timeout=5.0, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_SCHEMA)
        db.execute("SELECT id, folder, name, bytes, at, reject FROM pictures LIMIT 1").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _set_aside(index: Path) -> None:
    """Raises: OSError."""
    for side in ("-wal", "-shm"):  # SQLite would move what is in there into the new index
        index.with_name(index.name + side).unlink(missing_ok=True)
    index.replace(index.with_suffix(".damaged"))
