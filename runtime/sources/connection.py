"""A source that is opened, read and closed in a thread of its own, so that its reader can leave it when it hangs."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue

from edge_ad.errors import EdgeAdError, SourceError
from edge_ad.image.frame import Frame, FrameSource
from edge_ad.runtime.sources.outage import Interruptible

CLOSE_S = 1.0
"""How long closing waits for the thread."""


class HungError(Exception):
    """The source did not answer in time."""


class InterruptedReadError(Exception):
    """Another thread wants the reader back."""


class _Opened:
    """The answer to opening."""


class Connection:
    """One opening of `source`, which begins at once.

    All of the source's life is in one thread: releasing a device while another thread reads from it crashes in more
    than one driver. A thread that hangs is left alone; should it come back, it closes the source and ends.
    """

    def __init__(self, source: FrameSource) -> None:
        self.source = source
        self._wants: SimpleQueue[bool] = SimpleQueue()  # True for a frame, False for the end
        self._answers: SimpleQueue[Frame | _Opened | Exception | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="edge-ad-source", daemon=True)
        self._thread.start()

    def wait_open(self, limit_s: float | None) -> None:
        """Wait until the source is open.

        Raises: what opening raised; HungError after `limit_s`; InterruptedReadError.
        """
        self._answer(limit_s)

    def read(self, limit_s: float | None) -> Frame | None:
        """The next frame, or None behind the last.

        Raises: what the source raised; HungError after `limit_s`; InterruptedReadError.
        """
        self._wants.put(True)
        answer = self._answer(limit_s)
        assert not isinstance(answer, _Opened)
        return answer

    def interrupt(self) -> None:
        """Free the reader that waits; callable from any thread."""
        self._answers.put(InterruptedReadError())

    def close(self, wait_s: float = CLOSE_S) -> bool:
        """Ask the thread to close the source. Returns: whether it has done so within `wait_s`."""
        self._wants.put(False)
        if isinstance(self.source, Interruptible):
            self.source.interrupt()
        self._thread.join(wait_s)
        return self.is_closed

    @property
    def is_closed(self) -> bool:
        return not self._thread.is_alive()

    def _answer(self, limit_s: float | None) -> Frame | _Opened | None:
        try:
            answer = self._answers.get(timeout=limit_s)
        except Empty:
            raise HungError from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _run(self) -> None:
        try:
            with self.source:
                self._answers.put(_Opened())
                while self._wants.get():
                    self._answers.put(self.source.read())
        except EdgeAdError as exc:  # raised in the thread of the reader
            self._answers.put(exc)
        except Exception as exc:
            # A station goes on after a fault of a driver that nobody foresaw. Its text may hold an address.
            fault = f"failed with {type(exc).__name__}, a defect of edge-ad or of a driver"
            self._answers.put(SourceError(f"{self.source.name}: {fault}").with_traceback(exc.__traceback__))
