"""The driver's side of the protocol: a peer as a process that answers one request at a time, within bounded time."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

LONGEST_S = 600.0
LINES_KEPT = 3


class PeerError(Exception):
    """A peer that cannot do what it was asked for; the message is one line."""


class PeerProcess:
    """A peer that runs. Use it in a `with` block.

    Args:
        command: that starts it.
        folder: where it runs and leaves its caches.

    Attributes:
        started_s: `time.perf_counter` when it was started.
    """

    def __init__(self, command: list[str], folder: Path, *, longest_s: float = LONGEST_S) -> None:
        self._command = command
        self._folder = folder
        self._longest_s = longest_s
        self.started_s = 0.0

    def __enter__(self) -> PeerProcess:
        self._errors_path = self._folder / "peer-stderr.txt"
        self._errors = self._errors_path.open("wb")
        self.started_s = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                encoding="utf-8",
            )
        except OSError as exc:
            self._errors.close()
            raise PeerError(f"{self._command[0]} cannot be started: {exc.strerror}") from exc
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, do: str, **given: object) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises: PeerError for a fault, silence, or a peer that has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **given}) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=self._longest_s)
            answer = json.loads(line) if line else None
        except BrokenPipeError:
            answer = None
        except queue.Empty:
            raise PeerError(f"no answer to {do!r} within {self._longest_s:g} s") from None
        except ValueError as exc:
            raise PeerError(f"the answer to {do!r} is no JSON") from exc
        if not isinstance(answer, dict):
            raise PeerError(f"ended at {do!r}: {self._last_words()}")
        if "fault" in answer:
            raise PeerError(str(answer["fault"]))
        return answer

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)  # its answers end before it does
        lines = self._errors_path.read_text("utf-8", errors="replace").split("\n")
        return " / ".join(line.strip() for line in lines if line.strip())[-400:] or "without a word"

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._errors.close()
