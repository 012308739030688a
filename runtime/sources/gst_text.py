"""GStreamer pipelines as text: made from `csi://` and `v4l2://`, ended as we need them, shown without secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from edge_ad.errors import SourceError
from edge_ad.text import without_secrets

SINK = "edge_ad_sink"
_SECRET = r"[\w-]*(?:password|passwd|passphrase|user-id|user-pw|proxy-id|proxy-pw|secret|token|access-key)[\w-]*"
_VALUE = r"\"(?:\\.|[^\"\\])*\"|'[^']*'|\S+"
_HIDDEN = "***"

Value = str | int


def without_pipeline_secrets(text: str) -> str:
    """A pipeline, or what GStreamer says about one, as it may appear in logs and errors."""
    text = re.sub(rf"({_SECRET})(\s*=\s*)({_VALUE})", rf"\1\2{_HIDDEN}", text, flags=re.IGNORECASE)
    # An address may lie in quotes, with spaces in it, and behind the name of a property.
    text = re.sub(r"([\"'])([A-Za-z][\w+.-]*://.*?)\1", lambda m: m[1] + without_secrets(m[2]) + m[1], text)
    return re.sub(r"(?<![\w+.\"'-])[A-Za-z][\w+.-]*://[^\s\"']+", lambda m: without_secrets(m[0]), text)


def delivering_bgr(pipeline: str) -> str:
    """The pipeline with our own end, from which frames are taken as BGR; an `appsink` at its end makes room for that.

    Raises: SourceError for no pipeline, or an `appsink` further in front.
    """
    text = re.sub(r"!\s*appsink\b[^!]*$", "", pipeline.strip().rstrip("!").strip()).strip()
    if not text or re.search(r"(^|[\s!])appsink\b", text):
        shown = without_pipeline_secrets(pipeline)
        raise SourceError(f"gst:{shown}: wanted a pipeline such as gst:videotestsrc, without an appsink in its midst")
    # max-buffers=1: of a live source the newest frame replaces the one that waits, a file waits itself.
    return f"{text} ! videoconvert ! video/x-raw,format=BGR ! appsink name={SINK} max-buffers=1 sync=false"


def csi_pipeline(uri: str) -> str:
    """The pipeline of `csi://0?width=1920&height=1080&fps=30&flip=0`: a camera at a Jetson's CSI port.

    The camera's images lie in memory of the GPU (NVMM) as NV12; nvvidconv brings them out as BGRx, since it has no BGR.

    Raises: SourceError with everything that is wrong.
    """
    where, values = _parsed(uri, "csi://", r"[0-9]{1,2}", "csi://N, N being the camera's number", _CSI)
    width, height, rate = values.get("width", 1920), values.get("height", 1080), values.get("fps", "30/1")
    flip = values.get("flip", 0)
    return (
        f"nvarguscamerasrc sensor-id={int(where)}"
        f" ! video/x-raw(memory:NVMM),width={width},height={height},framerate={rate}"
        f" ! nvvidconv flip-method={flip} ! video/x-raw,format=BGRx"
    )


def v4l2_pipeline(uri: str) -> tuple[str, str]:
    """The pipeline of `v4l2:///dev/video0?width=1280&height=720&fps=30`, and the path of the device.

    Without size and rate the camera's own are taken. Raises: SourceError with everything that is wrong.
    """
    where, values = _parsed(uri, "v4l2://", r"/dev/[\w./:+-]+", "v4l2:///dev/videoN", _V4L2)
    wanted = "".join(
        f",{name}={values[key]}"
        for key, name in (("width", "width"), ("height", "height"), ("fps", "framerate"))
        if key in values
    )
    # Most USB cameras give their large sizes as JPEG only; decodebin takes either.
    caps = f' ! capsfilter caps="video/x-raw{wanted};image/jpeg{wanted}"' if wanted else ""
    return f'v4l2src device="{where}"{caps} ! decodebin', where


def _parsed(
    uri: str, scheme: str, where_form: str, wanted: str, keys: Mapping[str, tuple[str, Callable[[str], Value | None]]]
) -> tuple[str, dict[str, Value]]:
    """What stands behind the scheme, and the values of the query. Raises: SourceError."""
    shown = without_secrets(uri)
    where, _, query = uri[len(scheme) :].partition("?")
    if uri[: len(scheme)].lower() != scheme or re.fullmatch(where_form, where) is None:
        raise SourceError(f"{shown!r}: wanted {wanted}, with ?key=value&key=value behind it")
    values: dict[str, Value] = {}
    faults: list[str] = []
    for pair in filter(None, query.split("&")):
        key, _, raw = (unquote(part) for part in pair.partition("="))
        if key not in keys:
            faults.append(f"unknown key {key!r} (known: {', '.join(keys)})")
            continue
        form, parse = keys[key]
        value = parse(raw)
        if value is None:
            faults.append(f"{key}: wanted {form}, got {raw!r}")
        elif key in values:
            faults.append(f"{key}: given twice")
        else:
            values[key] = value
    if faults:
        raise SourceError(f"{shown!r}: " + "; ".join(faults))
    return where, values


def _side(raw: str) -> int | None:
    return int(raw) if re.fullmatch(r"[0-9]{1,5}", raw) and 16 <= int(raw) <= 16384 else None


def _flip(raw: str) -> int | None:
    return int(raw) if re.fullmatch(r"[0-7]", raw) else None


def _rate(raw: str) -> str | None:
    """`30` or `30000/1001`, as a fraction."""
    parts = re.fullmatch(r"([1-9][0-9]{0,6})(?:/([1-9][0-9]{0,4}))?", raw)
    return None if parts is None else f"{parts[1]}/{parts[2] or 1}"


_SIZES: dict[str, tuple[str, Callable[[str], Value | None]]] = {
    "width": ("pixels, 16 to 16384", _side),
    "height": ("pixels, 16 to 16384", _side),
    "fps": ("frames per second such as 30 or 30000/1001", _rate),
}
_V4L2 = _SIZES
_CSI: dict[str, tuple[str, Callable[[str], Value | None]]] = {
    **_SIZES,
    "flip": ("a flip-method of nvvidconv, 0 to 7 (2 turns by 180 degrees)", _flip),
}
