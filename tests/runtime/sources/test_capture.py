"""What a camera may do while it runs, played by a fake driver: damage, unplugging, silence, hanging."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame
from edge_ad.runtime.sources import open_source


class _FakeCapture:
    """A camera that gives one good frame, one that cannot be decoded, a good one, and is then unplugged."""

    def __init__(self, *args: object) -> None:
        self.left = [(True, np.full((4, 4), 7, np.uint8)), (False, None), (True, np.zeros((4, 4, 3), np.uint8))]
        self.properties: dict[int, float] = {}
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def set(self, prop: int, value: float) -> bool:
        self.properties[prop] = value
        return True

    def get(self, prop: int) -> float:
        return 0.0  # it does not say

    def grab(self) -> bool:
        return bool(self.left)

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        return self.left.pop(0)

    def release(self) -> None:
        self.released = True


def test_a_damaged_camera_frame_is_counted_and_an_unplugged_camera_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = _FakeCapture()
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: capture)
    with open_source("camera:3") as source:
        frames = [source.read() for _ in range(3)]
        with pytest.raises(SourceError, match=r"camera:3: .*after 3 frame.*cable.*start again") as caught:
            source.read()
    assert source.read() is None
    assert "\n" not in str(caught.value)
    assert [frame.error is None for frame in frames if frame] == [True, False, True]
    assert frames[0] is not None and frames[0].image_hwc is not None and frames[0].image_hwc.shape == (4, 4, 3)
    assert frames[1] is not None and frames[1].error == "camera:3: frame 1: cannot be decoded"
    assert capture.properties == {cv2.CAP_PROP_BUFFERSIZE: 1}
    assert capture.released


def test_a_camera_that_opens_but_is_silent_is_refused_and_released(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = _FakeCapture()
    capture.left = []
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: capture)
    with pytest.raises(SourceError, match="no first frame"), open_source("camera:3"):
        pass
    assert capture.released


class _HangingCapture(_FakeCapture):
    """A camera whose driver hangs in the second grab until `comes_back`; then there is a frame, or none."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.left = self.left[:frames]
        self.hangs, self.comes_back = threading.Event(), threading.Event()
        self.grabs = 0

    def grab(self) -> bool:
        self.grabs += 1
        if self.grabs == 2:
            self.hangs.set()
            assert self.comes_back.wait(20)
        return super().grab()


@pytest.mark.parametrize("frames", [1, 3], ids=["comes back empty", "comes back with a frame"])
def test_a_camera_that_hangs_can_be_left(monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    capture = _HangingCapture(frames)
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: capture)
    outcomes: list[Frame | Exception | None] = []
    source = open_source("camera:3")

    def read_on() -> None:
        try:
            while (frame := source.read()) is not None:
                outcomes.append(frame)
            outcomes.append(None)
        except Exception as exc:
            outcomes.append(exc)

    reader = threading.Thread(target=read_on, daemon=True)
    try:
        with source:
            reader.start()
            assert capture.hangs.wait(5)
            began = time.monotonic()
        assert 0.5 < time.monotonic() - began < 3
        # Releasing it now would crash inside OpenCV, and so would a second capture on the same source.
        assert not capture.released
        with pytest.raises(SourceError, match="still hangs"), source:
            pass
    finally:
        capture.comes_back.set()
        reader.join(5)
    assert not reader.is_alive()
    assert len(outcomes) == 2 and isinstance(outcomes[0], Frame) and outcomes[1] is None
    assert capture.released


def test_a_camera_that_does_not_hang_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = _FakeCapture()
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: capture)
    with open_source("camera:3"):
        began = time.monotonic()
    assert time.monotonic() - began < 0.5
    assert capture.released


def test_a_frame_on_which_opencv_throws_is_an_error_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    class Throwing(_FakeCapture):
        def retrieve(self) -> tuple[bool, np.ndarray | None]:
            good, pixels = super().retrieve()
            if not good:
                raise cv2.error("retrieve")
            return good, pixels

    monkeypatch.setattr(cv2, "VideoCapture", lambda index: Throwing())
    with open_source("camera:3") as source:
        frames = [source.read() for _ in range(3)]
    assert [frame is not None and frame.error is None for frame in frames] == [True, False, True]
