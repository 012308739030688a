"""The pipe through which Python tells a thread of the signals that have come; cheap to load, for it comes first."""

from __future__ import annotations

import operator
import os
import signal
from collections.abc import Callable
from select import select
from typing import Any

REQUESTS = (signal.SIGINT, signal.SIGTERM)
HANGUP: int | None = getattr(signal, "SIGHUP", None)
HEARD = REQUESTS if HANGUP is None else (*REQUESTS, HANGUP)
_MOST = 1 << 16  # bytes that a pipe holds, one for each signal
_END, _NUDGE = b"\0", b"\xff"  # no signals have these numbers
_nothing = operator.is_  # two arguments; written in C, so the next signal cannot come in between its steps


class Wakeup:
    """The numbers of the signals of `HEARD`, written by Python before it calls their handlers, which do nothing.

    SIGINT and SIGTERM that are ignored when it opens stay ignored. A thread reads; all else is for the main thread.
    """

    def __init__(self) -> None:
        self._receive: Callable[[int], bytes]
        self._send: Callable[[bytes], int]
        self._close: list[Callable[[], None]]
        if os.name == "posix":
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            self._receive, self._send = lambda size: os.read(reader, size), lambda data: os.write(writer, data)
            self._close = [lambda: os.close(reader), lambda: os.close(writer)]
        else:  # where only sockets can be waited for
            import socket

            receiver, sender = socket.socketpair()
            sender.setblocking(False)
            reader, writer = receiver.fileno(), sender.fileno()
            self._receive, self._send, self._close = receiver.recv, sender.send, [receiver.close, sender.close]
        self._reader, self._writer = reader, writer
        self._before = -1
        self._previous: dict[int, Any] = {}

    def open(self) -> None:
        """Take the signals over; those that come before somebody reads wait in the pipe."""
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in HEARD:
            if number == HANGUP or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, _nothing)
                if hasattr(signal, "siginterrupt"):
                    signal.siginterrupt(number, False)  # for libraries that take an interrupted call for a failed one

    def wait(self, timeout_s: float | None) -> bytes | None:
        """Numbers of the signals that came, each as often as it did; empty after `timeout_s`, None after `end`."""
        if not select([self._reader], [], [], timeout_s)[0]:
            return b""
        numbers = self._receive(_MOST)
        return None if _END in numbers else numbers

    def nudge(self) -> None:
        """Have `wait` return, for a reason that is no signal."""
        self._send(_NUDGE)

    def end(self) -> None:
        """No more signals; `wait` returns None."""
        signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
        self._send(_END)

    def close(self) -> None:
        """Give the signals back, when `wait` has returned None."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        for close in self._close:
            close()

    def ignore(self) -> None:
        """Ignore the signals for the rest of the process; at its end Python would give them back to the system."""
        for number in self._previous:
            signal.signal(number, signal.SIG_IGN)

    def forget(self) -> None:
        """Give the signals back in a process that was forked off; they are not for this one."""
        signal.set_wakeup_fd(-1)
        for number in self._previous:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
