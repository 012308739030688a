"""GStreamer pipelines: their text, their secrets, and real ones where GStreamer is installed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame
from edge_ad.image.limits import limited_to
from edge_ad.runtime.sources import gst_appsink, gst_library, gstreamer, open_source
from edge_ad.runtime.sources.gst_text import csi_pipeline, delivering_bgr, v4l2_pipeline, without_pipeline_secrets
from edge_ad.runtime.sources.outage import Lost, Outage, Returned
from edge_ad.runtime.sources.reconnect import Patience, Reconnecting
from edge_ad.runtime.sources.settings import SourceSettings

PATIENCE_S = 10
COLOURS_BGR = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}
TOLERANCE = 6  # grey levels lost on the way through the studio range of YUV


def test_a_csi_camera_is_the_pipeline_that_nvidia_documents() -> None:
    assert csi_pipeline("csi://1?width=1280&height=720&fps=60&flip=2") == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=60/1"
        " ! nvvidconv flip-method=2 ! video/x-raw,format=BGRx"
    )
    assert "width=1920,height=1080,framerate=30/1" in csi_pipeline("csi://0")


def test_a_v4l2_device_keeps_its_own_size_or_takes_the_one_asked_for() -> None:
    assert v4l2_pipeline("v4l2:///dev/video0") == ('v4l2src device="/dev/video0" ! decodebin', "/dev/video0")
    text, _ = v4l2_pipeline("v4l2:///dev/v4l/by-id/usb-A_B-video-index0?width=640&height=480&fps=30000/1001")
    assert 'device="/dev/v4l/by-id/usb-A_B-video-index0"' in text
    for form in ("video/x-raw", "image/jpeg"):  # most USB cameras have their large sizes as JPEG only
        assert f"{form},width=640,height=480,framerate=30000/1001" in text


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("csi://", "wanted csi://N"),
        ("csi:0", "wanted csi://N"),
        ("csi://front", "wanted csi://N"),
        ("csi://0?fps=0", "fps: wanted"),
        ("csi://0?width=640&width=640", "given twice"),
        ("v4l2://dev/video0", "wanted v4l2:///dev/videoN"),
        ("v4l2:///dev/video0 ! fakesink", "wanted v4l2:///dev/videoN"),
        ('v4l2:///dev/video0"', "wanted v4l2:///dev/videoN"),
        ("v4l2:///dev/video0?flip=1", "unknown key 'flip'"),
        ("gst:", "wanted a pipeline"),
        ("gst: ! ", "wanted a pipeline"),
        ("gst:appsink", "without an appsink in its midst"),
        ("gst:videotestsrc ! tee name=t ! appsink t. ! fakesink", "without an appsink in its midst"),
    ],
)
def test_what_makes_no_pipeline_is_refused_in_one_line(uri: str, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        open_source(uri)
    assert "\n" not in str(caught.value)


def test_all_faults_of_a_camera_are_told_at_once() -> None:
    with pytest.raises(SourceError) as caught:
        open_source("csi://0?width=0&flip=9&size=3")
    assert all(words in str(caught.value) for words in ("width: wanted", "flip: wanted", "unknown key 'size'"))


@pytest.mark.parametrize("end", ["", " !", " ! appsink", " ! appsink drop=true max-buffers=2", "\n"])
def test_every_pipeline_ends_in_our_own_sink_as_bgr(end: str) -> None:
    text = delivering_bgr(f"videotestsrc{end}")
    assert text.startswith("videotestsrc ! videoconvert ! video/x-raw,format=BGR ! appsink name=")
    assert text.count("appsink") == 1 and "max-buffers=1" in text


@pytest.mark.parametrize(
    ("pipeline", "shown"),
    [
        ("rtspsrc location=rtsp://u:SECRET@h/x?t=SECRET ! decodebin", "rtspsrc location=rtsp://h/x?*** ! decodebin"),
        ('rtspsrc location="rtsp://u:SECRET @h/x" ! a', 'rtspsrc location="rtsp://h/x" ! a'),
        ("rtspsrc user-id=SECRET user-pw=SECRET ! a", "rtspsrc user-id=*** user-pw=*** ! a"),
        ('srtsrc passphrase = "SECRET with \\" SECRET" ! a', "srtsrc passphrase = *** ! a"),
        ("souphttpsrc proxy-pw='SECRET SECRET' ! a", "souphttpsrc proxy-pw=*** ! a"),
        ("videotestsrc pattern=red", "videotestsrc pattern=red"),
    ],
)
def test_pipelines_are_shown_without_secrets(pipeline: str, shown: str) -> None:
    assert without_pipeline_secrets(pipeline) == shown


@given(
    st.text("aé:/?#@&=%", max_size=5),
    st.sampled_from(["location={}", 'location="{}"', "location='{}'", "uri = {}", "{}"]),
    st.sampled_from(["rtsp", "http", "srt"]),
)
def test_no_password_of_an_address_in_a_pipeline_is_shown(noise: str, form: str, scheme: str) -> None:
    address = f"{scheme}://user:{noise}SECRET@host/live"
    assert "SECRET" not in without_pipeline_secrets(f"src {form.format(address)} ! decodebin")


@pytest.mark.usefixtures("gst")
@pytest.mark.parametrize("form", ["RGB", "BGR", "BGRx", "xRGB", "RGBA", "I420", "NV12", "YUY2", "UYVY"])
@pytest.mark.parametrize("colour", list(COLOURS_BGR))
def test_colours_arrive_as_bgr_whatever_the_camera_sends(colour: str, form: str) -> None:
    """The width is such that rows of BGR are padded: GStreamer begins each at a multiple of four bytes."""
    caps = f"video/x-raw,format={form},width=102,height=37"
    with open_source(f"gst:videotestsrc num-buffers=2 pattern={colour} ! {caps}") as source:
        assert not source.live
        frames = [source.read(), source.read()]
        assert source.read() is None
    for number, frame in enumerate(frames):
        assert frame is not None and frame.image_hwc is not None and frame.error is None
        assert (frame.frame_id, frame.color_order, frame.image_hwc.shape) == (number, "bgr", (37, 102, 3))
        assert frame.image_hwc.dtype == np.uint8 and frame.image_hwc.flags.owndata
        # Right to the last pixel of each row; chroma of half resolution blurs nothing in a picture of one colour.
        np.testing.assert_allclose(frame.image_hwc.reshape(-1, 3), [COLOURS_BGR[colour]] * 37 * 102, atol=TOLERANCE)


@pytest.mark.usefixtures("gst")
def test_grey_is_grey() -> None:
    with open_source("gst:videotestsrc num-buffers=1 pattern=white ! video/x-raw,format=GRAY8,width=30") as source:
        frame = source.read()
    assert frame is not None and frame.image_hwc is not None
    assert frame.image_hwc.min() >= 235  # white of the studio range
    np.testing.assert_array_equal(frame.image_hwc, frame.image_hwc[..., :1].repeat(3, axis=2))


@pytest.mark.usefixtures("gst")
def test_of_a_file_no_frame_is_lost_however_slow_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    levels = list(range(20, 220, 20))
    for level in levels:
        writer.write(np.full((48, 64, 3), (level, 128, 128), np.uint8))
    writer.release()
    blues = []
    with open_source(f"gst:filesrc location={path} ! decodebin", SourceSettings()) as source:
        while (frame := source.read()) is not None:
            assert frame.image_hwc is not None
            blues.append(float(frame.image_hwc[..., 0].mean()))
            time.sleep(0.01)
        assert not source.live
    np.testing.assert_allclose(blues, levels, atol=TOLERANCE)


@pytest.mark.usefixtures("gst")
def test_of_a_live_pipeline_the_newest_frame_is_read_and_its_age_is_known() -> None:
    with open_source("gst:videotestsrc is-live=true ! video/x-raw,width=32,height=24,framerate=50/1") as source:
        assert source.live
        for _ in range(3):
            assert source.read() is not None
        rest_s = 0.3
        time.sleep(rest_s)
        frame = source.read()
        assert frame is not None
        age_s = (time.monotonic_ns() - frame.captured_ns) / 1e9
    assert 0 <= age_s < 0.5 * rest_s  # not the one that came when the rest began


@pytest.mark.usefixtures("gst")
@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("gst:no-such-element", "no-such-element"),
        ("gst:videotestsrc pattern=mauve", "mauve"),
        ("gst:filesrc location=/no/such/file ! decodebin", "filesrc"),
        ("gst:fakesrc num-buffers=0", "no first frame"),
        ("v4l2:///dev/video97", "/dev/video97"),
        ("csi://0", "nvarguscamerasrc"),
        ("gst:rtspsrc location=rtsp://u:hunter2@127.0.0.1:9/x user-pw=hunter2 ! decodebin", "127.0.0.1:9/x"),
    ],
)
def test_a_pipeline_that_does_not_run_says_why_in_one_line(uri: str, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught, open_source(uri):
        pass
    text = str(caught.value)
    assert "\n" not in text and "hunter2" not in text


@pytest.mark.usefixtures("gst")
def test_a_live_pipeline_that_ends_is_lost_and_started_again() -> None:
    outages: list[Outage] = []
    uri = "gst:videotestsrc is-live=true num-buffers=3 pattern=blue ! video/x-raw,width=33,height=24,framerate=50/1"
    source = Reconnecting(lambda: open_source(uri), Patience(base_s=0.001, cap_s=0.002))
    source.report_to(outages.append)
    frames: list[Frame | None] = []
    with source:
        while len(outages) < 4:
            frames.append(source.read())
    assert [type(outage) for outage in outages] == [Lost, Returned, Lost, Returned]
    assert [frame.frame_id for frame in frames if frame] == list(range(len(frames)))
    for frame in frames:
        assert frame is not None and frame.image_hwc is not None
        np.testing.assert_allclose(frame.image_hwc.mean((0, 1)), COLOURS_BGR["blue"], atol=TOLERANCE)


@pytest.mark.usefixtures("gst")
def test_a_silent_pipeline_can_be_closed_under_its_reader() -> None:
    """One frame in a thousand seconds."""
    answers: list[Frame | None] = []
    with open_source("gst:videotestsrc is-live=true ! video/x-raw,width=32,height=24,framerate=1/1000") as source:
        assert source.read() is not None
        reader = threading.Thread(target=lambda: answers.append(source.read()))
        reader.start()
    reader.join(PATIENCE_S)
    assert not reader.is_alive() and answers == [None]


class _OpenCv:
    """What OpenCV gives for a pipeline that it runs itself."""

    def __init__(self, text: str, backend: int) -> None:
        assert backend == cv2.CAP_GSTREAMER
        self.text = text

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return "videotestsrc" in self.text

    def get(self, prop: int) -> float:
        return 0.0

    def grab(self) -> bool:
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((4, 6, 3), COLOURS_BGR["red"], np.uint8)

    def release(self) -> None: ...


@pytest.fixture
def without_pygobject(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Any:
        raise ImportError("No module named 'gi'")

    monkeypatch.setattr(gstreamer, "load_gst", absent)


@pytest.mark.usefixtures("without_pygobject")
def test_an_opencv_with_gstreamer_does_what_pygobject_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: backend == cv2.CAP_GSTREAMER)
    monkeypatch.setattr(cv2, "VideoCapture", _OpenCv)
    assert gstreamer.gstreamer_support() == f"OpenCV {cv2.__version__}"
    with open_source("gst:videotestsrc") as source:
        frame = source.read()
        assert source.live and source.name == "gst:videotestsrc"
    assert frame is not None and frame.image_hwc is not None and frame.color_order == "bgr"
    np.testing.assert_array_equal(frame.image_hwc[0, 0], COLOURS_BGR["red"])
    with pytest.raises(SourceError, match="the pipeline does not start"), open_source("gst:nothing"):
        pass


@pytest.mark.usefixtures("without_pygobject")
@pytest.mark.parametrize("uri", ["gst:videotestsrc", "csi://0", "v4l2:///dev/video0"])
def test_without_gstreamer_the_error_says_what_to_install(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    for ask in (lambda: open_source(uri), gstreamer.gstreamer_support):
        with pytest.raises(SourceError, match=r"No module named 'gi'.*sudo apt install python3-gi"):
            ask()


def test_pygobject_of_the_system_is_taken_only_if_it_was_made_for_this_python(tmp_path: Path) -> None:
    package = tmp_path / "gi"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_gi.cpython-27-x86_64-linux-gnu.so").write_bytes(b"")
    assert gst_library._of_the_system((str(tmp_path), "/no/such/folder")) is None


def test_what_gstreamer_support_says_is_what_is_here(gst: Any) -> None:
    assert gstreamer.gstreamer_support() == f"PyGObject, {gst.version_string()}"


FIND_THE_UNWINDER = """
import ctypes, sys
if "guarded" in sys.argv:
    from edge_ad.runtime.sources.gst_library import load_gst
