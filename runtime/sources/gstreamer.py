"""GStreamer pipelines as sources: any (`gst:`), a Jetson's CSI camera (`csi://`), a V4L2 device (`v4l2://`).

OpenCV from PyPI has no GStreamer. Frames are taken through PyGObject, or, where that is absent, by an OpenCV of the
system that was built with GStreamer.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from edge_ad.errors import SourceError
from edge_ad.image.frame import FrameSource
from edge_ad.runtime.host.opencv import load_cv2
from edge_ad.runtime.sources.capture import CaptureSource
from edge_ad.runtime.sources.gst_library import INSTALL, load_gst
from edge_ad.runtime.sources.gst_text import (
    csi_pipeline,
    delivering_bgr,
    v4l2_pipeline,
    without_pipeline_secrets,
)
from edge_ad.runtime.sources.packets import Capture
from edge_ad.text import without_secrets


def open_pipeline(uri: str) -> FrameSource:
    """Source of `gst:PIPELINE`, in the words of gst-launch-1.0, without a sink. Raises: SourceError."""
    pipeline = uri[len("gst:") :]
    return _source(
        delivering_bgr(pipeline), f"gst:{without_pipeline_secrets(pipeline.strip())}", "try it in gst-launch-1.0"
    )


def open_csi(uri: str) -> FrameSource:
    """Source of `csi://N`. Raises: SourceError."""
    advice = "nvarguscamerasrc is part of JetPack; look at the cable and whether nvargus-daemon runs"
    return _source(delivering_bgr(csi_pipeline(uri)), without_secrets(uri), advice)


def open_v4l2(uri: str) -> FrameSource:
    """Source of `v4l2:///dev/videoN`. Raises: SourceError."""
    pipeline, device = v4l2_pipeline(uri)
    advice = f"plug in {device}, look whether it is in use elsewhere, and what v4l2-ctl --list-formats-ext says"
    return _source(delivering_bgr(pipeline), without_secrets(uri), advice)


def gstreamer_support() -> str:
    """By which way this machine reaches GStreamer, in words. Raises: SourceError when by none."""
    try:
        return f"PyGObject, {load_gst().version_string()}"
    except ImportError as exc:
        if _opencv_has_gstreamer():
            return f"OpenCV {load_cv2().__version__}"
        raise SourceError(f"neither PyGObject ({exc}) nor an OpenCV with GStreamer is here: {INSTALL}") from exc


def _source(pipeline: str, name: str, advice: str) -> FrameSource:
    from edge_ad.runtime.sources.gst_appsink import AppSinkSource

    try:
        load_gst()
    except ImportError as exc:
        if _opencv_has_gstreamer():
            return OpenCvPipeline(pipeline, name, advice)
        raise SourceError(f"{name}: needs GStreamer for Python ({exc}): {INSTALL}") from exc
    return AppSinkSource(pipeline, name, advice)


def _opencv_has_gstreamer() -> bool:
    cv2: Any = load_cv2()
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


class OpenCvPipeline(CaptureSource):
    """Frames of a pipeline that OpenCV runs, the newest there is."""

    live = True

    def __init__(self, pipeline: str, name: str, advice: str) -> None:
        super().__init__(name)
        self._pipeline = f"{pipeline} drop=true"
        self._advice = advice

    def _open(self, cv2: ModuleType) -> Capture:
        capture: Capture = cv2.VideoCapture(self._pipeline, cv2.CAP_GSTREAMER)
        return capture

    def _refusal(self) -> str:
        return f"the pipeline does not start; {self._advice}"
