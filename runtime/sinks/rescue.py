"""A database of edge-ad's own that somebody took away while it was open: nothing of it is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from edge_ad.runtime.sinks import set_aside

SIDES = ("-wal", "-shm", "-journal")


def write_again(db: sqlite3.Connection, path: Path) -> Path | None:
    """Write what an open database holds to a file of its old name, and close it.

    Returns: the name of what lay there meanwhile, and was set aside.

    Raises: sqlite3.Error, OSError; then it is still open.
    """
    scratch = path.with_name(f".{path.name}.again")
    scratch.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(scratch)) as copy:
            db.backup(copy)
        db.close()
        moved = set_aside(path)
        for side in SIDES:  # of the old file, or of what lay there
            path.with_name(path.name + side).unlink(missing_ok=True)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return moved
