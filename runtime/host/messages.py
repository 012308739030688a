"""Telling the user something, where nothing may depend on whether that works."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

BURST, WINDOW_S = 6, 60.0  # changes that are said in so many seconds


def unfailing(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say`, but never raising: a closed pipe or a full disk behind standard error must not cost a verdict."""

    def tell(line: str) -> None:
        try:
            say(line)
        except Exception:
            log.debug("could not be said: %s", line)

    return tell


class UpAndDown:
    """Says that something is down, and that it is up again; what changes all the time, now and then.

    The last that was said is what holds, as long as `remind` is called every now and then. Thread-safe.

    Args:
        say: receives the lines.
        up: makes the line for what is up again.
    """

    def __init__(
        self, say: Callable[[str], None], up: Callable[[], str], *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._up = up
        self._now_s = now_s
        self._lock = threading.Lock()
        self._line: str | None = None  # while it is down
        self._since_s = 0.0  # of the line
        self._said_down = False
        self._said_s: deque[float] = deque(maxlen=BURST)
        self._unsaid = 0  # changes since then

    @property
    def down_for_s(self) -> float:
        """How long it has been down without a break; 0 while it is up."""
        with self._lock:
            return 0.0 if self._line is None else self._now_s() - self._since_s

    def down(self, line: str) -> None:
        """It does not work; of several lines in a row the first counts."""
        self._change(line)

    def up(self) -> None:
        """It works."""
        self._change(None)

    def _change(self, line: str | None) -> None:
        with self._lock:
            if (line is None) == (self._line is None):
                return
            self._line = line
            self._since_s = self._now_s()
            self._unsaid += 1
        self.remind()

    def remind(self) -> None:
        """Say what was held back, if it still holds and the time has come."""
        with self._lock:
            now_s = self._now_s()
            if self._said_down == (self._line is not None):
                return
            if len(self._said_s) == BURST and now_s - self._said_s[0] < WINDOW_S:
                return
            line = self._up() if self._line is None else self._line
            if self._unsaid > 1:
                line = f"{line} (it has changed {self._unsaid} times meanwhile)"
            self._said_s.append(now_s)
            self._said_down, self._unsaid = self._line is not None, 0
            self._say(line)


class Seldom:
    """Says what may happen again and again `BURST` times in `WINDOW_S` seconds at most, and how often it was not said.

    Args:
        say: receives the lines.
    """

    def __init__(self, say: Callable[[str], None], *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now_s = now_s
        self._said_s: deque[float] = deque(maxlen=BURST)
        self._unsaid = 0

    def __call__(self, line: str) -> None:
        now_s = self._now_s()
        if len(self._said_s) == BURST and now_s - self._said_s[0] < WINDOW_S:
            self._unsaid += 1
            return
        self._said_s.append(now_s)
        more, self._unsaid = self._unsaid, 0
        self._say(f"{line} ({more} more like this were not said)" if more else line)
