"""A run as machines see it from outside: is it alive and ready, what are its figures, what may be asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_ad.record.verdict import Provenance
from edge_ad.runtime.host.health import Check, Grade, found
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling.thresholds import InUse
from edge_ad.runtime.line.scheduling.trigger import Fired
from edge_ad.runtime.line.status import LineStatus
from edge_ad.runtime.line.telemetry import Telemetry

STARTING = "the line is starting: its engine is not warm, or its sources are not open"
ENDED = "the line has ended"


class Reload(Protocol):
    """Reads thresholds again when it is called, and raises EdgeAdError where they cannot be used.

    Attributes:
        done, failed: how often it did, and could not.
    """

    done: int
    failed: int

    def __call__(self) -> None: ...


@dataclass(frozen=True)
class Work:
    """A line that was put together."""

    line: Line
    telemetry: Telemetry
    provenance: Provenance
    reload: Reload


class RunView:
    """What the door of a line (HTTP, or another one) talks to; thread-safe, and never waits for the line.

    Parts that the line itself does not know of say with `watch` how they are.

    Attributes:
        work: None before the line is put together and after it has ended, which may be between two looks at it.
    """

    def __init__(self) -> None:
        self.work: Work | None = None
        self._ended = False
        self._checks: list[Check] = []

    def watch(self, check: Check) -> None:
        """Ask a part of the process how it is, whenever somebody asks for the health of the run."""
        self._checks.append(check)

    def open(self, work: Work) -> None:
        """Let the outside at a line."""
        self.work = work

    def close(self) -> None:
        """Say that the line has ended."""
        self._ended = True
        self.work = None

    @property
    def idle(self) -> str:
        """Why there is no line."""
        return ENDED if self._ended else STARTING

    def ill(self) -> list[str]:
        """Why the process should be started again; empty when it is alive, even if it is not ready."""
        status = self._status()
        dead = [] if status is None else status.dead()
        return [*dead, *self._said("ill", status)]

    def noted(self) -> list[str]:
        """What is no reason for either, or not for starting the process again, and should be known."""
        return self._said("noted", status := self._status()) + self._said("unready", status)

    def unready(self) -> list[str]:
        """Why parts should not be sent past the cameras now; empty when all is ready."""
        status = self._status()
        if status is None:
            return [self.idle]
        computing = status.computing()
        engine = [] if computing is None else [computing]
        faults = [fault for fault in status.delivering().values() if fault]
        said = [*self._said("ill", status), *self._said("unready", status)]
        dead = [*dict.fromkeys([*status.dead(), *status.waiting()])]
        return [*dead, *engine, *faults, *status.stuck(), *said]

    def troubles(self) -> dict[str, str]:
        """What is wrong with the line's files, by sink, and no reason to start it again."""
        status = self._status()
        return {} if status is None else status.troubles()

    def fire(self, camera: str, part_id: object) -> Fired | None:
        """Trigger a camera; None while there is no line."""
        work = self.work
        return None if work is None else work.line.triggers.fire(camera, part_id)

    def thresholds(self) -> Mapping[str, InUse] | None:
        """Those in use by camera; None while there is no line."""
        work = self.work
        return None if work is None else work.line.thresholds.snapshot()

    def _said(self, grade: Grade, status: LineStatus | None) -> list[str]:
        conditions = [*found(self._checks), *([] if status is None else status.conditions())]
        return [one.text for one in conditions if one.grade == grade]

    def _status(self) -> LineStatus | None:
        work = self.work
        return None if work is None else work.line.status
