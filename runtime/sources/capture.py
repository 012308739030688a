"""What video files, cameras and network streams share: a `cv2.VideoCapture` behind the source contract."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from datetime import datetime, timedelta, timezone
from types import ModuleType
from typing import Any

import numpy as np

from edge_ad.errors import ImageError, SourceError
from edge_ad.image.frame import Frame, ImageArray
from edge_ad.image.limits import check_size
from edge_ad.image.notices import TURNED, notice
from edge_ad.runtime.host.opencv import load_cv2
from edge_ad.runtime.sources.packets import Capture, Decoder, orientation

CLOSE_S = 1.0
"""How long closing waits for a read that is under way."""

CATCH_UP_NS = 2_000_000_000
"""For how long at most a live source is read at its start until it gives the present."""

_FAR = 1e9  # pixels; what is larger is no size but garbage

START_AGAIN = ", and start again"
"""End of what a lost source advises; does not hold where it is opened again by itself."""


class CaptureSource(ABC):
    """Frames of one `cv2.VideoCapture`, in BGR. A kind of source says how to open it and why it may have failed.

    Opening reads the first frame, since a device that is in use elsewhere opens and then stays silent; `read`
    delivers it as frame 0. When the capture delivers no further frame, a file has ended and a live source is lost.
    """

    live: bool
    length: int | None = None
    path: str | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self._capture: Capture | None = None
        self._decode: Decoder = as_bgr
        self._first: Frame | None = None
        self._next_id = 0
        self._closed = False
        # Releasing a capture while another thread reads from it crashes inside OpenCV.
        self._lock = threading.Lock()

    @abstractmethod
    def _open(self, cv2: ModuleType) -> Capture:
        """Open the capture; a closed one says that it failed."""

    @abstractmethod
    def _refusal(self) -> str:
        """Why it may not have opened and what to do, to stand behind the name of the source."""

    def _decoder(self, cv2: ModuleType, capture: Capture) -> Decoder | None:
        """Switch an open capture from pixels to packets, where that tells more; None leaves it as it is."""
        return None

    def _stamp_ns(self, asked_ns: int, grabbed_ns: int) -> int:
        """When the frame was captured: a live one when it arrived."""
        return grabbed_ns

    def _gives_the_present(self) -> bool:
        """Whether the next frame is new, and none that was gathered while the source was opened."""
        return True

    def _catch_up(self, capture: Capture) -> None:
        """Leave out frames until they are new."""
        until_ns = time.monotonic_ns() + CATCH_UP_NS
        while not self._gives_the_present():
            asked_ns = time.monotonic_ns()
            if asked_ns > until_ns or not _grabbed(capture):
                return
            self._stamp_ns(asked_ns, time.monotonic_ns())

    def __enter__(self) -> CaptureSource:
        """Open. Raises: SourceError when it does not open, gives no first frame or hangs in an earlier read."""
        cv2 = load_cv2()
        if not self._lock.acquire(timeout=CLOSE_S):
            raise SourceError(f"{self.name}: an earlier read still hangs; check the device and start the program again")
        try:
            return self._open_first(cv2)
        finally:
            self._lock.release()

    def _open_first(self, cv2: ModuleType) -> CaptureSource:
        self._next_id = 0
        self._closed = False
        try:
            self._capture = self._open(cv2)
        except cv2.error:
            # Its text may repeat the address with the password in it.
            raise SourceError(f"{self.name}: {self._refusal()}") from None
        if not self._capture.isOpened():
            self._close()
            raise SourceError(f"{self.name}: {self._refusal()}")
        self._check_head(cv2, self._capture)
        self._decode = self._decoder(cv2, self._capture) or as_bgr
        self._catch_up(self._capture)
        self._first = self._take(self._capture)
        if self._first is None:
            self._close()
            raise SourceError(f"{self.name}: opens but gives no first frame; {self._refusal()}")
        return self

    def _check_head(self, cv2: ModuleType, capture: Capture) -> None:
        """Look at size and orientation before anything is decoded. Raises: SourceError for too large frames."""
        width, height = (capture.get(prop) for prop in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        try:
            if 0 < width < _FAR and 0 < height < _FAR:  # else the capture does not say
                check_size(int(width), int(height))
        except ImageError as exc:
            self._close()
            raise SourceError(f"{self.name}: {exc}") from exc
        if orientation(cv2, capture):
            notice(TURNED, self.name)

    def __exit__(self, *exc_info: object) -> None:
        """Close. A read that hangs in the driver keeps its capture and releases it when it comes back, if ever."""
        self._closed = True
        if self._lock.acquire(timeout=CLOSE_S):
            try:
                self._close()
            finally:
                self._lock.release()

    def read(self) -> Frame | None:
        """Next frame as (H, W, 3) uint8 BGR, or None when the file has ended or the source was closed.

        Raises:
            SourceError: a live source gives no further frame.
        """
        with self._lock:
            if self._capture is None:
                return None
            if self._first is not None:
                first, self._first = self._first, None
                return first
            frame = self._take(self._capture)
            if self._closed:
                self._close()
                return None
            if frame is None and self.live:
                raise SourceError(
                    f"{self.name}: gives no further frame after {self._next_id} frame(s); "
                    f"check the device and its cable or network{START_AGAIN}"
                )
            return frame

    def _close(self) -> None:
        if self._capture is not None:
            self._capture.release()
        self._capture = self._first = None

    def _take(self, capture: Capture) -> Frame | None:
        asked_ns = time.monotonic_ns()
        if not _grabbed(capture):
            return None
        grabbed_ns = time.monotonic_ns()
        captured_ns = self._stamp_ns(asked_ns, grabbed_ns)
        captured_at = datetime.now(timezone.utc) - timedelta(microseconds=(grabbed_ns - captured_ns) / 1e3)
        image: ImageArray | None = None
        error: str | None = None
        try:
            image = self._decode(_retrieved(capture))
        except ImageError as exc:
            error = f"{self.name}: frame {self._next_id}: {exc}"
        self._next_id += 1
        return Frame(
            frame_id=self._next_id - 1,
            source=self.name,
            captured_at=captured_at,
            captured_ns=captured_ns,
            image_hwc=image,
            color_order="bgr",
            decode_ms=(time.monotonic_ns() - max(asked_ns, captured_ns)) / 1e6,
            path=self.path,
            error=error,
        )


def _grabbed(capture: Capture) -> bool:
    try:
        return capture.grab()
    except load_cv2().error:
        return False


def _retrieved(capture: Capture) -> Any:
    """The pixels of the grabbed frame, None when they cannot be decoded."""
    try:
        decoded, pixels = capture.retrieve()
    except load_cv2().error:
        return None
    return pixels if decoded else None


def as_bgr(pixels: Any) -> ImageArray:
    """What OpenCV delivered as (H, W, 3) uint8 BGR: grey is repeated, alpha is dropped.

    Raises:
        ImageError: no pixels, or not 8 bits in 1, 3 or 4 channels.
    """
    if pixels is None or pixels.size == 0:
        raise ImageError("cannot be decoded")
    image = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise ImageError(f"wanted 8 bits in 1, 3 or 4 channels, got {pixels.shape} {pixels.dtype}")
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[:, :, :3])


def open_with_backends(cv2: ModuleType, address: str, parameters: dict[int, list[int]]) -> Capture:
    """Open a file or URL with the first general backend that can.

    Left out on purpose are the picture-sequence backend, which takes digits in a name for a counter, and the
    built-in MJPEG reader, which prints to stderr whatever the log level.

    Args:
        cv2: the OpenCV module.
        address: file or URL; a file name may hold surrogates for bytes that are not UTF-8.
        parameters: for a backend that is named here, the flat list of properties to open with.
    """
    registry = cv2.videoio_registry
    general = [cv2.CAP_FFMPEG, cv2.CAP_GSTREAMER, cv2.CAP_MSMF, cv2.CAP_AVFOUNDATION]
    capture: Capture = cv2.VideoCapture()
    try:
        address.encode()
        name: str | bytes = address
    except UnicodeEncodeError:
        # OpenCV 5.0 crashes the process on a str with surrogates.
        name = os.fsencode(address)
    for backend in (backend for backend in general if registry.hasBackend(backend)):
        capture = cv2.VideoCapture(name, backend, parameters.get(backend, []))
        if capture.isOpened():
            break
    return capture