else:
    from edge_ad.runtime.sources import gst_library
    gst_library._keep_exceptions_whole = lambda: None
    load_gst = gst_library.load_gst
load_gst()

class Place(ctypes.Structure):
    _fields_ = [("file", ctypes.c_char_p)] + [(name, ctypes.c_void_p) for name in ("base", "symbol", "at")]

place = Place()
seen = ctypes.CDLL(None)  # what a library sees that is loaded now
seen.dladdr(ctypes.cast(seen._Unwind_RaiseException, ctypes.c_void_p), ctypes.byref(place))
print(place.file.decode())
"""


@pytest.mark.usefixtures("gst")
@pytest.mark.skipif(sys.platform != "linux", reason="libunwind is a library of Linux")
def test_c_plus_plus_exceptions_of_libraries_loaded_later_stay_with_libgcc() -> None:
    """With libunwind's functions of the same names, an engine that throws would abort the process."""
    found = {}
    for how in ("guarded", "bare"):
        command = [sys.executable, "-W", "ignore", "-c", FIND_THE_UNWINDER, how]
        found[how] = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "libgcc_s" in found["guarded"]
    if "libgcc_s" in found["bare"]:
        pytest.skip("this GStreamer comes without libunwind, so there is nothing to guard against")


@pytest.mark.parametrize(("flagged", "error"), [(False, None), (True, "a decoder of the pipeline has marked it")])
def test_what_a_decoder_marks_as_damaged_is_an_error(gst: Any, flagged: bool, error: str | None) -> None:
    buffer = gst.Buffer.new_wrapped(bytes(range(12)) * 4)
    if flagged:
        buffer.set_flags(gst.BufferFlags.CORRUPTED)
    caps = gst.Caps.from_string("video/x-raw,format=BGR,width=4,height=4")
    image, reason = gst_appsink._as_bgr(gst, gst.Sample.new(buffer, caps, None, None))
    assert (image is None) == flagged
    assert reason is None if error is None else error in str(reason)


@pytest.mark.usefixtures("gst")
def test_too_large_frames_of_a_pipeline_are_errors() -> None:
    with (
        limited_to(0.01),
        open_source("gst:videotestsrc num-buffers=2 ! video/x-raw,width=320,height=240") as source,
    ):
        frame = source.read()
    assert frame is not None and "too large: 320x240" in str(frame.error)
