"""What a source says when it is lost and when it is back, and what it lets others do meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

Cause = Literal["absent", "lost", "hung"]


@dataclass(frozen=True)
class Lost:
    """The source gives no frame and is opened again.

    Attributes:
        at, monotonic_ns: when this was found.
        cause: `absent` at the start, `lost` by its own word, or `hung` in a read that the watchdog gave up.
        reason: what it said, without its name.
    """

    at: datetime
    monotonic_ns: int
    cause: Cause
    reason: str


@dataclass(frozen=True)
class Returned:
    """The source gives frames again.

    Attributes:
        at, monotonic_ns: when it had its first frame.
        away_s: seconds since it was lost.
        attempts: how many times it was opened for that.
    """

    at: datetime
    monotonic_ns: int
    away_s: float
    attempts: int


Outage = Lost | Returned


@runtime_checkable
class ReportsOutages(Protocol):
    """A source that is lost and comes back."""

    def report_to(self, listener: Callable[[Outage], None]) -> None:
        """Tell `listener` of every outage, from the thread that reads; those before this call at once."""
        ...


@runtime_checkable
class Interruptible(Protocol):
    """A source that may wait for long, and that another thread can free."""

    def interrupt(self) -> None:
        """Let the read that is under way, and every later one, return None soon; callable from any thread."""
        ...
