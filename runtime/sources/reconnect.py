"""Sources that come back: opened again after they were lost, and given up when they hang."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame, FrameSource
from edge_ad.runtime.sources.backoff import Backoff
from edge_ad.runtime.sources.capture import START_AGAIN
from edge_ad.runtime.sources.connection import Connection, HungError, InterruptedReadError
from edge_ad.runtime.sources.outage import Cause, Lost, Outage, Returned

MOST_HUNG = 3
"""Openings that may hang at the same time; the next attempt waits until one of them ends."""

MOST_UNTOLD = 1000  # outages that nobody has asked for yet


@dataclass(frozen=True)
class Patience:
    """How a source is waited for.

    Attributes:
        reconnect_s: for how long it is tried again once it is lost; None for ever, 0 not at all.
        wait_at_start: whether it may be absent when it is first opened.
        watchdog_s: seconds without a frame after which a read has hung; None for never.
        open_s: seconds after which opening has hung.
        base_s, cap_s: first and largest limit of the pauses between attempts, see `Backoff`.
        good_s: seconds after which an opening that gave frames counts as good, so that the next pauses are short again.
    """

    reconnect_s: float | None = None
    wait_at_start: bool = False
    watchdog_s: float | None = 15.0
    open_s: float = 30.0
    base_s: float = 0.5
    cap_s: float = 10.0
    good_s: float = 10.0


class Reconnecting:
    """A live source that outlives its connections. Frame numbers go on counting.

    While it is away, `read` waits; `interrupt` and closing free it. Whoever wants to know of outages says so with
    `report_to`.

    Args:
        open_anew: makes the source that is opened; called for each opening.
        patience: how long to wait for what.

    Attributes:
        name, live, length: of the source that was opened last.
    """

    def __init__(self, open_anew: Callable[[], FrameSource], patience: Patience) -> None:
        self._open_anew = open_anew
        self._patience = patience
        self._backoff = Backoff(patience.base_s, patience.cap_s)
        self._source = open_anew()
        self.name = self._source.name
        self.live = self._source.live
        self.length = self._source.length
        self._connection: Connection | None = None
        self._hung: list[Connection] = []
        self._closed = threading.Event()
        self._lock = threading.Lock()  # guards the choice between a new connection and closing
        self._next_id = 0
        self._since_s = 0.0  # when the last change between lost and found was
        self._gave_frames = False  # since it was opened
        self._attempts = 0
        self._reason = ""
        self._listener: Callable[[Outage], None] | None = None
        self._untold: deque[Outage] = deque(maxlen=MOST_UNTOLD)

    def report_to(self, listener: Callable[[Outage], None]) -> None:
        self._listener = listener
        while self._untold:
            listener(self._untold.popleft())

    def __enter__(self) -> Reconnecting:
        """Open. Raises: SourceError when it does not open and is not to be waited for."""
        self._closed.clear()
        self._next_id = 0
        self._backoff.reset()
        try:
            self._open(self._source)
        except SourceError as exc:
            if not self._patience.wait_at_start or self._patience.reconnect_s == 0:
                raise
            self._note_loss("absent", self._said(exc))
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close. A read that hangs in the driver keeps its device and releases it when it comes back, if ever."""
        self.interrupt()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def interrupt(self) -> None:
        with self._lock:
            self._closed.set()
            if self._connection is not None:
                self._connection.interrupt()

    def read(self) -> Frame | None:
        """Next frame, after as many attempts as it takes, or None at its end or when it was closed.

        Raises: SourceError when the source was away for longer than it may be.
        """
        while not self._closed.is_set():
            connection = self._connection
            if connection is None:
                if not self._reopened():
                    return None
                continue
            try:
                frame = connection.read(self._patience.watchdog_s)
            except InterruptedReadError:
                return None
            except HungError:
                self._lose("hung", f"gave no frame for {self._patience.watchdog_s:g} s")
            except SourceError as exc:
                self._lose("lost", self._said(exc))
                if self._patience.reconnect_s == 0:
                    raise
            else:
                self._gave_frames = True
                return None if frame is None else self._numbered(frame)
        return None

    def _numbered(self, frame: Frame) -> Frame:
        number, self._next_id = self._next_id, self._next_id + 1
        if (frame.frame_id, frame.source) == (number, self.name):
            return frame
        return replace(frame, frame_id=number, source=self.name)

    def _open(self, source: FrameSource) -> None:
        """Open `source` and make it the one to read. Raises: SourceError; InterruptedReadError when it was closed."""
        with self._lock:
            if self._closed.is_set():  # nobody would close this one
                raise InterruptedReadError
            self._connection = connection = Connection(source)
        try:
            connection.wait_open(self._patience.open_s)
        except HungError:
            self._drop(hung=True)
            raise SourceError(
                f"{self.name}: did not open within {self._patience.open_s:g} s;"
                " check the device and its cable or network"
            ) from None
        except BaseException:
            self._drop(hung=False)
            raise
        self._source, self.live, self.length = source, source.live, source.length
        self._since_s = time.monotonic()
        self._gave_frames = False

    def _reopened(self) -> bool:
        """Try until the source is open. Returns: False when it was closed meanwhile. Raises: SourceError."""
        lost_s, limit_s = self._since_s, self._patience.reconnect_s
        if limit_s == 0:
            raise SourceError(f"{self.name}: {self._reason}; check the device and its cable or network{START_AGAIN}")
        while True:
            pause_s = self._backoff.next_s()
            if limit_s is not None:
                left_s = lost_s + limit_s - time.monotonic()
                if left_s <= 0:
                    raise SourceError(
                        f"{self.name}: away for {limit_s:g} s and {self._attempts} attempt(s): {self._reason};"
                        " check the device and its cable or network, or allow more with --reconnect"
                    )
                pause_s = min(pause_s, left_s)
            if self._closed.wait(pause_s):
                return False
            self._hung = [connection for connection in self._hung if not connection.is_closed]
            if len(self._hung) >= MOST_HUNG:
                continue
            self._attempts += 1
            try:
                self._open(self._open_anew())
            except InterruptedReadError:
                return False
            except SourceError as exc:
                self._reason = self._said(exc)
                continue
            self._tell(Returned(*_now(), away_s=self._since_s - lost_s, attempts=self._attempts))
            return True

    def _lose(self, cause: Cause, reason: str) -> None:
        if self._gave_frames and time.monotonic() - self._since_s >= self._patience.good_s:
            self._backoff.reset()
        self._drop(hung=cause == "hung")
        self._note_loss(cause, reason)

    def _note_loss(self, cause: Cause, reason: str) -> None:
        self._since_s = time.monotonic()
        self._attempts = 0
        self._reason = reason
        self._tell(Lost(*_now(), cause, reason))

    def _drop(self, *, hung: bool) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        # A device that is still being released does not open again, so this waits; not for one that hangs, though.
        if connection is not None and not connection.close(0.0 if hung else 1.0):
            self._hung.append(connection)

    def _said(self, exc: SourceError) -> str:
        return str(exc).removeprefix(f"{self.name}: ").removesuffix(START_AGAIN)

    def _tell(self, outage: Outage) -> None:
        if self._listener is None:
            self._untold.append(outage)
        else:
            self._listener(outage)


def _now() -> tuple[datetime, int]:
    return datetime.now(timezone.utc), time.monotonic_ns()
