"""A progress bar on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict


class ProgressBar:
    """Frames, speed and verdicts so far, on stderr. Args: total: frames to expect, where that is known."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._seen: Counter[str] = Counter()
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self._seen[verdict.verdict or verdict.status] += 1
        text = ", ".join(f"{name} {count}" for name, count in sorted(self._seen.items()))
        self._bar.update(self._task, advance=1, description=text)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
