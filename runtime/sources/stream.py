"""Network streams: RTSP, HTTP(S), UDP and TCP addresses."""

from __future__ import annotations

import os
import re
from types import ModuleType

from edge_ad.errors import SourceError
from edge_ad.runtime.sources.address import without_secrets
from edge_ad.runtime.sources.capture import Capture, CaptureSource, open_with_backends

TIMEOUT_MS = 5000


class StreamSource(CaptureSource):
    """Frames of the stream at `url`; `name` and every error leave out its password and query.

    RTSP goes over TCP, since a lost UDP packet smears the picture over many frames, which a detector takes for
    a defect; OPENCV_FFMPEG_CAPTURE_OPTIONS overrides that.

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

    def _open(self, cv2: ModuleType) -> Capture:
        if self._url.startswith(("rtsp:", "rtsps:")):
            os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]
        return open_with_backends(cv2, self._url, {cv2.CAP_FFMPEG: timeouts})

    def _refusal(self) -> str:
        return (
            f"the stream did not open within {TIMEOUT_MS // 1000} s; check address, user name and password, "
            "and that this machine reaches it"
        )
