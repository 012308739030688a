"""Frames of a GStreamer pipeline, taken from its end through PyGObject."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from edge_ad.errors import ImageError, SourceError
from edge_ad.image.frame import Frame, ImageArray
from edge_ad.image.limits import check_size
from edge_ad.runtime.sources.gst_library import load_gst
from edge_ad.runtime.sources.gst_text import SINK, without_pipeline_secrets

OPEN_S = 10.0
CLOSE_S = 1.0
PULL_S = 0.1  # how long one look for a frame takes; between two the source can be closed
OLDEST_S = 10.0  # ages beyond are rather a wrong clock in the stream


class AppSinkSource:
    """Frames of `pipeline` in BGR. A live one gives its newest frame, one that reads files gives all and then ends.

    Attributes:
        name: what the user asked for, credentials removed.
        live: whether frames come by the clock; known once it is open, until then True.
        length: None; a pipeline does not say.

    Args:
        pipeline: ends in the appsink of `delivering_bgr`.
        advice: what to do when it does not start.
    """

    length: int | None = None

    def __init__(self, pipeline: str, name: str, advice: str) -> None:
        self.name = name
        self.live = True
        self._text = pipeline
        self._advice = advice
        self._pipeline: Any = None
        self._sink: Any = None
        self._first: Frame | None = None
        self._next_id = 0
        self._closed = threading.Event()
        self._lock = threading.Lock()  # held while reading, so that the pipeline is not taken down under a read

    def __enter__(self) -> AppSinkSource:
        """Start. Raises: SourceError when it does not start, or gives no first frame."""
        gst = load_gst()
        self._closed.clear()
        self._next_id = 0
        with self._lock:
            try:
                self._start(gst)
                self._first = self._next(gst, time.monotonic() + OPEN_S)
                if self._first is None:
                    raise SourceError(f"{self.name}: starts but gives no first frame; {self._advice}")
            except BaseException:
                self._stop(gst)
                raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close. A read that hangs keeps the pipeline."""
        self.interrupt()
        if self._lock.acquire(timeout=CLOSE_S):
            try:
                self._stop(load_gst())
            finally:
                self._lock.release()

    def interrupt(self) -> None:
        self._closed.set()

    def read(self) -> Frame | None:
        """Next frame as (H, W, 3) uint8 BGR, or None at the end of a file or when closed.

        Raises: SourceError when the pipeline fails, or a live one ends.
        """
        with self._lock:
            if self._pipeline is None:
                return None
            if self._first is not None:
                first, self._first = self._first, None
                return first
            frame = self._next(load_gst(), None)
            if frame is None and self.live and not self._closed.is_set():
                raise SourceError(f"{self.name}: the stream has ended after {self._next_id} frame(s); {self._advice}")
            return frame

    def _start(self, gst: Any) -> None:
        from gi.repository import GLib

        try:
            self._pipeline = gst.parse_launch_full(self._text, None, gst.ParseFlags.FATAL_ERRORS)
        except GLib.Error as exc:
            raise SourceError(f"{self.name}: {without_pipeline_secrets(exc.message)}; {self._advice}") from None
        self._sink = self._pipeline.get_by_name(SINK)
        change = self._pipeline.set_state(gst.State.PAUSED)
        if change == gst.StateChangeReturn.ASYNC:
            change, _, _ = self._pipeline.get_state(round(OPEN_S * 1e9))
        if change == gst.StateChangeReturn.FAILURE:
            self._raise_error(gst, wait_s=1.0)  # which is reported from a thread of the pipeline
            raise SourceError(f"{self.name}: does not start; {self._advice}")
        if change == gst.StateChangeReturn.ASYNC:
            raise SourceError(f"{self.name}: did not start within {OPEN_S:g} s; {self._advice}")
        # Only live sources have nothing to show while they are paused.
        self.live = change == gst.StateChangeReturn.NO_PREROLL
        self._sink.set_property("drop", self.live)
        self._pipeline.set_state(gst.State.PLAYING)

    def _stop(self, gst: Any) -> None:
        pipeline, self._pipeline, self._sink, self._first = self._pipeline, None, None, None
        if pipeline is not None:
            pipeline.set_state(gst.State.NULL)

    def _next(self, gst: Any, until_s: float | None) -> Frame | None:
        """Wait for a frame. Returns: None at the end, when closed, and behind `until_s`. Raises: SourceError."""
        while not self._closed.is_set():
            sample = self._sink.emit("try-pull-sample", round(PULL_S * 1e9))
            if sample is not None:
                return self._frame(gst, sample)
            self._raise_error(gst)
            if self._sink.get_property("eos") or (until_s is not None and time.monotonic() > until_s):
                return None
        return None

    def _raise_error(self, gst: Any, wait_s: float = 0.0) -> None:
        """Raises: SourceError when an element of the pipeline has reported an error, or does within `wait_s`."""
        message = self._pipeline.get_bus().timed_pop_filtered(round(wait_s * 1e9), gst.MessageType.ERROR)
        if message is not None:
            error, _ = message.parse_error()  # the second, for developers, may hold addresses
            said = without_pipeline_secrets(" ".join(error.message.split()).rstrip("."))
            raise SourceError(f"{self.name}: {message.src.get_name()}: {said}; {self._advice}")

    def _frame(self, gst: Any, sample: Any) -> Frame:
        arrived_ns = time.monotonic_ns()
        arrived_at = datetime.now(timezone.utc)
        age_ns = self._age_ns(gst, sample) if self.live else 0
        image, error = _as_bgr(gst, sample)
        self._next_id += 1
        return Frame(
            frame_id=self._next_id - 1,
            source=self.name,
            captured_at=arrived_at - timedelta(microseconds=age_ns / 1e3),
            captured_ns=arrived_ns - age_ns,
            image_hwc=image,
            color_order="bgr",
            decode_ms=(time.monotonic_ns() - arrived_ns) / 1e6,
            error=None if error is None else f"{self.name}: frame {self._next_id - 1}: {error}",
        )

    def _age_ns(self, gst: Any, sample: Any) -> int:
        """How long ago the frame was captured by its time stamp; it may have waited in the pipeline."""
        stamp_ns, clock = sample.get_buffer().pts, self._pipeline.get_clock()
        if clock is None or stamp_ns == gst.CLOCK_TIME_NONE:
            return 0
        running_ns = sample.get_segment().to_running_time(gst.Format.TIME, stamp_ns)
        age_ns: int = clock.get_time() - self._pipeline.get_base_time() - running_ns
        return age_ns if 0 <= age_ns <= OLDEST_S * 1e9 else 0


