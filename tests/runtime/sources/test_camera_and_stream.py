"""Cameras and network streams: what can be tried without hardware, and that no password leaks."""

from __future__ import annotations

import glob
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.errors import SourceError
from edge_ad.runtime.sources import camera_source, open_source
from edge_ad.runtime.sources.address import without_secrets

FRAMES = 5


class _Mjpeg(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/still.jpg"):
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.end_headers()
            self.wfile.write(_jpeg(90))
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for index in range(FRAMES):
            jpeg = _jpeg(40 * index)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")

    def log_message(self, format: str, *args: object) -> None: ...


def _jpeg(level: int) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((48, 64, 3), (level, 100, 200), np.uint8))[1])


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Mjpeg) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


def test_an_mjpeg_stream_over_http_is_read_to_its_end(server: str) -> None:
    with open_source(f"http://user:secret@{server}/live.mjpg?token=hidden") as source:
        assert source.live
        assert source.length is None
        frames = []
        while (frame := source.read()) is not None:
            frames.append(frame)
    assert [frame.frame_id for frame in frames] == list(range(FRAMES))
    for index, frame in enumerate(frames):
        assert frame.image_hwc is not None and frame.color_order == "bgr" and frame.path is None
        np.testing.assert_allclose(frame.image_hwc.mean((0, 1)), [40 * index, 100, 200], atol=4)
        assert frame.source == source.name == f"http://{server}/live.mjpg?***"
    stamps = [frame.captured_ns for frame in frames]
    assert stamps == sorted(stamps)


def test_a_picture_over_http_is_one_frame(server: str) -> None:
    with open_source(f"http://{server}/still.jpg") as source:
        frame = source.read()
        assert frame is not None and frame.image_hwc is not None
        np.testing.assert_allclose(frame.image_hwc.mean((0, 1)), [90, 100, 200], atol=4)
        assert source.read() is None


@pytest.mark.parametrize("scheme", ["rtsp", "http", "HTTP", "tcp"])
def test_a_closed_port_is_one_line_without_the_password(scheme: str) -> None:
    source = open_source(f"{scheme}://admin:hunter2@127.0.0.1:9/live?token=t0psecret")
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:9/live") as caught, source:
        pass
    text = str(caught.value)
    assert "\n" not in text
    assert not any(secret in text + source.name for secret in ("hunter2", "admin", "t0psecret"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://10.0.0.5:554/live/1", "rtsp://10.0.0.5:554/live/1"),
        ("rtsp://u:p@10.0.0.5/live", "rtsp://10.0.0.5/live"),
        ("rtsp://u:p@ss@host/live", "rtsp://host/live"),
        ("rtsp://u:p/w@host/live", "rtsp://***"),
        ("rtsp://u:p?w@host/live", "rtsp://***"),
        ("rtsp://u:p#w@host/live", "rtsp://***"),
        ("http://host/a?mail=a@b&token=S", "http://***"),
        ("http://host/a?token=S", "http://host/a?***"),
        ("http://[::1]:80/a#S", "http://[::1]:80/a?***"),
        ("rtsp://host/user=admin_password=S_channel=1", "rtsp://host/***"),
        ("u:p@host/live", "***@host/live"),
        ("shots/a.png", "shots/a.png"),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@given(
    st.text("Zé:/?#@&=% \n[]", min_size=0, max_size=6).map(lambda noise: f"{noise}SECRET"),
    st.sampled_from(["rtsp", "https", "foo"]),
    st.text("abc/:@?#=&.", max_size=10),
)
def test_no_password_is_ever_shown(password: str, scheme: str, rest: str) -> None:
    assert "SECRET" not in without_secrets(f"{scheme}://user:{password}@host/{rest}")
    assert "SECRET" not in without_secrets(f"{scheme}://host/path?{rest}&key={password}")


def test_a_missing_camera_is_named_with_those_that_exist() -> None:
    index = next(n for n in range(99, 0, -1) if f"/dev/video{n}" not in glob.glob("/dev/video*"))
    for source in (camera_source(index), open_source(str(index)), open_source(f"camera:{index}")):
        assert source.live
        assert source.name == f"camera:{index}"
        with pytest.raises(SourceError, match=rf"camera {index} does not open.*/dev/video"), source:
            pass


@pytest.mark.parametrize("uri", ["-1", "100", "200", "camera:", "camera:front2", "99999999999999999999"])
def test_an_impossible_camera_index_is_refused(uri: str) -> None:
    with pytest.raises(SourceError, match="0 to 99"):
        open_source(uri)


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

    def grab(self) -> bool:
        return bool(self.left)

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        return self.left.pop(0)

    def release(self) -> None:
        self.released = True


def test_a_damaged_camera_frame_is_counted_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = _FakeCapture()
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: capture)
    with camera_source(3) as source:
        frames = [source.read() for _ in range(3)]
        assert source.read() is None
    assert [frame.error is None for frame in frames if frame] == [True, False, True]
    assert frames[0] is not None and frames[0].image_hwc is not None and frames[0].image_hwc.shape == (4, 4, 3)
    assert frames[1] is not None and frames[1].error == "camera:3: frame 1: cannot be decoded"
    assert capture.properties == {cv2.CAP_PROP_BUFFERSIZE: 1}
    assert capture.released


def test_a_camera_that_opens_but_is_silent_is_refused_and_released(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = _FakeCapture()
    capture.left = []
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: capture)
    with pytest.raises(SourceError, match="no first frame"), camera_source(3):
        pass
    assert capture.released
