"""Video files and the OpenCV capture that they share with cameras and streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_ad.errors import EdgeAdError, ImageError, SourceError
from edge_ad.runtime.host.opencv import load_cv2
from edge_ad.runtime.sources import open_source
from edge_ad.runtime.sources.capture import as_bgr

LEVELS = [0, 25, 50, 75, 100, 125]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    assert writer.isOpened()
    for level in LEVELS:
        writer.write(np.full((48, 64, 3), (level, 128, 250), np.uint8))
    writer.release()
    return path


def test_every_frame_is_delivered_once_in_order(video: Path) -> None:
    with open_source(str(video)) as source:
        assert source.length == len(LEVELS)
        assert not source.live
        frames = [source.read() for _ in LEVELS]
        assert source.read() is None
    assert [frame.frame_id for frame in frames if frame] == list(range(len(LEVELS)))
    for frame, level in zip(frames, LEVELS, strict=True):
        assert frame is not None and frame.image_hwc is not None
        assert frame.image_hwc.shape == (48, 64, 3)
        assert frame.color_order == "bgr" and frame.path == str(video) and frame.error is None
        np.testing.assert_allclose(frame.image_hwc.mean((0, 1)), [level, 128, 250], atol=4)


def test_a_video_can_be_opened_again_and_not_read_when_closed(video: Path) -> None:
    source = open_source(str(video))
    assert source.read() is None
    for _ in range(2):
        with source:
            frame = source.read()
            assert frame is not None and frame.frame_id == 0
    assert source.read() is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are not UTF-8")
def test_a_video_whose_name_is_not_utf_8_is_read(video: Path) -> None:
    odd = f"{video.parent}/clip\udcff.avi"
    os.rename(video, odd)
    # In a process of its own, since OpenCV crashes the process when it is handed such a name as text.
    script = (
        "import sys\n"
        "from edge_ad.runtime.sources import open_source\n"
        "with open_source(sys.argv[1]) as source:\n"
        "    frames = list(iter(source.read, None))\n"
        "print(len(frames), {ascii(frame.path) for frame in frames} == {ascii(sys.argv[1])})\n"
    )
    done = subprocess.run([sys.executable, "-c", script, odd], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, f"{len(LEVELS)} True", "")


@pytest.mark.parametrize("content", [b"", b"\x00\x01garbage" * 500, None], ids=["empty", "garbage", "cut off"])
def test_a_file_that_is_no_video_says_so(video: Path, content: bytes | None) -> None:
    broken = video.with_name("broken.avi")
    broken.write_bytes(video.read_bytes()[:300] if content is None else content)
    with pytest.raises(SourceError, match=r"broken\.avi: .*no decoder") as caught, open_source(str(broken)):
        pass
    assert "\n" not in str(caught.value)


def test_opencv_prints_nothing_on_stderr(video: Path) -> None:
    folder = video.parent
    (folder / "garbage.mp4").write_bytes(b"\x00\x01garbage" * 500)
    (folder / "cut.avi").write_bytes(video.read_bytes()[:300])
    (folder / "empty.mp4").write_bytes(b"")
    script = (
        "import sys\n"
        "if sys.argv[1] == 'late': import cv2\n"
        "from edge_ad.errors import SourceError\n"
        "from edge_ad.runtime.sources import open_source\n"
        "for uri in sys.argv[2:]:\n"
        "    try:\n"
        "        with open_source(uri): print('opened', uri)\n"
        "    except SourceError as exc: print(exc)\n"
    )
    uris = ["77", str(folder / "garbage.mp4"), str(folder / "cut.avi"), str(folder / "empty.mp4")]
    uris += ["rtsp://127.0.0.1:9/x", "http://127.0.0.1:9/x"]
    for order in ("early", "late"):
        command = [sys.executable, "-W", "error", "-c", script, order, *uris]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert done.stderr == ""
        assert len(done.stdout.splitlines()) == len(uris)
        assert "opened" not in done.stdout


def test_without_opencv_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(EdgeAdError, match="pip install opencv-python"):
        load_cv2()


def test_the_log_level_that_a_user_set_stays() -> None:
    script = (
        "import os; from edge_ad.runtime.host.opencv import load_cv2; load_cv2(); print(os.environ['OPENCV_LOG_LEVEL'])"
    )
    for environment, level in (({}, "SILENT"), ({"OPENCV_LOG_LEVEL": "ERROR"}, "ERROR")):
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("OPENCV_")}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == level


def test_grey_and_alpha_become_three_channels() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for pixels in (grey, grey[:, :, None]):
        np.testing.assert_array_equal(as_bgr(pixels), np.stack([grey] * 3, axis=2))
    bgra = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(as_bgr(bgra), bgra[:, :, :3])
    assert as_bgr(bgra).flags.c_contiguous


@pytest.mark.parametrize(
    "pixels",
    [None, np.zeros((0, 0, 3), np.uint8), np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2), np.uint16)],
)
def test_what_is_no_picture_is_refused(pixels: np.ndarray | None) -> None:
    with pytest.raises(ImageError):
        as_bgr(pixels)
