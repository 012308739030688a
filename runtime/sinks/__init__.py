"""Where verdicts go. A new kind of picture is a function in `pictures` and one line in PICTURES."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from edge_ad.errors import OutputError, os_reason
from edge_ad.frame import Frame
from edge_ad.verdict import Verdict


class Sink(Protocol):
    """Receives every record of a run, in order, from one thread."""

    def __enter__(self) -> Sink: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        """Take one frame, its verdict and its record. Raises: OutputError."""
        ...


def output_folder(path: Path) -> Path:
    """Create a folder for results. Raises: OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"output folder {path}: cannot be made: {os_reason(exc)}") from exc
    return path
