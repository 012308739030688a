"""Says when the frames of a camera, stream or video change their size while the line runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict

MOST_SAID = 5  # of each source; a stream that alternates would fill the log


class SizeChanges:
    """Warns when a frame has another size than the one before it, so that the model sees its parts larger or smaller.

    Pictures of a folder are files of their own, which may have any size.

    Args:
        say: receives the warnings.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last: dict[str, tuple[str | None, tuple[int, int]]] = {}
        self._changes: dict[str, int] = {}

    def __enter__(self) -> SizeChanges:
        return self

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        if frame.image_hwc is None:
            return
        size = frame.image_hwc.shape[1], frame.image_hwc.shape[0]
        path, before = self._last.get(frame.source, (frame.path, size))
        self._last[frame.source] = frame.path, size
        if path != frame.path or before == size:
            return
        count = self._changes[frame.source] = self._changes.get(frame.source, 0) + 1
        if count <= MOST_SAID:
            last = "; further changes are counted" if count == MOST_SAID else ""
            self._say(
                f"warning: {frame.source}: frames have {size[0]}x{size[1]} pixels from frame {frame.frame_id} on,"
                f" {before[0]}x{before[1]} before; set the camera to one size, the one of its threshold{last}"
            )

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for source, count in self._changes.items():
            if count > MOST_SAID:
                self._say(f"warning: {source}: the size of the frames has changed {count} times")
