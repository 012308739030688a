"""Network streams: RTSP, HTTP(S), UDP and TCP addresses."""

from __future__ import annotations

import os
import re
from types import ModuleType

from edge_ad.errors import SourceError
from edge_ad.runtime.host.opencv import load_cv2
from edge_ad.runtime.sources.capture import CaptureSource, open_with_backends
from edge_ad.runtime.sources.packets import Capture, Decoder, packets_of_file
from edge_ad.runtime.sources.stream_clock import StreamClock
from edge_ad.text import without_secrets

TIMEOUT_MS = 5000
FFMPEG_OPTIONS = "rtsp_transport;tcp|fpsprobesize;0"  # the second opens sooner: no frames are read to find the rate


class StreamSource(CaptureSource):
    """Frames of the stream at `url`; `name` and every error leave out its password and query.

    RTSP goes over TCP, since a lost UDP packet smears the picture over many frames, which a detector takes for
    a defect; OPENCV_FFMPEG_CAPTURE_OPTIONS overrides that. Frames that waited in the buffers of the connection are as
    old as their RTP time stamps say; other streams carry no stamps of the camera, and count from their arrival.

    Raises:
        SourceError: `url` is not valid UTF-8.
    """

    live = True

    def __init__(self, url: str) -> None:
        super().__init__(without_secrets(url))
        try:
            url.encode()
        except UnicodeEncodeError:
            # Not chained: the text of that error holds the whole address.
            raise SourceError(
                f"{self.name!r} is not valid UTF-8; write the bytes beyond ASCII as %XX, such as %E4"
            ) from None
        # FFmpeg knows its protocols in lower case only.
        self._url = re.sub(r"^[^:]+", lambda scheme: scheme.group().lower(), url)
        self._is_rtsp = self._url.startswith(("rtsp:", "rtsps:"))
        self._clock = StreamClock()

    def _open(self, cv2: ModuleType) -> Capture:
        self._clock = StreamClock()
        if self._is_rtsp:
            os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", FFMPEG_OPTIONS)
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]
        return open_with_backends(cv2, self._url, {cv2.CAP_FFMPEG: timeouts})

    def _stamp_ns(self, asked_ns: int, grabbed_ns: int) -> int:
        if not self._is_rtsp or self._capture is None:
            return grabbed_ns
        position_ms = self._capture.get(load_cv2().CAP_PROP_POS_MSEC)
        return self._clock.captured_ns(asked_ns, grabbed_ns, position_ms)

    def _gives_the_present(self) -> bool:
        """FFmpeg collects frames while it finds out what the stream holds: up to a second of them."""
        return not self._is_rtsp or self._clock.knows_ages

    def _decoder(self, cv2: ModuleType, capture: Capture) -> Decoder | None:
        return packets_of_file(cv2, capture)

    def _refusal(self) -> str:
        return (
            f"the stream did not open within {TIMEOUT_MS // 1000} s; check address, user name and password, "
            "and that this machine reaches it"
        )
