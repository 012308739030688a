"""Who hears SIGINT, SIGTERM and SIGHUP: one thread, from the first line of a command to the last.

A handler runs between any two steps of the main thread, inside of its locks and of other handlers, so nothing happens
in one: Python writes the signal's number to a pipe before it calls the handler, and the handler is a function of C that
does nothing. The thread behind the pipe may wait, lock and print.

What a request to end (Ctrl-C or SIGTERM) comes to:

* The first one is given to whoever takes it (`on_stop`: a line ends after the frames in hand). If nobody does, the main
  thread is interrupted: KeyboardInterrupt, once, so that what it cleans up behind that is not interrupted again.
* Python drops what is raised while it deletes an object; then the main thread is interrupted again.
* A main thread that does not come back, from native code or from cleaning up, is not waited for: the process ends.
* Signals that follow each other within `PRESS_S` are one request, however many they are. Another Ctrl-C after that
  interrupts the main thread, whoever took the first one; a third one ends the process.

A hangup is given to whoever takes it (`on_hangup`), and else ignored, which is said once. SIGINT and SIGTERM that are
ignored when the process starts, as SIGINT is in a background job of a script, stay ignored.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from edge_ad.signals.wakeup import HANGUP, HEARD, REQUESTS, Wakeup

EXIT_INTERRUPTED = 130  # 128 + SIGINT
PRESS_S = 0.3  # between two requests of a person; those of one storm, or of a key that bounces, are closer together
MOMENT_S = 1.5  # for which the main thread may be out of reach, in native code
CLEAN_UP_S = 10.0  # for which an interrupted main thread may clean up; cameras and servers close within a second each
KNOCK_S = 0.05  # between attempts to interrupt it: one that comes just before it begins to wait does not wake it
LAST_WORDS_S = 1.0  # for which standard error may be blocked
SHOW_CURSOR = b"\x1b[?25h"  # which a progress bar has hidden

_INTERRUPT: signal.Signals = next(
    getattr(signal, name) for name in ("SIGRTMAX", "SIGUSR2", "SIGBREAK") if hasattr(signal, name)
)
"""Sent to the main thread by the supervisor alone, so that this one handler may raise."""


def told() -> None:
    """What is said when the process ends without its main thread."""
    with suppress(OSError):
        os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + b"edge-ad: error: interrupted\n")


class Supervisor:
    """Hears the signals of this process; `supervised` and `supervise_process` make it.

    Args:
        wakeup: open.

    Attributes:
        interrupted: whether the main thread was interrupted; what it fails with from then on may come from that.
        wakeup: where they come from.
        last_words: what is called before the process ends without its main thread.
    """

    def __init__(self, wakeup: Wakeup) -> None:
        self.interrupted = False
        self.wakeup = wakeup
        self.last_words = told
        self._take_stop: Callable[[], bool] | None = None
        self._take_hangup: Callable[[], None] | None = None
        self._requests = 0
        self._last_s = -PRESS_S
        self._give_up_s: float | None = None
        self._may_raise = self._is_reached = self._has_told = False
        self._code: int | None = None
        self._main = threading.main_thread().ident
        self._interrupt_before: Any = None
        self._hook_before = sys.unraisablehook
        self._thread = threading.Thread(target=self._listen, name="edge-ad-signals", daemon=True)

    def open(self) -> None:
        """Hear signals; in the main thread."""
        self._interrupt_before = signal.signal(_INTERRUPT, self._interrupt)
        self._hook_before = sys.unraisablehook
        sys.unraisablehook = self._dropped
        self._thread.start()

    def close(self) -> None:
        """Give the signals back; in the main thread."""
        self._may_raise = False
        self.wakeup.end()
        self._thread.join()
        signal.signal(_INTERRUPT, self._interrupt_before)
        if sys.unraisablehook == self._dropped:
            sys.unraisablehook = self._hook_before
        self.wakeup.close()

    @contextmanager
    def on_stop(self, take: Callable[[], bool]) -> Iterator[None]:
        """While the block lasts, ask `take`, in another thread, whether it takes the first request to end."""
        before, self._take_stop = self._take_stop, take
        try:
            yield
        finally:
            self._take_stop = before

    @contextmanager
    def on_hangup(self, take: Callable[[], None]) -> Iterator[None]:
        """While the block lasts, call `take`, in another thread, for every hangup; once for those that come at once."""
        before, self._take_hangup = self._take_hangup, take
        try:
            yield
        finally:
            self._take_hangup = before

    @contextmanager
    def saying(self, last_words: Callable[[], None]) -> Iterator[None]:
        """While the block lasts, `last_words` are these."""
        before, self.last_words = self.last_words, last_words
        try:
            yield
        finally:
            self.last_words = before

    def finish(self, code: int) -> None:
        """The command has come to its end, with this exit code: nothing interrupts the main thread any more."""
        self._code = code
        self._may_raise = False
        self._is_reached = True

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._may_raise:
            self._may_raise = False
            self._is_reached = True
            raise KeyboardInterrupt

    def _dropped(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Told by Python of what was raised where it cannot be raised."""
        if not (self.interrupted and isinstance(unraisable.exc_value, KeyboardInterrupt)):
            self._hook_before(unraisable)
        elif self._code is None:
            self._is_reached, self._may_raise = False, True
            self.wakeup.nudge()

    def _listen(self) -> None:
        while True:
            wait_s = None if self._give_up_s is None else max(0.0, self._give_up_s - time.monotonic())
            if self._may_raise:
                wait_s = KNOCK_S if wait_s is None else min(KNOCK_S, wait_s)
            numbers = self.wakeup.wait(wait_s)
            if numbers is None:
                return
            if not numbers and self._may_raise:
                self._knock()
            if not numbers and self._give_up_s is not None and time.monotonic() >= self._give_up_s:
                self._lose_patience()
            if HANGUP is not None and HANGUP in numbers:
                self._hangup()
            for number in REQUESTS:
                if number in numbers:
                    self._request(number, is_one=numbers.count(number) == 1)

    def _hangup(self) -> None:
        take = self._take_hangup
        if take is not None:
            take()
        elif not self._has_told and self._code is None:
            self._has_told = True
            import logging

            nothing = "no line runs from a file (--config) whose thresholds could be read again"
            logging.getLogger(__name__).warning("SIGHUP is ignored: %s", nothing)

    def _request(self, number: int, *, is_one: bool) -> None:
        now_s = time.monotonic()
        again = is_one and now_s - self._last_s >= PRESS_S
        self._last_s = now_s
        if self._code is not None:
            self._give_up_s = self._give_up_s or now_s + MOMENT_S  # for what Python does behind it
        elif self._requests == 0:
            self._requests = 1
            take = self._take_stop
            if take is None or not take():
                self._give_up_s = now_s + MOMENT_S
                self._interrupt_main()
        elif again and number == signal.SIGINT:
            self._requests += 1
            if self._requests > 2:
                self._end()
            self._interrupt_main()

    def _interrupt_main(self) -> None:
        self.interrupted = self._may_raise = True
        self._knock()

    def _knock(self) -> None:
        if hasattr(signal, "pthread_kill") and self._main is not None:
            signal.pthread_kill(self._main, _INTERRUPT)  # what it waits for is interrupted as well
        else:
            _thread.interrupt_main(_INTERRUPT)

    def _lose_patience(self) -> None:
        """The main thread may clean up once it has been reached; else it is in native code, and may stay there."""
        if not self._is_reached:
            self._end()
        self._is_reached = False
        self._give_up_s = time.monotonic() + CLEAN_UP_S

    def _end(self) -> None:
        if self._code is None:
            words = threading.Thread(target=self.last_words, daemon=True)
            with suppress(RuntimeError):  # the interpreter is at its end
                words.start()
                words.join(LAST_WORDS_S)
        os._exit(EXIT_INTERRUPTED if self._code is None else self._code)


