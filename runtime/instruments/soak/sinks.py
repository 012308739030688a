"""Sinks of a soak: one that is never at fault and checks, one that writes files and is, one that looks at pictures."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.instruments.soak.books import Books, tag_of
from edge_ad.runtime.instruments.soak.checks import Findings
from edge_ad.runtime.instruments.soak.clock import WrongClock
from edge_ad.runtime.instruments.soak.dice import Dice
from edge_ad.runtime.instruments.soak.fingerprint import read
from edge_ad.runtime.sinks import Sink


class Witness:
    """Takes every record and holds it against the books; never fails."""

    keeps_records = True

    def __init__(self, books: Books) -> None:
        self.taken = 0
        self._books = books

    def __enter__(self) -> Witness:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self._books.record(entry)
        self.taken += 1

    def event(self, entry: Mapping[str, Any]) -> None:
        self._books.event(entry)
        self.taken += 1


class FaultySink:
    """A sink whose writes meet faults.

    Attributes:
        done: writes that the inner sink has taken, of records and events.
        records: those of records.
        closed: ends what the faults wait for.
        stays: set when the line is about to stop: nobody notices what is taken away after a sink's last look.
        path: of the file that the inner sink writes, where it has one.
        clock: by which it tells how old things are.
    """

    def __init__(self, inner: Sink, dice: Dice, clock: WrongClock) -> None:
        self.done = self.records = 0
        self.keeps_records = bool(getattr(inner, "keeps_records", False))
        self.closed = threading.Event()
        self.stays = threading.Event()
        self.name = type(inner).__name__
        self.path: Path | None = getattr(inner, "path", None)
        self.clock = clock
        self._inner = inner
        self._dice = dice
        self._planned: deque[Callable[[], None]] = deque()
        if hasattr(inner, "event"):
            self.event = self._event
        for name in ("look", "written_off"):
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))

    def __enter__(self) -> FaultySink:
        self._inner.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.closed.set()
        self._inner.__exit__(exc_type, exc, traceback)

    def then(self, *writes: Callable[[], None]) -> None:
        """What is to happen before the next writes."""
        self._planned.extend(writes)

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self._suffer()
        self._inner.write(frame, verdict, entry)
        self.records += 1
        self.done += 1

    def _event(self, entry: Mapping[str, Any]) -> None:
        self._suffer()
        self._inner.event(entry)  # type: ignore[attr-defined]
        self.done += 1

    def _suffer(self) -> None:
        if self._planned:
            self._planned.popleft()()
        elif (fault := self._dice.draw()) is not None:
            fault.strike(self, self._dice.random)


class Gallery:
    """Looks whether the picture beside a record is the record's own."""

    keeps_records = False

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        kind, fingerprint = tag_of(entry["path"])
        if kind == "good" and frame.image_hwc is not None and read(frame.image_hwc) != fingerprint:
            which = f"{entry['source']} frame {entry['frame_id']}"
            self._findings.add("own picture", f"{which}: shows {read(frame.image_hwc)} in place of {fingerprint}")
