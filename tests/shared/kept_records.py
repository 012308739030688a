"""A sink that keeps what it is given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from patience import PATIENCE_S

from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict, record_schema

VALIDATOR = Draft202012Validator(record_schema())
Entry = Mapping[str, Any]


class Records:
    """Keeps records and events; `before` may raise or wait, `after` is told of every record."""

    keeps_records = True

    def __init__(
        self, before: Callable[[Entry], object] = lambda _: None, after: Callable[[Entry], object] = lambda _: None
    ) -> None:
        self.before, self.after = before, after
        self.entries: list[Entry] = []
        self.events: list[Entry] = []
        self.came = threading.Condition()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def write(self, frame: Frame, verdict: Verdict, entry: Entry) -> None:
        self.before(entry)
        self._keep(self.entries, entry)
        self.after(entry)

    def event(self, entry: Entry) -> None:
        self._keep(self.events, entry)

    def _keep(self, kept: list[Entry], entry: Entry) -> None:
        with self.came:
            kept.append(entry)
            self.came.notify_all()

    def wait(self, entries: int = 0, events: int = 0) -> None:
        """Wait until there are so many."""
        with self.came:
            assert self.came.wait_for(
                lambda: len(self.entries) >= entries and len(self.events) >= events, PATIENCE_S
            ), (self.entries, self.events)

    def check(self) -> None:
        """Hold all of them against the published schema."""
        for entry in (*self.entries, *self.events):
            VALIDATOR.validate(dict(entry))

    @property
    def statuses(self) -> list[str]:
        return [entry["status"] for entry in self.entries]