_current: Supervisor | None = None
_forks_are_told = False
_held = threading.local()


def was_interrupted() -> bool:
    """Whether a signal has interrupted the main thread; a library may have made another exception of it since."""
    return _current is not None and _current.interrupted


@contextmanager
def supervised() -> Iterator[Supervisor | None]:
    """The supervisor of this process, or one for the block; None where there is none outside of the main thread."""
    global _current
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield _current
        return
    supervisor = _opened()
    try:
        yield supervisor
    finally:
        _current = None
        supervisor.close()


def supervise_process(wakeup: Wakeup | None = None) -> Supervisor:
    """The supervisor of this process, up to its last line; in the main thread. Args: wakeup: if one is open already."""
    if _current is not None:
        return _current
    return _opened(wakeup, for_good=True)


def give_up() -> int:
    """End a process that was interrupted before it could say so itself. Returns: the exit code."""
    if _current is not None:
        _current.finish(EXIT_INTERRUPTED)
        _current.last_words()
    return EXIT_INTERRUPTED


def _opened(wakeup: Wakeup | None = None, *, for_good: bool = False) -> Supervisor:
    global _current, _forks_are_told
    if not _forks_are_told and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_forget)
        _forks_are_told = True
    if wakeup is None:
        wakeup = Wakeup()
        wakeup.open()
    if for_good:
        atexit.register(wakeup.ignore)
    _current = Supervisor(wakeup)
    _current.open()
    return _current


def _hold() -> None:
    """Before a fork: what the other process gets before it is told may not be written to this one's pipe."""
    _held.mask = None if _current is None else signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)


def _release() -> None:
    if _held.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _forget() -> None:
    global _current
    supervisor, _current = _current, None
    if supervisor is not None:
        supervisor.wakeup.forget()
    _release()
