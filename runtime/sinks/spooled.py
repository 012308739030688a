"""What sinks have in common that store records on disk first, and send them from there when they can."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_ad.errors import OutputError, one_line
from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict, record_line
from edge_ad.runtime.host.health import Condition
from edge_ad.runtime.host.messages import UpAndDown
from edge_ad.runtime.sinks.counts import SinkCounts
from edge_ad.runtime.sinks.naming import idempotency_key
from edge_ad.runtime.sinks.selection import is_reject
from edge_ad.runtime.sinks.spool import Spool

log = logging.getLogger(__name__)

IDLE_S = 0.5  # how often a sender that nobody wakes looks for something to do
REST_S = 1.0  # after a failure that it has no rule for
DOWN_S = 1.0  # without a break, after which the end of the run no longer waits for a receiver
END_S = 1.0  # how long a sender may take to end, beyond the time for what waits


class SpooledSink(ABC):
    """Takes a record once it is in the spool; a thread of its own sends it. Delivery is at least once.

    Every line has a `key`, the same for each delivery of a record, by which its receiver can tell a repeated one.
    Lines of earlier runs go first.

    Args:
        spool: for this sink alone.
        run_id: of this run.
        which: `all` records and events, or only `rejects` and all events.
        flush_s: how long the end of the run waits for what still waits; less if the receiver is down for `DOWN_S`.
        say: receives what the user should know, one line each.
        now_s: the clock of these two.
    """

    keeps_records = True

    def __init__(
        self,
        spool: Spool,
        run_id: str,
        *,
        which: str = "all",
        flush_s: float = 3.0,
        say: Callable[[str], None] = lambda _: None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._run_id = run_id
        self._which = which
        self._flush_s = flush_s
        self._tell = say
        self._now_s = now_s
        self._wake = threading.Event()
        self._end = threading.Event()
        self._state = UpAndDown(
            say, lambda: f"{spool.name} delivers again; {spool.waiting} records wait for it", now_s=now_s
        )
        self._thread = threading.Thread(target=self._run, name=f"edge-ad-{type(self).__name__}-sender", daemon=True)

    def __enter__(self) -> SpooledSink:
        """Raises: OutputError when the spool cannot be opened."""
        self._spool.__enter__()
        try:
            self._begin()
        except BaseException:
            self._spool.__exit__(None, None, None)
            raise
        self._thread.start()
        return self

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        """Raises: OutputError when the spool cannot take it."""
        if self._which == "all" or is_reject(entry):
            self.event(entry)

    def event(self, entry: Mapping[str, Any]) -> None:
        """Raises: OutputError when the spool cannot take it."""
        self._spool.put(record_line({"key": idempotency_key(entry, self._run_id), **entry}))
        self._wake.set()

    @property
    def path(self) -> Path:
        """Of the spool."""
        return self._spool.path

    def look(self) -> None:
        """Raises: OutputError when the spool was taken away, and cannot be written again."""
        self._spool.look()

    def account(self) -> SinkCounts:
        """Records in the spool, those of earlier runs included, and what became of them."""
        return self._spool.counts()

    @property
    def is_in_use(self) -> bool:
        """Whether its threads should run."""
        return self._thread.ident is not None and not self._end.is_set()

    def conditions(self) -> Iterator[Condition]:
        """See `edge_ad.runtime.host.health`."""
        if self.is_in_use and not self._thread.is_alive():
            yield Condition(f"the thread {self._thread.name} has ended", "ill")

    @abstractmethod
    def _begin(self) -> None:
        """Prepare the connection; must not wait for it."""

    @abstractmethod
    def _send(self) -> None:
        """Send what can be sent now; called with every record, and every `IDLE_S` without one. Raises: OutputError."""

    @abstractmethod
    def _finish(self) -> None:
        """Close the connection, from the thread that leaves the sink."""

    def _run(self) -> None:
        while not self._end.is_set():
            self._wake.wait(IDLE_S)
            self._wake.clear()
            try:
                self._try_to_send()
            except Exception as exc:  # of saying that it failed
                log.error("%s", type(self).__name__, exc_info=exc)
                self._pause(REST_S)

    def _try_to_send(self) -> None:
        try:
            self._state.remind()
            self._send()
        except OutputError as exc:
            self._is_down(str(exc))
            self._pause(REST_S)
        except Exception as exc:
            log.error("%s", type(self).__name__, exc_info=exc)
            self._is_down(f"{self._spool.name}: {one_line(exc)}")
            self._pause(REST_S)

    def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        self._end.wait(seconds)

    def _is_down(self, reason: str) -> None:
        """Let it be said that records wait."""
        if not self._end.is_set():
            self._state.down(f"warning: {reason}; records wait on disk ({self._spool.path})")

    def _is_up(self) -> None:
        self._state.up()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        until_s = self._now_s() + self._flush_s
        while self._spool.waiting and self._state.down_for_s < DOWN_S and self._now_s() < until_s:
            self._wake.set()
            self._end.wait(0.02)
        self._end.set()
        self._wake.set()
        self._thread.join(END_S)
        self._finish()
        self._thread.join(END_S)
        self._spool.__exit__(None, None, None)
        waiting = self._spool.waiting
        if waiting:
            self._tell(f"{waiting} records wait in {self._spool.path}; the next run with this output delivers them")
