"""Databases of edge-ad's own that somebody takes away while they are open: nothing of them is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from edge_ad.errors import OutputError, one_line, os_reason
from edge_ad.runtime.host.held import HeldFolder, HeldName
from edge_ad.runtime.sinks import set_aside

SIDES = ("-wal", "-shm", "-journal")


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

    def write_again(self, db: sqlite3.Connection) -> str:
        """Write what the open database holds to a new file of its old name, and close it.

        Returns: what has happened, for people. Raises: OutputError; then it is still open.
        """
        path = self._path
        scratch = path.with_name(f".{path.name}.again")
        moved = None
        try:
            self._folder.restore()
            scratch.unlink(missing_ok=True)
            with closing(sqlite3.connect(scratch)) as copy:
                db.backup(copy)
            if self._file.standing != "there":
                moved = set_aside(path)
            for side in SIDES:  # of the old file, or of what lay there
                path.with_name(path.name + side).unlink(missing_ok=True)
            scratch.replace(path)
        except (sqlite3.Error, OSError) as exc:
            reason = os_reason(exc) if isinstance(exc, OSError) else one_line(exc)
            raise OutputError(f"{path}: is gone, and cannot be written again: {reason}") from exc
        db.close()
        kept = "" if moved is None else f"; what lay there is kept as {moved.name}"
        return f"{path}: somebody has taken it away; it is written again{kept}"

    def close(self) -> None:
        for held in (self._folder, self._file, self._log):
            if held is not None:
                held.close()
