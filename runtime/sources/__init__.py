"""Where frames come from: pictures, videos, cameras, network streams and a simulated line.

`open_source` finds the kind of source by what the user wrote. Each kind lives in a file of its own that is
imported when it is asked for; a new one is that file and one line of `KINDS`, which is tried from the top.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from edge_ad.errors import SourceError
from edge_ad.frame import FrameSource
from edge_ad.pictures import is_picture
from edge_ad.runtime.sources.address import without_secrets

__all__ = ["KINDS", "SourceKind", "open_source"]

# One letter in front of `://` is a drive of Windows.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


@dataclass(frozen=True)
class SourceKind:
    """One kind of source.

    Attributes:
        form: how a user writes it, for error texts.
        accepts: whether a URI is of this kind.
        opener: `module:function` that makes the source from the URI.
    """

    form: str
    accepts: Callable[[str], bool]
    opener: str


def _written_as(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.IGNORECASE | re.DOTALL)
    return lambda uri: compiled.fullmatch(uri) is not None


def _is_camera_device(uri: str) -> bool:
    return os.path.exists(uri) and re.fullmatch(r"/dev/video[0-9]+", os.path.realpath(uri)) is not None


def _is_picture_file(uri: str) -> bool:
    return os.path.isfile(uri) and is_picture(uri)


def _is_pattern(uri: str) -> bool:
    # The `?` of an address is no wildcard.
    return _SCHEME.match(uri) is None and any(character in uri for character in "*?[")


_HERE = "edge_ad.runtime.sources"
KINDS: tuple[SourceKind, ...] = (
    SourceKind("camera:N", _written_as(r"-?[0-9]+|camera:.*"), f"{_HERE}.camera:open_camera"),
    SourceKind("sim:?fps=60", _written_as(r"sim:.*"), f"{_HERE}.simulated:SimulatedLine.from_uri"),
    SourceKind("rtsp://...", _written_as(r"(rtsps?|https?|udp|tcp)://.*"), f"{_HERE}.stream:StreamSource"),
    SourceKind("/dev/videoN", _is_camera_device, f"{_HERE}.camera:open_camera"),
    SourceKind("a folder of pictures", os.path.isdir, f"{_HERE}.files:open_folder"),
    SourceKind("a picture", _is_picture_file, f"{_HERE}.files:open_picture"),
    SourceKind("a video", os.path.exists, f"{_HERE}.video:VideoSource"),
    SourceKind("a pattern like 'shots/**/*.png'", _is_pattern, f"{_HERE}.files:open_pattern"),
)


def open_source(uri: str) -> FrameSource:
    """The source that `uri` means; nothing is opened before it is entered.

    An integer is a camera; a folder of that name is written `./0`. A path that exists is taken literally, even
    with `*`, `?` or `[` in it.

    Raises:
        SourceError: nothing of that name, an unknown scheme, a folder or pattern without pictures, or wrong
            parameters.
    """
    for kind in KINDS:
        if kind.accepts(uri):
            module, _, function = kind.opener.partition(":")
            opener: object = importlib.import_module(module)
            for attribute in function.split("."):
                opener = getattr(opener, attribute)
            return cast("Callable[[str], FrameSource]", opener)(uri)
    shown = without_secrets(uri)
    forms = ", ".join(kind.form for kind in KINDS)
    scheme = _SCHEME.match(uri)
    if scheme is None:
        raise SourceError(f"source {shown!r} does not exist; wanted {forms}")
    is_file = scheme.group(1).lower() == "file"
    advice = "give the path itself" if is_file else "known are rtsp, rtsps, http, https, udp and tcp"
    raise SourceError(f"source {shown!r}: unknown scheme {scheme.group(1)!r}; {advice}")
