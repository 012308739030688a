"""Video files."""

from __future__ import annotations

import os
from types import ModuleType

from edge_ad.runtime.sources.capture import CaptureSource, open_with_backends
from edge_ad.runtime.sources.packets import Capture, Decoder, packets_of_file

_MOST_FRAMES = 10**9


class VideoSource(CaptureSource):
    """Frames of the video file at `path`, in order and none lost.

    Attributes:
        length: number of frames that the file says it has, once open; None where it does not say.
    """

    live = False

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def _open(self, cv2: ModuleType) -> Capture:
        capture = open_with_backends(cv2, self.name, {})
        # Damaged and streamed containers answer with -1, NaN or garbage near 2**63.
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.length = int(count) if 1 <= count <= _MOST_FRAMES else None
        return capture

    def _decoder(self, cv2: ModuleType, capture: Capture) -> Decoder | None:
        return packets_of_file(cv2, capture)

    def _refusal(self) -> str:
        if not os.access(self.name, os.R_OK):
            return "permission denied; make the file readable"
        return (
            "wanted a video or picture, got a file that no decoder of this OpenCV reads "
            "(empty, damaged, cut off or an unknown codec); play it elsewhere or convert it to H.264 MP4"
        )

    def _stamp_ns(self, asked_ns: int, grabbed_ns: int) -> int:
        """A file waits for its reader, so decoding counts against the deadline."""
        return asked_ns
