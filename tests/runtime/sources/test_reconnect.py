"""What becomes of a source that is lost, hangs, or is absent: played with sources that do as they are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame
from edge_ad.runtime.sources import open_source
from edge_ad.runtime.sources.backoff import Backoff
from edge_ad.runtime.sources.outage import Interruptible, Lost, Outage, ReportsOutages, Returned
from edge_ad.runtime.sources.reconnect import MOST_HUNG, Patience, Reconnecting
from edge_ad.runtime.sources.settings import SourceSettings

PATIENCE_S = 10
QUICK = Patience(base_s=0.001, cap_s=0.004, watchdog_s=PATIENCE_S, open_s=PATIENCE_S)


class Camera:
    """A device through all of its openings; each follows one list of steps.

    Steps: a number is the grey level of a frame, `lost` and `fault` raise, `end` ends, `hang` hangs until released.
    An opening whose list begins with `absent` fails, one that begins with `stuck` hangs.
    """

    def __init__(self, *openings: list[int | str]) -> None:
        self.openings = list(openings)
        self.opened = self.closed = 0
        self.released = threading.Event()

    def open_anew(self) -> Opening:
        return Opening(self)


class Opening:
    live = True
    length = None
    name = "cam"

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.steps: list[int | str] = []
        self.count = 0

    def __enter__(self) -> Opening:
        self.camera.opened += 1
        self.steps = list(self.camera.openings.pop(0)) if self.camera.openings else ["absent"]
        if self.steps[0] == "stuck":
            self.camera.released.wait(PATIENCE_S)
        if self.steps[0] in ("absent", "stuck"):
            raise SourceError("cam: is not there")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.camera.closed += 1

    def read(self) -> Frame | None:
        step = self.steps.pop(0)
        if step == "hang":
            self.camera.released.wait(PATIENCE_S)
            step = "lost"
        if step == "lost":
            raise SourceError("cam: gives no further frame; check the cable, and start again")
        if step == "fault":
            raise ZeroDivisionError("rtsp://u:hunter2@host")
        if step == "end":
            return None
        image = np.full((4, 4, 3), step, np.uint8)
        self.count += 1
        return Frame(self.count - 1, "cam", datetime.now(timezone.utc), time.monotonic_ns(), image, "bgr")


def read_all(source: Reconnecting) -> list[tuple[int, int]]:
    """Number and grey level of every frame to the end."""
    frames = []
    while (frame := source.read()) is not None:
        assert frame.image_hwc is not None and frame.color_order == "bgr"
        frames.append((frame.frame_id, int(frame.image_hwc[0, 0, 0])))
    return frames


@pytest.fixture
def outages() -> list[Outage]:
    return []


def test_frames_go_on_after_every_loss_and_each_is_reported(outages: list[Outage]) -> None:
    camera = Camera([1, 2, "lost"], ["absent"], ["absent"], [3, "lost"], [4, 5, "end"])
    with Reconnecting(camera.open_anew, QUICK) as source:
        source.report_to(outages.append)
        assert read_all(source) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert [type(outage) for outage in outages] == [Lost, Returned, Lost, Returned]
    first, back = outages[:2]
    assert isinstance(first, Lost) and first.cause == "lost"
    assert first.reason == "gives no further frame; check the cable"
    assert isinstance(back, Returned) and back.attempts == 3
    assert back.away_s == pytest.approx((back.monotonic_ns - first.monotonic_ns) / 1e9, abs=0.5)
    assert camera.closed == 3  # every one that had opened


def test_a_fault_of_a_driver_that_nobody_foresaw_is_a_loss_and_its_text_is_kept_back(outages: list[Outage]) -> None:
    camera = Camera([1, "fault"], [2, "end"])
    with Reconnecting(camera.open_anew, QUICK) as source:
        source.report_to(outages.append)
        assert read_all(source) == [(0, 1), (1, 2)]
    assert isinstance(outages[0], Lost) and "failed with ZeroDivisionError" in outages[0].reason
    assert "hunter2" not in repr(outages)


def test_a_source_that_is_absent_at_the_start_is_an_error_or_waited_for(outages: list[Outage]) -> None:
    with pytest.raises(SourceError, match="is not there"), Reconnecting(Camera(["absent"]).open_anew, QUICK):
        pass
    camera = Camera(["absent"], ["absent"], [7, "end"])
    waiting = Patience(wait_at_start=True, base_s=0.001, cap_s=0.002)
    with Reconnecting(camera.open_anew, waiting) as source:
        source.report_to(outages.append)  # what happened before is told now
        assert isinstance(outages[0], Lost) and outages[0].cause == "absent"
        assert read_all(source) == [(0, 7)]
    assert isinstance(outages[1], Returned) and outages[1].attempts == 2


def test_patience_ends_after_the_time_it_was_given(outages: list[Outage]) -> None:
    camera = Camera([1, "lost"])
    patience = Patience(reconnect_s=0.05, base_s=0.001, cap_s=0.01)
    with Reconnecting(camera.open_anew, patience) as source:
        source.report_to(outages.append)
        assert source.read() is not None
        with pytest.raises(SourceError, match=r"cam: away for 0\.05 s and \d+ attempt\(s\): is not there.*--reconnect"):
            source.read()
    assert camera.opened > 2 and len(outages) == 1


def test_never_ends_with_what_the_source_said(outages: list[Outage]) -> None:
    camera = Camera([1, "lost"])
    with Reconnecting(camera.open_anew, Patience(reconnect_s=0)) as source:
        source.report_to(outages.append)
        assert source.read() is not None
        with pytest.raises(SourceError, match=r"gives no further frame.*start again"):
            source.read()
    assert camera.opened == 1 and len(outages) == 1
    with pytest.raises(SourceError), Reconnecting(Camera().open_anew, Patience(reconnect_s=0, wait_at_start=True)):
        pass


def test_a_read_that_hangs_is_left_and_its_device_released_when_it_comes_back(outages: list[Outage]) -> None:
    camera = Camera([1, "hang"], [2, "end"])
    patience = Patience(base_s=0.001, cap_s=0.002, watchdog_s=0.05)
    with Reconnecting(camera.open_anew, patience) as source:
        source.report_to(outages.append)
        assert read_all(source) == [(0, 1), (1, 2)]
        assert isinstance(outages[0], Lost) and (outages[0].cause, outages[0].reason) == (
            "hung",
            "gave no frame for 0.05 s",
        )
        closed_before = camera.closed
        camera.released.set()
        for thread in [thread for thread in threading.enumerate() if thread.name == "edge-ad-source"]:
            thread.join(0.5)
    assert (closed_before, camera.closed) == (0, 2)


def test_hanging_openings_do_not_pile_up() -> None:
    camera = Camera([1, "lost"], *[["stuck"]] * 50)
    patience = Patience(base_s=0.001, cap_s=0.002, open_s=0.01, reconnect_s=0.4)
    with Reconnecting(camera.open_anew, patience) as source:
        assert source.read() is not None
        with pytest.raises(SourceError, match="did not open within"):
            source.read()
    assert camera.opened == 1 + MOST_HUNG
    camera.released.set()


def stuck_in(state: str) -> tuple[Camera, Patience]:
    """A camera on which a second read waits for ever."""
    if state == "pause":
        return Camera([1, "lost"]), Patience(base_s=1e6, cap_s=1e6)
    if state == "opening":
        return Camera([1, "lost"], ["stuck"]), QUICK
    return Camera([1, "hang"]), QUICK


@pytest.mark.parametrize("state", ["pause", "opening", "read"])
@pytest.mark.parametrize("way", ["interrupt", "close"])
def test_another_thread_can_free_the_reader(state: str, way: str) -> None:
    camera, patience = stuck_in(state)
    source = Reconnecting(camera.open_anew, patience)
    assert isinstance(source, Interruptible) and isinstance(source, ReportsOutages)
    lost = threading.Event()
    source.report_to(lambda _: lost.set())
    answers: list[Frame | None] = []
    with source:
        assert source.read() is not None
        reader = threading.Thread(target=lambda: answers.append(source.read()))
        reader.start()
        assert state == "read" or lost.wait(PATIENCE_S)
        if way == "interrupt":
            source.interrupt()
            reader.join(PATIENCE_S)
            assert not reader.is_alive() and source.read() is None
    reader.join(PATIENCE_S)
    camera.released.set()
    assert answers == [None]
    assert not reader.is_alive()


def test_closing_just_before_an_attempt_leaves_no_device_open() -> None:
    """The reader has waited for its turn, the line ends, and only then the reader goes on."""
    camera = Camera([1, "lost"], [2])

    def open_anew() -> Opening:
        if camera.opened:
            source.__exit__()
        return camera.open_anew()

    source = Reconnecting(open_anew, QUICK)
    with source:
        assert source.read() is not None
        assert source.read() is None
    assert camera.opened == camera.closed == 1


def test_it_can_be_opened_again_after_it_was_closed() -> None:
    camera = Camera([1, "end"], [2, "end"])
    source = Reconnecting(camera.open_anew, QUICK)
    for level in (1, 2):
        with source:
            assert read_all(source) == [(0, level)]
    assert source.read() is None


def test_pauses_begin_short_again_after_a_good_stretch_only(monkeypatch: pytest.MonkeyPatch) -> None:
    resets: list[int] = []
    monkeypatch.setattr(Backoff, "reset", lambda self: resets.append(1))
    for good_s, expected in ((0.0, 2), (1e6, 0)):
        # The third opening gives no frame at all, so it was not good, however long it lasted.
        camera = Camera([1, "lost"], [2, "lost"], ["lost"], [3, "end"])
        with Reconnecting(camera.open_anew, Patience(base_s=0.001, cap_s=0.002, good_s=good_s)) as source:
            resets.clear()
            assert len(read_all(source)) == 3
        assert len(resets) == expected


@given(st.floats(0.01, 10), st.floats(1, 100), st.integers(1, 30), st.randoms(use_true_random=False))
def test_pauses_are_drawn_up_to_a_limit_that_doubles(base_s: float, factor: float, times: int, rng: object) -> None:
    cap_s = base_s * factor
    drawn = rng.random  # type: ignore[attr-defined]
    backoff = Backoff(base_s, cap_s, drawn)
    for attempt in range(times):
        assert 0 <= backoff.next_s() <= min(cap_s, base_s * 2**attempt)
    highest = Backoff(base_s, cap_s, lambda: 1.0)
    limits = [highest.next_s() for _ in range(times)]
    assert limits == [pytest.approx(min(cap_s, base_s * 2**attempt)) for attempt in range(times)]
    highest.reset()
    assert highest.next_s() == base_s


class _Usb:
    """What OpenCV gives for one opening of a USB camera, BGR; then the plug is pulled."""

    def __init__(self, frames: int, opens: bool = True) -> None:
        self.left, self.opens = frames, opens

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self.opens

    def set(self, prop: int, value: float) -> bool:
        return True

    def get(self, prop: int) -> float:
        return 0.0

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((4, 4, 3), (200, 100, 10), np.uint8)

    def release(self) -> None: ...


@pytest.fixture
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "next_s", lambda self: 0.001)


@pytest.mark.usefixtures("quick_pauses")
def test_a_usb_camera_that_is_plugged_in_again_keeps_its_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    captures: Iterator[_Usb] = iter([_Usb(2), _Usb(0, opens=False), _Usb(0), _Usb(3)])
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: next(captures))
    with open_source("camera:3", SourceSettings()) as source:
        frames = [source.read() for _ in range(5)]
    for number, frame in enumerate(frames):
        assert frame is not None and frame.image_hwc is not None
        assert (frame.frame_id, frame.source, frame.color_order) == (number, "camera:3", "bgr")
        np.testing.assert_array_equal(frame.image_hwc, np.full((4, 4, 3), (200, 100, 10), np.uint8))


@pytest.mark.usefixtures("quick_pauses")
def test_a_camera_named_by_its_link_is_found_under_its_new_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    link = tmp_path_factory.mktemp("by-id") / "usb-Maker_Camera_0042-video-index0"
    link.symlink_to("/dev/video61")
    opened: list[int] = []

    def capture(index: int) -> _Usb:
        opened.append(index)
        link.unlink()
        link.symlink_to("/dev/video62")
        return _Usb(1)

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    from edge_ad.runtime.sources.camera import open_camera

    with Reconnecting(lambda: open_camera(str(link)), Patience()) as source:
        frames = [source.read() for _ in range(2)]
    assert opened == [61, 62]
    assert [frame.source for frame in frames if frame is not None] == [str(link)] * 2


def test_an_absent_link_is_an_absent_camera() -> None:
    source = open_source("/dev/v4l/by-id/usb-nobody-has-this-video-index0")
    with pytest.raises(SourceError, match="leads to no camera; plug it in"), source:
        pass


@pytest.mark.parametrize(
    ("uri", "settings", "words"),
    [
        ("camera:0", SourceSettings(loop=True), "only videos and pictures"),
        ("sim:", SourceSettings(loop=True), "only videos and pictures"),
        ("camera:0", SourceSettings(watch=True), "wanted a folder to watch"),
        ("rtsp://u:hunter2@h/x", SourceSettings(watch=True), "wanted a folder to watch"),
        (".", SourceSettings(watch=True, loop=True), "leave out --loop"),
        ("ftp://u:hunter2@h/x", SourceSettings(watch=True), "unknown scheme"),
    ],
)
def test_settings_that_a_source_cannot_follow_are_refused(uri: str, settings: SourceSettings, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        open_source(uri, settings)
    assert "hunter2" not in str(caught.value)


def test_only_devices_are_watched_over(tmp_path_factory: pytest.TempPathFactory) -> None:
    clip = tmp_path_factory.mktemp("clips") / "a.mp4"
    clip.write_bytes(b"")
    kinds: dict[str, Callable[[type], bool]] = {
        "camera:0": lambda kind: kind is Reconnecting,
        "rtsp://host/x": lambda kind: kind is Reconnecting,
        "sim:?fps=3": lambda kind: kind is not Reconnecting,
        str(clip): lambda kind: kind is not Reconnecting,
    }
    for uri, holds in kinds.items():
        assert holds(type(open_source(uri, SourceSettings()))), uri
