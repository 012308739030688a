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
from edge_ad.runtime.sources import open_source
from edge_ad.text import without_secrets

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


def test_an_mjpeg_stream_over_http_is_read_until_it_breaks_off(server: str) -> None:
    with open_source(f"http://user:secret@{server}/live.mjpg?token=hidden") as source:
        assert source.live
        assert source.length is None
        frames = [frame for frame in (source.read() for _ in range(FRAMES)) if frame is not None]
        with pytest.raises(SourceError, match=f"live\\.mjpg.* after {FRAMES} frame.*start again") as caught:
            source.read()
    assert "\n" not in str(caught.value)
    assert not any(secret in str(caught.value) for secret in ("user", "secret", "hidden"))
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
        with pytest.raises(SourceError, match=r"after 1 frame"):
            source.read()


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
        ("camera:rtsp://u:p@host/live?token=S", "camera:rtsp://host/live?***"),
        (" SIM:http://u:p@host/live", " SIM:http://host/live"),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@given(
    st.text("Zé:/?#@&=% \n[]", min_size=0, max_size=6).map(lambda noise: f"{noise}SECRET"),
    st.sampled_from(["rtsp", "https", "foo", "camera:rtsp", "sim:camera:http", " tcp"]),
    st.text("abc/:@?#=&.", max_size=10),
)
def test_no_password_is_ever_shown(password: str, scheme: str, rest: str) -> None:
    assert "SECRET" not in without_secrets(f"{scheme}://user:{password}@host/{rest}")
    assert "SECRET" not in without_secrets(f"{scheme}://host/path?{rest}&key={password}")


def test_a_missing_camera_is_named_with_those_that_exist() -> None:
    index = next(n for n in range(99, 0, -1) if f"/dev/video{n}" not in glob.glob("/dev/video*"))
    for source in (open_source(str(index)), open_source(f"camera:{index}")):
        assert source.live
        assert source.name == f"camera:{index}"
        with pytest.raises(SourceError, match=rf"camera {index} does not open.*/dev/video"), source:
            pass


@pytest.mark.parametrize("uri", ["-1", "100", "200", "camera:", "camera:front2", "99999999999999999999"])
def test_an_impossible_camera_index_is_refused(uri: str) -> None:
    with pytest.raises(SourceError, match="0 to 99"):
        open_source(uri)


@pytest.mark.parametrize("kind", ["camera:", "sim:", "sim:?url="])
def test_an_address_behind_the_wrong_kind_is_refused_without_its_password(kind: str) -> None:
    with pytest.raises(SourceError, match=r"host/live|\*{3}") as caught:
        open_source(f"{kind}rtsp://u:hunter2@host/live")
    assert "hunter2" not in str(caught.value)


def test_a_stream_address_that_is_no_text_is_refused() -> None:
    """OpenCV crashes the process on it."""
    with pytest.raises(SourceError, match="UTF-8") as caught:
        open_source("rtsp://u:hunter2@host/\udcff")
    assert "hunter2" not in str(caught.value)
