"""Torn frames of videos, streams and cameras are errors, and sizes are those of the frames."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from jpegs import coded_from, damaged, encoded, scene

from edge_ad.errors import ImageError, SourceError
from edge_ad.image.frame import Frame
from edge_ad.image.limits import limited_to
from edge_ad.image.notices import TURNED, noticing
from edge_ad.runtime.sources import open_source
from edge_ad.runtime.sources.packets import bgr_of_packet, packets_of_file


@contextmanager
def mjpeg_camera(parts: list[bytes], *, with_lengths: bool = True) -> Iterator[str]:
    """An MJPEG camera that sends each part once, and then hangs up."""

    class Camera(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for part in parts:
                length = b"Content-Length: %d\r\n" % len(part) if with_lengths else b""
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n" + length + b"\r\n" + part + b"\r\n")
            self.wfile.write(b"--frame--\r\n")

    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/live"
        finally:
            server.shutdown()
            thread.join()


def frames_of(uri: str) -> list[Frame]:
    frames: list[Frame] = []
    with open_source(uri) as source:
        try:
            while (frame := source.read()) is not None:
                frames.append(frame)
        except SourceError:
            assert source.live
    return frames


@pytest.mark.parametrize("with_lengths", [True, False])
def test_torn_frames_of_a_stream_are_errors_and_the_others_are_whole(with_lengths: bool) -> None:
    whole = [encoded(scene(seed)) for seed in range(5)]
    torn = [data for seed in range(3) for _, data in damaged(whole[seed], seed)]
    parts = [whole[0]] + [part for number, data in enumerate(torn) for part in (data, whole[number % 5])]
    with mjpeg_camera(parts, with_lengths=with_lengths) as uri:
        frames = frames_of(uri)
    assert [frame.error is None for frame in frames] == [number % 2 == 0 for number in range(len(parts))]
    for frame, part in zip(frames, parts, strict=True):
        if frame.image_hwc is not None:
            np.testing.assert_array_equal(frame.image_hwc, bgr_of_packet(np.frombuffer(part, np.uint8)))
        else:
            assert "damaged JPEG" in str(frame.error) or "cut off" in str(frame.error)


def test_frames_of_a_stream_have_their_own_size() -> None:
    sizes = [(160, 208), (160, 208), (320, 240), (96, 128)]
    with mjpeg_camera([encoded(scene(seed, size)) for seed, size in enumerate(sizes)]) as uri:
        frames = frames_of(uri)
    assert [frame.image_hwc.shape[:2] for frame in frames if frame.image_hwc is not None] == sizes


def test_what_is_no_picture_is_an_error_and_the_stream_goes_on() -> None:
    good = encoded(scene(1))
    with mjpeg_camera([good, b"<html>busy</html>", b"", good, good[:9], good]) as uri:
        frames = frames_of(uri)
    assert [frame.error is None for frame in frames] == [True, False, False, True, False, True]
    assert all("\n" not in str(frame.error) for frame in frames)


def test_a_too_large_frame_of_a_stream_is_an_error() -> None:
    with limited_to(0.05), mjpeg_camera([encoded(scene(0)), encoded(scene(0, (320, 320)))]) as uri:
        first, second = frames_of(uri)
    assert first.error is None
    assert second.error is not None and "too large: 320x320" in second.error


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (208, 160))
    assert writer.isOpened()
    for seed in range(4):
        writer.write(np.asarray(scene(seed))[:, :, ::-1].copy())
    writer.release()
    return path


def test_torn_frames_of_a_video_are_errors(video: Path) -> None:
    assert all(frame.error is None for frame in frames_of(str(video)))
    data = bytearray(video.read_bytes())
    second = data.index(b"\xff\xd8\xff", data.index(b"\xff\xd8\xff") + 3)
    start = second + coded_from(bytes(data[second : data.index(b"\xff\xd8\xff", second + 3)]))
    data[start + 1500 : start + 2500] = bytes(1000)
    video.write_bytes(data)
    frames = frames_of(str(video))
    assert [frame.error is None for frame in frames] == [True, False, True, True]
    # The same by OpenCV: four frames, and not a word.
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    assert [capture.read()[0] for _ in range(5)] == [True, True, True, True, False]


def test_a_video_with_too_large_frames_is_refused(video: Path) -> None:
    with limited_to(0.03), pytest.raises(SourceError, match=r"clip\.avi: too large: 208x160"), open_source(str(video)):
        pass


def test_two_fields_in_one_frame_are_no_frame_of_half_the_height() -> None:
    one = encoded(scene(0))
    with pytest.raises(ImageError, match="two JPEGs in one frame"):
        bgr_of_packet(np.frombuffer(one + encoded(scene(1)), np.uint8))
    bgr_of_packet(np.frombuffer(one + bytes(100) + one[:200], np.uint8))  # an old frame in the rest of a buffer


class _Driver:
    """A camera or file as OpenCV opens it, that gives JPEGs when asked for them."""

    def __init__(self, code: str, *, gives_bytes: bool = True, degrees: float = 0) -> None:
        self.code, self.gives_bytes, self.degrees = code, gives_bytes, degrees
        self.asked: dict[int, float] = {}
        self.sent = iter([encoded(scene(0)), encoded(scene(1))[:3000] + b"\xff\xd9", encoded(scene(2))])

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def get(self, prop: int) -> float:
        known = {cv2.CAP_PROP_FOURCC: int.from_bytes(self.code.encode(), "little")}
        return known.get(prop, self.degrees if prop == cv2.CAP_PROP_ORIENTATION_META else 0.0)

    def set(self, prop: int, value: float) -> bool:
        self.asked[prop] = value
        return True

    def grab(self) -> bool:
        return True

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        sent = next(self.sent, None)
        if sent is None:
            return False, None
        if not self.gives_bytes or self.code != "MJPG":
            return True, np.full((4, 6, 3), 9, np.uint8)
        return True, np.frombuffer(sent, np.uint8)[None]

    def release(self) -> None: ...


@pytest.mark.parametrize(
    ("driver", "good"),
    [
        (_Driver("MJPG"), [True, False, True]),
        (_Driver("MJPG", gives_bytes=False), [True, True, True]),
        (_Driver("YUYV"), [True, True, True]),
    ],
    ids=["gives JPEGs", "gives pixels all the same", "has no JPEGs"],
)
def test_a_camera_that_sends_jpegs_is_asked_for_them(
    driver: _Driver, good: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: driver)
    with open_source("camera:0") as source:
        frames = [source.read() for _ in range(3)]
    assert [frame is not None and frame.error is None for frame in frames] == good
    assert (cv2.CAP_PROP_CONVERT_RGB in driver.asked) == (driver.code == "MJPG")


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, 3), (180, 2), (270, 1)])
def test_packets_are_turned_as_their_file_asks_for(degrees: float, turns: int) -> None:
    decode = packets_of_file(cv2, _Driver("MJPG", degrees=degrees))
    assert decode is not None
    packet = np.frombuffer(encoded(scene(0)), np.uint8)
    np.testing.assert_array_equal(decode(packet), np.rot90(bgr_of_packet(packet), turns))
    assert packets_of_file(cv2, _Driver("h264")) is None


def test_that_a_video_is_turned_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: _Driver("YUYV", degrees=90))
    said: list[str] = []
    with noticing(said.append), open_source("camera:0"):
        pass
    assert said == [f"note: camera:0: {TURNED}"]
