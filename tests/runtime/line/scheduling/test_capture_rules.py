"""Which frames are captured, which are repeats, and when a source counts as silent."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import ConfigError
from edge_ad.image.frame import FrameSource
from edge_ad.runtime.line.scheduling.capture import Silence
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.scheduling.pace import Pace
from edge_ad.runtime.line.scheduling.repeats import Repeats

MS = 1_000_000
CAMERA = cast("FrameSource", type("Camera", (), {"live": True}))
FILES = cast("FrameSource", type("Files", (), {"live": False}))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(fps=st.floats(1, 240), limit=st.floats(0.5, 240), jitter=st.lists(st.floats(0, 0.3), min_size=400, max_size=400))
def test_a_limit_of_the_rate_is_kept_and_used(fps: float, limit: float, jitter: list[float]) -> None:
    pace = Pace(Lane(CAMERA, "camera", max_fps=limit))
    moments = sorted(int((number + early) / fps * 1e9) for number, early in enumerate(jitter))
    taken = [moment for moment in moments if pace.takes(moment)]
    seconds = 400 / fps
    assert len(taken) <= seconds * limit + 2
    # What arrives in between cannot be had, so some of the limit stays unused unless the camera is much faster.
    assert len(taken) >= min(400, seconds * limit) * 0.6 - 2


def test_jitter_does_not_halve_the_rate() -> None:
    """A camera of 30 fps under a limit of 30 fps, its frames up to 3 ms early or late."""
    rng = np.random.default_rng(0)
    pace = Pace(Lane(CAMERA, "camera", max_fps=30))
    moments = np.arange(300) / 30 * 1e9 + rng.uniform(-3, 3, 300) * MS
    assert sum(pace.takes(int(moment)) for moment in moments) >= 298


def test_every_third_frame() -> None:
    pace = Pace(Lane(CAMERA, "camera", vid_stride=3))
    assert [pace.takes(0) for _ in range(7)] == [True, False, False, True, False, False, True]


def test_a_source_that_waits_is_left_alone_until_its_frame_is_due() -> None:
    pace = Pace(Lane(FILES, "files", max_fps=10))
    assert pace.wait_s(0) == 0
    assert pace.takes(0)
    assert pace.wait_s(30 * MS) == pytest.approx(0.07)
    assert pace.takes(100 * MS)
    assert pace.wait_s(250 * MS) == 0  # it was slow; nothing is made up for


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 20)), where=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999))
)
def test_one_bit_of_one_pixel_makes_another_picture(shape: tuple[int, int], where: tuple[float, float]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    other = image.copy()
    other[int(where[0] * shape[0]), int(where[1] * shape[1]), 1] ^= 1
    repeats = Repeats()
    found = [repeats.is_repeat(picture) for picture in (image, image.copy(), other, image, image[::-1][::-1])]
    assert found == [False, True, False, False, True]


def test_pictures_of_two_sizes_are_no_repeats() -> None:
    repeats = Repeats()
    assert not repeats.is_repeat(np.zeros((4, 4, 3), np.uint8))
    assert not repeats.is_repeat(np.zeros((4, 5, 3), np.uint8))


def test_silence_is_reported_at_a_bounded_rate() -> None:
    silence = Silence(2.0)
    reports = [silence.silent_s(0, at_ms * MS) for at_ms in range(0, 7000, 100)]
    assert [report for report in reports if report is not None] == [2.0, 4.0, 6.0]
    assert silence.silent_s(None, 8000 * MS) is None  # a frame came, or the source is made to wait
    assert silence.silent_s(8000 * MS, 9000 * MS) is None
    assert silence.silent_s(8000 * MS, 15_500 * MS) == 7.5  # the watch itself came late: one report


def test_frames_of_files_are_not_dropped() -> None:
    assert not Lane(FILES, "files").freshest
    assert Lane(CAMERA, "camera").freshest
    assert Lane(CAMERA, "camera", buffer="freshest").freshest
    assert not Lane(CAMERA, "camera", buffer="every_frame").freshest
    with pytest.raises(ConfigError, match="files waits to be read"):
        _ = Lane(FILES, "files", buffer="freshest").freshest
