"""Records as lines of JSON, to files or to standard output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_ad.errors import OutputError, os_reason
from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict, record_line
from edge_ad.runtime.host.results import RECORDS
from edge_ad.runtime.sinks import output_folder, set_aside
from edge_ad.runtime.sinks.line_file import LineFile
from edge_ad.runtime.sinks.rotation import Rotation
from edge_ad.runtime.sinks.standard_output import StandardOutput
from edge_ad.runtime.sinks.syncing import Flusher, SyncPolicy


class JsonLines:
    """One line for each frame, handed to the system as soon as it is judged.

    The file that is written has always the same name. One that is there from an earlier run, or that is full, keeps its
    lines under a name with its date.

    Args:
        folder: `verdicts.jsonl` is written here; None writes to standard output.
        rotation: when a file is full, and how many full ones are kept.
        sync: guard against power cuts.
        say: receives what the user should know, one line each.
    """

    keeps_records = True

    def __init__(
        self,
        folder: Path | None,
        rotation: Rotation | None = None,
        sync: SyncPolicy | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = None if folder is None else folder / RECORDS
        self._rotation = rotation or Rotation()
        self._sync = sync or SyncPolicy()
        self._say = say
        self._file: LineFile | None = None
        self._stdout = StandardOutput()
        interval_s = None if folder is None else self._sync.interval_s
        self._flusher = Flusher(interval_s, self._flush, self.path, say, "edge-ad-records-sync")

    def __enter__(self) -> JsonLines:
        if self.path is None:
            self._stdout.check()
            return self
        output_folder(self.path.parent)
        with self._named_errors():
            set_aside(self.path)
            self._file = LineFile(self.path)
            self._rotation.clean(self.path, self._say)
        self._flusher.__enter__()
        return self

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self.event(entry)

    def event(self, entry: Mapping[str, Any]) -> None:
        """Write what happened between frames as a line of its own.

        Raises: OutputError; then no part of it stays in a file; standard output gets the rest with the next attempt.
        """
        data = (record_line(entry) + "\n").encode("ascii")
        with self._named_errors():
            if self.path is None:
                self._stdout.append(data)
                return
            if self._file is None or self._rotation.is_full(self._file, len(data)):
                self._rotate(self.path)
            assert self._file is not None
            self._file.append(data, flush=self._sync.every_record)

    def _rotate(self, path: Path) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close(flush=self._sync.interval_s is not None)
        set_aside(path)
        self._file = LineFile(path)
        self._rotation.clean(path, self._say)

    def _flush(self) -> None:
        file = self._file  # a full one is closed meanwhile, flushed
        if file is not None:
            file.flush()

    def _named_errors(self) -> _NamedErrors:
        return _NamedErrors(str(self.path or "standard output"))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._flusher.__exit__(None, None, None)
        if self._file is not None:
            with self._named_errors():
                self._file.close(flush=self._sync.interval_s is not None)


class _NamedErrors:
    """Names the file in what the system says about it; a closed pipe goes through as it is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(exc, OSError) and not isinstance(exc, BrokenPipeError):
            raise OutputError(f"{self._name}: cannot be written: {os_reason(exc)}") from exc
