"""Videos and pictures that begin again at their end."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame
from edge_ad.runtime.sources import open_source
from edge_ad.runtime.sources.settings import SourceSettings

LOOP = SourceSettings(loop=True)
LEVELS = (40, 120, 200)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three frames whose blue channel has a level of its own, in a codec without loss of note."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (64, 48))
    assert writer.isOpened()
    for level in LEVELS:
        writer.write(np.full((48, 64, 3), (level, 10, 90), np.uint8))
    writer.release()
    return path


def read(uri: Path, count: int) -> list[Frame]:
    with open_source(str(uri), LOOP) as source:
        assert source.length is None and not source.live
        frames = [source.read() for _ in range(count)]
    assert source.read() is None
    return [frame for frame in frames if frame is not None]


def test_a_video_begins_again_in_the_same_colours_and_keeps_counting(clip: Path) -> None:
    frames = read(clip, 8)
    assert [frame.frame_id for frame in frames] == list(range(8))
    for number, frame in enumerate(frames):
        assert frame.image_hwc is not None and frame.color_order == "bgr" and frame.path == str(clip)
        np.testing.assert_allclose(frame.image_hwc.mean((0, 1)), [LEVELS[number % 3], 10, 90], atol=4)


def test_pictures_begin_again_and_a_damaged_one_comes_up_each_time(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (9, 0, 0)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    frames = read(tmp_path, 5)
    assert [Path(str(frame.path)).name for frame in frames] == ["1.png", "2.png", "1.png", "2.png", "1.png"]
    assert [frame.error is None for frame in frames] == [True, False, True, False, True]
    assert [frame.frame_id for frame in frames] == list(range(5))


def test_a_video_that_vanishes_ends_the_loop_with_an_error(clip: Path) -> None:
    with open_source(str(clip), LOOP) as source:
        for _ in LEVELS:
            assert source.read() is not None
        clip.unlink()
        with pytest.raises(SourceError, match=r"clip\.avi"):
            source.read()


def test_a_round_without_a_frame_is_an_error_and_no_busy_loop() -> None:
    from edge_ad.runtime.sources.files import FileSource
    from edge_ad.runtime.sources.loop import Looping

    with Looping(FileSource("nothing", ())) as source, pytest.raises(SourceError, match="no frame any more"):
        source.read()
