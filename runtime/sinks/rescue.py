"""Databases of edge-ad's own that somebody takes away while they are open: nothing of them is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from edge_ad.errors import OutputError, one_line, os_reason
from edge_ad.runtime.host.held import HeldFolder, HeldName
from edge_ad.runtime.sinks import set_aside

SIDES = ("-wal", "-shm", "-journal")
MAX_REWRITES = 5  # of a file that is taken away while it is written


class OwnNames:
    """The names of a database that nobody else has a use for, with its log.

    Args: path: of the database, which is open. Raises: OSError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = HeldFolder(path.parent)
        self._file = HeldName(path)
        log = path.with_name(f"{path.name}-wal")
        self._log = HeldName(log) if log.exists() else None

    @property
    def are_there(self) -> bool:
        """Whether nobody has taken them away."""
        return self._file.standing == "there" and (self._log is None or self._log.standing == "there")

    def write_again(
        self, db: sqlite3.Connection, connect: Callable[[], sqlite3.Connection]
    ) -> tuple[sqlite3.Connection, OwnNames, str]:
        """Write what the open database holds to a new file of its old name, and close it once the new one is open.

        Who deletes a folder file by file takes the new one away as well, so it is written until it stays.

        Args: connect: opens the file of that name.

        Returns: the new database, its names, and what has happened, for people. Raises: OutputError; then the old one
            is still open.
        """
        try:
            for _ in range(MAX_REWRITES):
                written, moved = self._write(db)
                with closing(written):
                    new = connect()
                    with suppress(FileNotFoundError):
                        names = OwnNames(self._path)
                        if written.standing == "there":
                            break
                        names.close()
                    new.close()
            else:
                raise OutputError(f"{self._path}: is taken away as often as it is written")
        except (sqlite3.Error, OSError) as exc:
            reason = os_reason(exc) if isinstance(exc, OSError) else one_line(exc)
            raise OutputError(f"{self._path}: is gone, and cannot be written again: {reason}") from exc
        db.close()
        self.close()
        kept = "" if moved is None else f"; what lay there is kept as {moved.name}"
        return new, names, f"{self._path}: somebody has taken it away; it is written again{kept}"

    def _write(self, db: sqlite3.Connection) -> tuple[HeldName, Path | None]:
        """Returns: the new file, held; what the file was renamed to that lay there, if one did."""
        path, moved = self._path, None
        scratch = path.with_name(f".{path.name}.again")
        self._folder.restore()
        scratch.unlink(missing_ok=True)
        with closing(sqlite3.connect(scratch)) as copy:
            db.backup(copy)
        if self._file.standing != "there":
            moved = set_aside(path)
        for side in SIDES:  # of the old file, or of what lay there
            path.with_name(path.name + side).unlink(missing_ok=True)
        written = HeldName(scratch)
        scratch.replace(path)
        written.path = path
        return written, moved

    def close(self) -> None:
        for held in (self._folder, self._file, self._log):
            if held is not None:
                held.close()
