"""Keeps threads from each other of which one records a stream, and another does what CUDA forbids meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Recordings:
    """Of one device. While any thread records, none may wait for the whole device or load an engine, which may do so.

    CUDA would refuse that, and spoil the recording. A recording takes milliseconds, so the others wait for it; what is
    to be recorded does not wait for them, which may take long.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._recorder: int | None = None  # a thread
        self._others = 0

    @contextmanager
    def kept_out(self) -> Iterator[None]:
        """For what must not happen while somebody records; several threads may be in here."""
        with self._changed:
            # The thread that records would wait for itself. It gets CUDA's answer instead.
            self._changed.wait_for(lambda: self._recorder in (None, threading.get_ident()))
            self._others += 1
        try:
            yield
        finally:
            with self._changed:
                self._others -= 1

    @contextmanager
    def begun(self) -> Iterator[bool]:
        """For one thread to record in. Gives False, at once, where it must not."""
        with self._changed:
            may_record = self._recorder is None and self._others == 0
            if may_record:
                self._recorder = threading.get_ident()
        try:
            yield may_record
        finally:
            if may_record:
                with self._changed:
                    self._recorder = None
                    self._changed.notify_all()
