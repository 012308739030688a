"""Where frames come from: pictures, videos, cameras, network streams and a simulated line.

`open_source` finds the kind of source by what the user wrote. Each kind lives in a file of its own that is
imported when it is asked for; a new one is that file and one line of `KINDS`, which is tried from the top. What
happens at the end of a source, or when it is lost, is put around it by `edge_ad.runtime.sources.unattended`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_ad.errors import SourceError
from edge_ad.image.frame import FrameSource
from edge_ad.image.pictures import is_picture, looks_like_picture
from edge_ad.runtime.sources.kind import SourceKind
from edge_ad.text import without_secrets

if TYPE_CHECKING:
    from edge_ad.runtime.sources.settings import SourceSettings

__all__ = ["KINDS", "open_source"]

# One letter in front of `://` is a drive of Windows.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def _written_as(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.IGNORECASE | re.DOTALL)
    return lambda uri: compiled.fullmatch(uri) is not None


def _is_camera_device(uri: str) -> bool:
    # The links in /dev/v4l/by-id and by-path are there only while the camera is plugged in.
    absent = re.fullmatch(r"/dev/(video[0-9]+|v4l/by-(id|path)/[^/]+)", uri) is not None
    return absent or (os.path.exists(uri) and re.fullmatch(r"/dev/video[0-9]+", os.path.realpath(uri)) is not None)


def _is_picture_file(uri: str) -> bool:
    return os.path.isfile(uri) and (is_picture(uri) or looks_like_picture(uri))


def _is_pattern(uri: str) -> bool:
    # The `?` of an address is no wildcard.
    return _SCHEME.match(uri) is None and any(character in uri for character in "*?[")


_HERE = "edge_ad.runtime.sources"
KINDS: tuple[SourceKind, ...] = (
    SourceKind("camera:N", _written_as(r"-?[0-9]+|camera:.*"), f"{_HERE}.camera:open_camera", "device"),
    SourceKind("sim:?fps=60", _written_as(r"sim:.*"), f"{_HERE}.simulated:SimulatedLine.from_uri", "simulated"),
    SourceKind("rtsp://...", _written_as(r"(rtsps?|https?|udp|tcp)://.*"), f"{_HERE}.stream:StreamSource", "device"),
    SourceKind("csi://N", _written_as(r"csi:.*"), f"{_HERE}.gstreamer:open_csi", "device"),
    SourceKind("v4l2:///dev/videoN", _written_as(r"v4l2:.*"), f"{_HERE}.gstreamer:open_v4l2", "device"),
    SourceKind("gst:PIPELINE", _written_as(r"gst:.*"), f"{_HERE}.gstreamer:open_pipeline", "device"),
    SourceKind("genicam:SERIAL", _written_as(r"genicam:.*"), f"{_HERE}.genicam:open_genicam", "device"),
    SourceKind("/dev/videoN", _is_camera_device, f"{_HERE}.camera:open_camera", "device"),
    SourceKind("a folder of pictures", os.path.isdir, f"{_HERE}.files:open_folder", "folder"),
    SourceKind("a picture", _is_picture_file, f"{_HERE}.files:open_picture", "files"),
    SourceKind("a video", os.path.exists, f"{_HERE}.video:VideoSource", "files"),
    SourceKind("a pattern like 'shots/**/*.png'", _is_pattern, f"{_HERE}.files:open_pattern", "files"),
)


def open_source(uri: str, settings: SourceSettings | None = None) -> FrameSource:
    """The source that `uri` means; nothing is opened before it is entered.

    An integer is a camera; a folder of that name is written `./0`. A path that exists is taken literally, even
    with `*`, `?` or `[` in it.

    Args:
        uri: what the user wrote.
        settings: what happens at its end and when it is lost; None for a source that ends once and is lost once.

    Raises:
        SourceError: nothing of that name, an unknown scheme, a folder or pattern without pictures, wrong
            parameters, or settings that this kind of source cannot follow.
    """
    kind = _kind_of(uri)
    if settings is not None and settings.watch and (kind is not None or _SCHEME.match(uri) is None):
        from edge_ad.runtime.sources.unattended import watched

        return watched(uri, settings, kind)
    if kind is None:
        raise _unknown(uri)
    if settings is None:
        return kind.load_opener()(uri)
    from edge_ad.runtime.sources.unattended import unattended

    return unattended(uri, settings, kind)


def _kind_of(uri: str) -> SourceKind | None:
    return next((kind for kind in KINDS if kind.accepts(uri)), None)


def _unknown(uri: str) -> SourceError:
    """Why `uri` means no source."""
    shown = without_secrets(uri)
    forms = ", ".join(kind.form for kind in KINDS)
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return SourceError(f"source {shown!r} does not exist; wanted {forms}")
    is_file = scheme.group(1).lower() == "file"
    advice = "give the path itself" if is_file else "known are rtsp, rtsps, http, https, udp and tcp"
    return SourceError(f"source {shown!r}: unknown scheme {scheme.group(1)!r}; {advice}")
