"""A live source is never waited for: the newest frame is judged, and the others are accounted for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import SourceError
from edge_ad.frame import Frame
from edge_ad.runtime import live
from edge_ad.runtime.live import Captured, FreshestSlot, captured_frames

PATIENCE_S = 10  # only a broken build waits that long


def _frame(number: int, *, error: str | None = None) -> Frame:
    image = None if error else np.full((4, 4, 3), number % 256, np.uint8)
    return Frame(number, "test", datetime.now(timezone.utc), time.monotonic_ns(), image, error=error)


class Camera:
    """A live source that delivers `count` frames as fast as it is read, then does `at_the_end`."""

    name, live, length = "camera", True, None

    def __init__(self, count: int, at_the_end: Callable[[], None] = lambda: None) -> None:
        self.count = count
        self.at_the_end = at_the_end
        self.delivered = 0
        self.over = threading.Event()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def read(self) -> Frame | None:
        if self.delivered == self.count:
            self.over.set()
            self.at_the_end()
            return None
        self.delivered += 1
        return _frame(self.delivered - 1)


def _wait_for(event: threading.Event) -> None:
    assert event.wait(PATIENCE_S)


def _collect(camera: Camera, seen: list[Captured]) -> None:
    for captured in captured_frames(camera, threading.Event(), None):
        seen.append(captured)  # noqa: PERF402 — what came before a failure is kept


def _ids(captured: list[Captured]) -> list[int]:
    return [one.frame.frame_id for one in captured]


@settings(max_examples=100, derandomize=True, deadline=None)
@given(steps=st.lists(st.sampled_from(["put", "put error", "take"]), max_size=40))
def test_the_slot_gives_every_frame_once_and_in_order(steps: list[str]) -> None:
    slot, taken, put, batches = FreshestSlot(), [], 0, []
    for step in [*steps, "take"]:
        if step == "take":
            batches.append(slot.take(0))
            taken += batches[-1]
        else:
            slot.put(_frame(put, error="torn" if step == "put error" else None))
            put += 1
    assert _ids(taken) == list(range(put))
    for batch in batches:
        assert [one.passed_over for one in batch] == [True] * (len(batch) - 1) + [False] * bool(batch)
        for one in batch[:-1]:
            assert one.frame.image_hwc is None  # no picture is held for a record
        for one in batch[-1:]:
            assert (one.frame.image_hwc is None) == (one.frame.error is not None)
    slot.end()
    assert slot.drained


def test_a_slow_judge_gets_the_newest_frame() -> None:
    camera = Camera(50)
    seen = []
    for captured in captured_frames(camera, threading.Event(), None):
        seen.append(captured)
        if not captured.passed_over:
            assert camera.over.wait(PATIENCE_S)  # judging takes until the camera is through
    assert _ids(seen) == list(range(50))
    judged = [one.frame.frame_id for one in seen if not one.passed_over]
    assert judged[-1] == 49
    assert len(judged) <= 2  # the first that was there, and the newest


def test_max_frames_counts_captured_frames() -> None:
    camera = Camera(1000)
    assert _ids(list(captured_frames(camera, threading.Event(), 7))) == list(range(7))
    assert camera.delivered == 7


def test_a_stop_ends_a_running_camera_and_loses_nothing() -> None:
    camera, stop = Camera(10**9), threading.Event()
    seen = []
    for captured in captured_frames(camera, stop, None):
        seen.append(captured)
        if len(seen) == 5:
            stop.set()
    assert _ids(seen) == list(range(camera.delivered))
    assert len(seen) >= 5


def test_a_stop_ends_a_camera_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead network camera may never return from its read; Ctrl-C must."""
    monkeypatch.setattr(live, "STOP_S", 0.2)
    release, stop = threading.Event(), threading.Event()
    camera = Camera(3, at_the_end=lambda: _wait_for(release))
    threading.Timer(0.3, stop.set).start()
    try:
        assert _ids(list(captured_frames(camera, stop, None))) == [0, 1, 2]
        assert "edge-ad-capture" in {thread.name for thread in threading.enumerate()}  # its read still hangs
    finally:
        release.set()


@pytest.mark.parametrize("failure", [SourceError("camera 0: unplugged"), RuntimeError("driver")])
def test_a_failure_in_the_capture_thread_surfaces_after_the_frames_before_it(failure: Exception) -> None:
    def unplug() -> None:
        raise failure

    seen: list[Captured] = []
    with pytest.raises(type(failure), match=str(failure)):
        _collect(Camera(4, unplug), seen)
    assert _ids(seen) == [0, 1, 2, 3]


def test_leaving_early_ends_the_capture_thread() -> None:
    frames = captured_frames(Camera(10**9), threading.Event(), None)
    next(iter(frames))
    frames.close()  # type: ignore[attr-defined]
    assert not any(thread.name == "edge-ad-capture" for thread in threading.enumerate())


def test_a_full_slot_holds_the_camera_up_instead_of_losing_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_PASSED_OVER", 5)
    camera = Camera(100)
    seen = []
    for captured in captured_frames(camera, threading.Event(), None):
        seen.append(captured)
        time.sleep(0.0005)
    assert _ids(seen) == list(range(100))
