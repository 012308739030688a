"""A window that shows what is being judged (`--show`)."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from edge_ad.errors import OutputError
from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.host.opencv import load_cv2
from edge_ad.runtime.sinks.pictures import draw_overlay

TITLE = "edge-ad (q closes)"


class Window:
    """Overlay of the newest judged frame; `q` or Escape ends the run."""

    in_caller_thread = True  # GUI libraries want to be called from the thread that began with them

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __enter__(self) -> Window:
        cv2 = load_cv2()
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            # Qt ends the whole process where there is no display.
            raise OutputError("--show: there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set); leave it out")
        try:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL)
        except cv2.error as exc:
            raise OutputError("--show: no window can be opened; is there a display, and an OpenCV with a GUI?") from exc
        return self

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        cv2 = load_cv2()
        if verdict.maps is not None:
            cv2.imshow(TITLE, draw_overlay(frame, verdict))
        if cv2.waitKey(1) & 0xFF in (ord("q"), 27):
            self._stop.set()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        load_cv2().destroyAllWindows()
