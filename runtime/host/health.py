"""What is wrong with the parts of a run, said by each part itself, to whoever asks from another thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from edge_ad.errors import one_line

log = logging.getLogger(__name__)

Grade = Literal["ill", "unready", "noted"]
MOST = 100  # threads whose end is remembered


@dataclass(frozen=True)
class Condition:
    """One thing that is wrong now.

    Attributes:
        text: one line that begins with the part; without addresses and paths, for `/healthz` says it to everybody.
        grade: `ill`, the process should be started again; `unready`, parts should not be sent past the cameras;
            `noted`, nothing is lost and it mends itself, or somebody elsewhere has to mend it.
    """

    text: str
    grade: Grade


Check = Callable[[], Iterable[Condition]]
"""Says what is wrong with one part; called from any thread, must not wait for anything but short locks."""


def found(checks: Iterable[Check]) -> list[Condition]:
    """What all checks say; one that fails is a trouble itself."""
    conditions: list[Condition] = []
    for check in checks:
        try:
            conditions += check()
        except Exception as exc:
            log.exception("health check")
            conditions.append(Condition(f"a health check failed: {type(exc).__name__}: {one_line(exc)}", "ill"))
    return conditions


class ThreadDeaths:
    """Remembers every thread of the process that a defect ends while it is entered, and logs it.

    Threads that end in a way that their part knows of are that part's to report.
    """

    def __init__(self) -> None:
        self._ended: dict[str, str] = {}
        self._before: Callable[[Any], object] = threading.excepthook

    def __enter__(self) -> ThreadDeaths:
        self._before = threading.excepthook
        threading.excepthook = self._note
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if threading.excepthook == self._note:
            threading.excepthook = self._before

    def conditions(self) -> list[Condition]:
        return [Condition(f"the thread {name} has ended: {reason}", "ill") for name, reason in [*self._ended.items()]]

    def _note(self, args: threading.ExceptHookArgs) -> None:
        name = "unknown" if args.thread is None else args.thread.name
        if args.exc_value is not None:
            log.error("thread %s", name, exc_info=args.exc_value)
        if len(self._ended) < MOST:
            self._ended[name] = args.exc_type.__name__