def _as_bgr(gst: Any, sample: Any) -> tuple[ImageArray | None, str | None]:
    """The pixels as (H, W, 3) uint8, a copy; or why there are none."""
    form = sample.get_caps().get_structure(0)
    (_, width), (_, height) = form.get_int("width"), form.get_int("height")
    if form.get_string("format") != "BGR":
        return None, f"wanted BGR, got {form.to_string()}"
    try:
        check_size(width, height)
    except ImageError as exc:
        return None, str(exc)
    buffer = sample.get_buffer()
    if buffer.get_flags() & gst.BufferFlags.CORRUPTED:
        return None, "damaged: a decoder of the pipeline has marked it as such"
    mapped, memory = buffer.map(gst.MapFlags.READ)
    if not mapped:
        return None, "its memory cannot be read"
    try:
        row_bytes = -(-3 * width // 4) * 4  # GStreamer's rows begin at multiples of four bytes
        if memory.size < row_bytes * (height - 1) + 3 * width:
            return None, f"wanted {row_bytes * height} bytes, got {memory.size}"
        pixels = np.frombuffer(memory.data, np.uint8, count=row_bytes * (height - 1) + 3 * width)
        rows = np.lib.stride_tricks.as_strided(pixels, (height, width, 3), (row_bytes, 3, 1), writeable=False)
        return rows.copy(), None
    finally:
        buffer.unmap(memory)
