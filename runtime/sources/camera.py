"""Cameras of this machine, by index."""

from __future__ import annotations

import glob
import os
import re
import sys
from types import ModuleType

from edge_ad.errors import SourceError
from edge_ad.image.pictures import natural_key
from edge_ad.runtime.sources.capture import CaptureSource
from edge_ad.runtime.sources.packets import Capture, Decoder, packets_of_camera
from edge_ad.text import without_secrets

# From 100 on, OpenCV reads the hundreds as the number of a backend: 200 is camera 0 of V4L2.
_INDICES = range(100)


class CameraSource(CaptureSource):
    """Frames of camera `index`, the newest the driver has.

    Raises:
        SourceError: `index` is not 0 to 99.
    """

    live = True

    def __init__(self, index: int) -> None:
        if index not in _INDICES:
            raise SourceError(f"wanted a camera index of 0 to {_INDICES[-1]}, got {index}; try --camera 0")
        super().__init__(f"camera:{index}")
        self._index = index

    def _open(self, cv2: ModuleType) -> Capture:
        capture: Capture = cv2.VideoCapture(self._index)
        # A longer queue hands out frames that are already old; backends without the setting ignore it.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture

    def _decoder(self, cv2: ModuleType, capture: Capture) -> Decoder | None:
        return packets_of_camera(cv2, capture)

    def _refusal(self) -> str:
        text = f"camera {self._index} does not open"
        if not sys.platform.startswith("linux"):
            return f"{text}; is it plugged in, allowed for this program and not in use elsewhere?"
        device = f"/dev/video{self._index}"
        devices = sorted(glob.glob("/dev/video*"), key=natural_key)
        if device not in devices:
            return f"{text}: this machine has {', '.join(devices) or 'no /dev/video*'}; plug it in or take another"
        if not os.access(device, os.R_OK | os.W_OK):
            return f"{text}: no permission for {device}; add the user to the group 'video' and log in again"
        return f"{text}: {device} is in use elsewhere or not a capture device (present: {', '.join(devices)})"


class LinkedCamera(CameraSource):
    """The camera that the link at `path` leads to whenever it is opened, under the name of the link.

    A camera that is plugged in again may get another number; the links in `/dev/v4l/by-id` follow it.
    """

    def __init__(self, path: str) -> None:
        super().__init__(_number(path) or 0)
        self.name = path
        self._path = path

    def _open(self, cv2: ModuleType) -> Capture:
        index = _number(self._path)
        if index is None or index not in _INDICES:
            raise SourceError(f"{self.name}: leads to no camera; plug it in, or take another of /dev/v4l/by-id")
        self._index = index
        return super()._open(cv2)


def open_camera(uri: str) -> CameraSource:
    """Camera of `3`, `camera:3`, `/dev/video3` or a link to that, such as those in `/dev/v4l/by-id`.

    Raises: SourceError when there is no index.
    """
    named = re.fullmatch(r"(?:camera:|/dev/video)?(-?[0-9]{1,6})", uri, re.IGNORECASE)
    if named is not None:
        return CameraSource(int(named.group(1)))
    if os.path.islink(uri) or uri.startswith("/dev/"):
        return LinkedCamera(uri)
    shown = without_secrets(uri)
    raise SourceError(f"wanted camera:N with N from 0 to {_INDICES[-1]}, got {shown!r}; try camera:0")


def _number(path: str) -> int | None:
    """The number of the camera that `path` leads to; None for none."""
    device = re.fullmatch(r"/dev/video([0-9]{1,6})", os.path.realpath(path))
    return int(device.group(1)) if device else None
