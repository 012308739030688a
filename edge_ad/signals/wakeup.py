"""The pipe through which Python tells a thread of the signals that have come."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from select import select

MOST = 1 << 16  # bytes that a pipe holds, one for each signal
_END = b"\0"  # no signal has this number


class Wakeup:
    """Numbers of signals, written by Python before it calls their handlers, and read by a thread."""

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

    def open(self) -> None:
        """From now on; in the main thread."""
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def wait(self, timeout_s: float | None) -> bytes | None:
        """Numbers of the signals that came, each as often as it did; empty after `timeout_s`, None after `end`."""
        if not select([self._reader], [], [], timeout_s)[0]:
            return b""
        numbers = self._receive(MOST)
        return None if _END in numbers else numbers

    def end(self) -> None:
        """No more signals, in the main thread; `wait` returns None."""
        signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
        self._send(_END)

    def close(self) -> None:
        """When `wait` has returned None."""
        for close in self._close:
            close()
