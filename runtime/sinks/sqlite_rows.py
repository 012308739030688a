"""Records and events as rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from edge_ad.record.verdict import record_line
from edge_ad.runtime.sinks.naming import idempotency_key

COLUMNS = {
    "records": ("captured_at", "source", "frame_id", "status", "verdict", "score", "threshold", "part_id", "bundle"),
    "events": ("at", "source", "event"),
}
DATES = {"records": "captured_at", "events": "at"}
"""Of each table, the column that says when it was."""


def put(db: sqlite3.Connection, entry: Mapping[str, Any], run_id: str) -> None:
    """Store a record or an event, unless it is there: from an attempt that failed after it had been written."""
    table = "events" if "event" in entry else "records"
    columns = COLUMNS[table]
    values = [idempotency_key(entry, run_id), run_id, record_line(entry)]
    values += [_storable(entry.get(column)) for column in columns]
    names = ", ".join(("key", "run", "record", *columns))
    marks = ", ".join("?" * len(values))
    db.execute(f"INSERT INTO {table}({names}) VALUES ({marks}) ON CONFLICT(key) DO NOTHING", values)


def newest_ids(db: sqlite3.Connection) -> dict[str, int]:
    """The highest number of each table; 0 where there is none."""
    return {table: db.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0] for table in COLUMNS}


def rows_of_run(db: sqlite3.Connection, run_id: str, first: Mapping[str, int]) -> int:
    """How many rows of a run there are, from the numbers on that `first` has for the tables."""
    query = "SELECT count(*) FROM {} WHERE id >= ? AND run = ?"
    return sum(db.execute(query.format(table), (first.get(table, 0), run_id)).fetchone()[0] for table in DATES)


def dated(
    db: sqlite3.Connection, table: str, read: list[int] | None = None, *, newest_first: bool = False
) -> Iterator[tuple[int, float | None]]:
    """Numbers and dates of rows, seconds since 1970 or None, from the oldest on.

    Args: read: gets the numbers of those that were asked for.
    """
    order = "DESC" if newest_first else "ASC"
    for number, text in db.execute(f"SELECT id, {DATES[table]} FROM {table} ORDER BY id {order}"):
        if read is not None:
            read.append(number)
        yield number, _seconds(text)


def _seconds(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).astimezone(timezone.utc).timestamp()
    except (ValueError, OverflowError):
        return None


def _storable(value: Any) -> Any:
    """Text that is no UTF-8, as in file names, cannot be stored as it is."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
