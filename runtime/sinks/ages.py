"""How old rows are, though the clock that dated them, or the one of now, may be wrong.

A clock that jumps and one that is set right look alike, so neither makes anything older. Time that passes during a run
is told by the monotonic clock; what the wall clock does beyond that is a step, and so is a pause between two runs of
more than `BELIEVED_S`. Steps are kept beside the rows: those before a step are so much younger than their dates say.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from edge_ad.runtime.host.messages import Seldom

BELIEVED_S = 7 * 86400.0  # a pause between two runs
LEAST_STEP_S = 60.0
FUTURE_S = 3600.0  # how far ahead a date may be that can be right
MOST_STEPS = 1000
MANY, REST_S = 1000, 60.0  # rows without a right date that are read over and over, but not with every record
SCHEMA = "CREATE TABLE IF NOT EXISTS clock_steps(kind TEXT NOT NULL, id INTEGER NOT NULL, seconds REAL NOT NULL)"
SAY_EVERY_S = 3600.0


@dataclass(frozen=True)
class Clocks:
    """Attributes: now_s: the wall clock, seconds since 1970. monotonic_s: one that cannot jump."""

    now_s: Callable[[], float] = lambda: time.time()
    monotonic_s: Callable[[], float] = lambda: time.monotonic()


class Ages:
    """Ages of rows with growing numbers, in one database, for one thread.

    Args:
        limit_s: the age that matters; a hundredth of it is the least step.
        where: the rows are, as the user knows it.
        say: receives what the user should know.
    """

    def __init__(self, limit_s: float, where: str, say: Callable[[str], None], clocks: Clocks) -> None:
        self.limit_s = limit_s
        self._where = where
        self._say = Seldom(say)
        self._now_s, self._monotonic_s = clocks.now_s, clocks.monotonic_s
        self._least_step_s = max(LEAST_STEP_S, limit_s / 100)
        self._steps: dict[str, list[tuple[int, float]]] = {}
        self._last: dict[str, int] = {}  # numbers when it was begun
        self._begun_s = self._rests_until_s = 0.0
        self._anchor_s: tuple[float, float] | None = None

    def begin(self, db: sqlite3.Connection, newest: Mapping[str, tuple[int, float | None]]) -> None:
        """Read the steps of a database, and add the one since its newest row.

        Args: newest: number and date of the newest row of every kind, number 0 where there is none; the first date that
            is known tells when the last run was.

        Raises: sqlite3.Error.
        """
        db.execute(SCHEMA)
        self._steps = {}
        for kind, number, seconds in db.execute("SELECT kind, id, seconds FROM clock_steps ORDER BY id"):
            self._steps.setdefault(kind, []).append((number, seconds))
        self._last = {kind: number for kind, (number, _) in newest.items()}
        self._begun_s = self._monotonic_s()
        now_s = self._now_s()
        self._anchor_s = now_s, self._begun_s
        last_s = next((at_s for _, at_s in newest.values() if at_s is not None), None)
        if last_s is not None and not -FUTURE_S <= now_s - last_s <= BELIEVED_S:
            self._add(db, now_s - last_s, self._last, "since the last record")

    def tick(self, db: sqlite3.Connection, newest: Callable[[], Mapping[str, int]]) -> None:
        """Notice what the clock does; before new rows get their dates. Args: newest: numbers. Raises: sqlite3.Error."""
        assert self._anchor_s is not None, "not begun"
        now_s, monotonic_s = self._now_s(), self._monotonic_s()
        step_s = now_s - self._anchor_s[0] - (monotonic_s - self._anchor_s[1])
        if abs(step_s) > self._least_step_s:
            self._add(db, step_s, newest(), "at once")
            self._anchor_s = now_s, monotonic_s

    def _add(self, db: sqlite3.Connection, seconds: float, numbers: Mapping[str, int], when: str) -> None:
        rows = [(kind, number, seconds) for kind, number in numbers.items()]
        db.executemany("INSERT INTO clock_steps(kind, id, seconds) VALUES (?, ?, ?)", rows)
        for kind, number in numbers.items():
            steps = self._steps.setdefault(kind, [])
            steps.append((number, seconds))
            if len(steps) > MOST_STEPS:  # of the oldest rows, which take over what came before
                steps[:2] = [(steps[1][0], steps[0][1] + steps[1][1])]
        direction = "forwards" if seconds > 0 else "backwards"
        self._say(
            f"{self._where}: the clock went {direction} by {in_words(abs(seconds))} {when}; that makes nothing older,"
            " and nothing is deleted for it"
        )

    def age_s(self, kind: str, number: int, at_s: float | None) -> float | None:
        """The age of a row; None where its date cannot be right."""
        if at_s is None:
            return None
        steps_s = sum(seconds for last, seconds in self._steps.get(kind, ()) if last >= number)
        age_s = self._now_s() - (at_s + steps_s)
        if number > self._last.get(kind, number):
            age_s = min(
                age_s, self._monotonic_s() - self._begun_s
            )  # a frame may be dated before a step, and come later
        return age_s if age_s > -FUTURE_S else None

    def last_old(self, kind: str, rows: Iterable[tuple[int, float | None]], most: int) -> int | None:
        """The last number up to which all rows are too old; rows without a date that can be right follow their next.

        Args:
            rows: numbers and dates, from the oldest on; read no further than needed.
            most: old ones that are wanted.
        """
        last, count, read = None, 0, 0
        if self._monotonic_s() < self._rests_until_s:
            return None
        for number, at_s in rows:
            read += 1
            age_s = self.age_s(kind, number, at_s)
            if age_s is None:
                continue
            if age_s < self.limit_s or count == most:
                break
            last, count = number, count + 1
        if last is None and read > MANY:
            self._rests_until_s = self._monotonic_s() + REST_S
        return last


class Deletions:
    """Says how much was deleted as the settings say: when the first of it is done, then once an hour at most, and at
    the end.

    Args: what: is deleted, and why, such as `records deleted, older than 90 days`.
    """

    def __init__(self, what: str, say: Callable[[str], None], *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._say = say
        self._now_s = now_s
        self._said_s: float | None = None
        self._unsaid = self._unread = 0

    def add(self, count: int, *, more: bool) -> None:
        """Count what was deleted. Args: more: whether more of it is to go."""
        self._unsaid += count
        self._unread += count
        if not more and (self._said_s is None or self._now_s() - self._said_s >= SAY_EVERY_S):
            self.tell()

    def tell(self) -> None:
        """Say what was not said yet."""
        if self._unsaid:
            self._say(f"{self._what}: {self._unsaid}")
            self._unsaid, self._said_s = 0, self._now_s()

    def read(self) -> int:
        """How many there were since this was last asked."""
        count, self._unread = self._unread, 0
        return count


def in_words(seconds: float) -> str:
    """A time as people say it: `90 days`, `36 hours`, `12 minutes`."""
    for size, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.3g} seconds"
