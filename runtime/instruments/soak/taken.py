"""Files that somebody takes away during a soak, and what is still to be found of them."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal

from edge_ad.runtime.instruments.soak.checks import Findings

_numbers = itertools.count()


def taken_away(path: Path, how: Literal["delete", "move", "empty"] | str) -> None:
    """Delete a file or folder, move it out of its folder, or empty it; a database cannot be emptied without harm."""
    with suppress(OSError):
        if how == "move":
            beside = path if path.is_dir() else path.parent
            path.rename(beside.with_name(f"{path.name}.taken-{next(_numbers)}"))
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif how == "empty" and path.suffix == ".jsonl":
            os.truncate(path, 0)
        else:
            path.unlink()


def check_files(top: Path, name: str, delivered: int, findings: Findings) -> None:
    """Hold all files of records below a folder, those that were moved too, against what is counted as delivered.

    Whole lines, each once, those of one file in order.

    Args: name: of the file that is written.
    """
    seen: set[tuple[str, int]] = set()
    count = 0
    for path in sorted(top.rglob(f"{Path(name).stem}*")):
        latest: dict[str, int] = {}
        for number, line in enumerate(_lines(path), start=1):
            count += 1
            try:
                entry = json.loads(line)
            except ValueError:
                findings.add("sinks", f"{path.name}: line {number} is no record: {line[:60]!r}")
                continue
            if "event" in entry:
                continue
            which = entry["source"], entry["frame_id"]
            if which in seen or latest.get(which[0], -1) >= which[1]:
                findings.add("record", f"{path.name}: {which[0]} frame {which[1]} again, or too late")
            seen.add(which)
            latest[which[0]] = which[1]
    if count != delivered:
        findings.add("sinks", f"{name}: {count} lines can be found, {delivered} are counted as delivered")


def _lines(path: Path) -> Iterator[bytes]:
    if ".jsonl" in path.name and path.is_file():
        with path.open("rb") as file:
            yield from file


def check_databases(top: Path, name: str, delivered: int, expired: int, findings: Findings) -> None:
    """Hold all databases of a name below a folder against what is counted: each row once, and none too young deleted.

    Args: expired: rows that were deleted for their age, which no row of a soak has.
    """
    keys: list[str] = []
    for path in sorted(top.rglob(f"{Path(name).stem}*")):
        if ".sqlite" not in path.name or path.name.endswith(("-wal", "-shm")) or not path.is_file():
            continue
        try:
            with closing(sqlite3.connect(path)) as db:
                for table in ("records", "events"):
                    if db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchall():
                        keys += [key for (key,) in db.execute(f"SELECT key FROM {table}")]
        except sqlite3.Error as exc:
            findings.add("sinks", f"{path.name}: cannot be read: {exc}")
    if len(keys) != delivered or len(set(keys)) != len(keys):
        found = f"{len(keys)} rows can be found, {len(set(keys))} of them different"
        findings.add("sinks", f"{name}: {found}; {delivered} are counted as delivered")
    if expired:
        findings.add("kept", f"{name}: {expired} rows were deleted for their age, though all are minutes old")
