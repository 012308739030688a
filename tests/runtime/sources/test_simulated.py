"""The simulated line: its frames are reproducible, its truth is true, its clock is kept."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame
from edge_ad.runtime.sources import open_source
from edge_ad.runtime.sources.sim_scene import Scene
from edge_ad.runtime.sources.simulated import LineSpec, SimulatedLine, parse_line

SIZE = "size=640x480"


def frames_of(uri: str, count: int) -> list[Frame]:
    with open_source(uri) as source:
        frames = [source.read() for _ in range(count)]
    return [frame for frame in frames if frame is not None]


def image(frame: Frame) -> np.ndarray:
    assert frame.image_hwc is not None
    return frame.image_hwc


def test_frames_depend_on_seed_and_number_alone() -> None:
    first = frames_of(f"sim:?{SIZE}&defects=0.5&seed=4", 6)
    again = frames_of(f"sim:?{SIZE}&defects=0.5&seed=4&fps=1000", 6)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(image(one), image(other))
        assert one.truth == other.truth
    alone, truth = Scene(640, 480, seed=4).paint(5, 0.5)
    np.testing.assert_array_equal(alone, image(first[5]))
    assert truth == first[5].truth
    assert not np.array_equal(image(first[0]), image(first[1]))
    assert not np.array_equal(image(first[0]), image(frames_of(f"sim:?{SIZE}&defects=0.5&seed=5", 1)[0]))


@pytest.mark.parametrize(("width", "height", "count"), [(1280, 720, 8), (480, 640, 15), (200, 200, 60)])
def test_the_truth_is_where_the_picture_differs_from_a_good_part(width: int, height: int, count: int) -> None:
    good = frames_of(f"sim:?size={width}x{height}&defects=0&seed=2", count)
    bad = frames_of(f"sim:?size={width}x{height}&defects=1&seed=2", count)
    radius = 0.35 * min(width, height)
    for frame, twin in zip(bad, good, strict=True):
        assert frame.truth is not None and twin.truth is not None
        assert frame.truth.anomalous and frame.truth.boxes_xyxy
        assert not twin.truth.anomalous and twin.truth.boxes_xyxy == ()
        change = np.abs(image(frame).astype(int) - image(twin)).max(axis=2)
        outside = change.copy()
        for left, top, right, bottom in frame.truth.boxes_xyxy:
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
            assert change[top:bottom, left:right].max() >= 30
            longest = max(right - left, bottom - top)
            assert 3 <= longest <= max(8, 0.14 * 2 * radius)
            middle_x, middle_y = (left + right) / 2 - width / 2, (top + bottom) / 2 - height / 2
            assert np.hypot(middle_x, middle_y) <= radius * 1.03
            outside[top:bottom, left:right] = 0
        assert outside.max() <= 14


def test_defects_are_small_against_the_part_and_of_different_sizes() -> None:
    frames = frames_of(f"sim:?{SIZE}&defects=1&seed=0", 60)
    boxes = [box for frame in frames if frame.truth for box in frame.truth.boxes_xyxy]
    assert len(boxes) > 60
    sides = [max(right - left, bottom - top) / (0.70 * 480) for left, top, right, bottom in boxes]
    assert 0.02 < min(sides) < 0.05 and 0.09 < max(sides) < 0.14


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_defects_come_as_often_as_asked(share: float) -> None:
    frames = frames_of(f"sim:?size=64x64&defects={share}", 600)
    anomalous = [frame.truth.anomalous for frame in frames if frame.truth]
    # Three standard deviations of 600 draws; a tiny part may leave no place for a defect.
    assert abs(np.mean(anomalous) - share) <= 3 * np.sqrt(share * (1 - share) / 600) + 0.01


def test_a_good_part_varies_a_little_from_frame_to_frame() -> None:
    frames = [image(frame)[120:360, 200:440].mean() for frame in frames_of(f"sim:?{SIZE}&defects=0", 20)]
    assert 1 < np.ptp(frames) < 25


def test_the_part_lies_in_the_middle_and_is_brighter_than_the_belt() -> None:
    (frame,) = frames_of("sim:?defects=0", 1)
    pixels = image(frame)
    assert pixels.shape == (720, 1280, 3) and frame.color_order == "bgr"
    flange = pixels[360 - 10 : 360 + 10, 640 + 100 : 640 + 115]
    assert flange.mean() > 80
    assert pixels[300:420, 100:200].mean() < 60


class _Clock:
    """A clock that only moves when the line waits on it."""

    def __init__(self) -> None:
        self.ns = 5_000_000_000
        self.waits_s: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waits_s.append(seconds)
        self.ns += round(seconds * 1e9)
        return False


def test_a_live_line_waits_until_a_frame_is_due_and_not_when_late(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    line = SimulatedLine(LineSpec(fps=10, width=64, height=64), now_ns=lambda: clock.ns)
    assert line.live
    with line:
        monkeypatch.setattr(line._closed, "wait", clock.wait)
        clock.ns += 3_000_000_000  # the time between opening and the first read is nobody's delay
        stamps = [line.read()]
        stamps.append(line.read())
        clock.ns += 350_000_000
        stamps += [line.read() for _ in range(4)]
    assert [round((frame.captured_ns - 8_000_000_000) / 1e6) for frame in stamps if frame] == [
        0,
        100,
        450,
        450,
        450,
        500,
    ]
    assert clock.waits_s == pytest.approx([0.1, 0.05])


def test_without_fps_the_line_never_waits() -> None:
    line = SimulatedLine(LineSpec(width=64, height=64), now_ns=lambda: 0)
    assert not line.live
    with line:
        assert [frame.frame_id for frame in (line.read(), line.read()) if frame] == [0, 1]


def test_closing_ends_a_read_that_waits() -> None:
    line = SimulatedLine(LineSpec(fps=0.001, width=64, height=64))
    got: list[Frame | None] = []
    with line:
        assert line.read() is not None
        thread = threading.Thread(target=lambda: got.append(line.read()))
        thread.start()
    thread.join(timeout=60)
    assert got == [None]


def test_the_line_ends_after_its_frames_and_starts_anew() -> None:
    source = open_source("sim:?size=64x64&frames=3")
    assert source.length == 3
    for _ in range(2):
        with source:
            frames = [source.read() for _ in range(5)]
            assert [frame and frame.frame_id for frame in frames] == [0, 1, 2, None, None]


@given(
    fps=st.none() | st.floats(0.001, 1000),
    width=st.integers(64, 8192),
    height=st.integers(64, 8192),
    defects=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
    frames=st.none() | st.integers(1, 10**9),
    order=st.randoms(use_true_random=False),
)
def test_what_is_written_is_what_is_meant(fps, width, height, defects, seed, frames, order) -> None:  # type: ignore[no-untyped-def]
    pairs = [f"size={width}x{height}", f"defects={defects:.17f}", f"seed={seed}"]
    pairs += [] if fps is None else [f"fps={fps:.15f}"]
    pairs += [] if frames is None else [f"frames={frames}"]
    order.shuffle(pairs)
    spec = parse_line("sim:?" + "&".join(pairs))
    assert (spec.width, spec.height, spec.seed, spec.frames) == (width, height, seed, frames)
    assert spec.defects == pytest.approx(defects, abs=1e-15)
    assert spec.fps == (None if fps is None else pytest.approx(fps, abs=1e-12))


@settings(max_examples=300)
@given(
    st.text(max_size=30) | st.from_regex(r"\?((fps|size|defects|seed|frames|x)=[0-9xe.+-]{0,6}&?){0,4}", fullmatch=True)
)
def test_any_text_is_a_line_or_one_clear_error(text: str) -> None:
    try:
        spec = parse_line("sim:" + text)
    except SourceError as exc:
        assert "\n" not in str(exc)  # noqa: PT017 - most texts are lines, and raise nothing
        return
    assert 64 <= spec.width <= 8192 and 64 <= spec.height <= 8192
    assert 0 <= spec.defects <= 1 and spec.seed >= 0
    assert spec.fps is None or 0 < spec.fps <= 1000


def test_defaults() -> None:
    assert parse_line("sim:") == parse_line("sim:?") == LineSpec(None, 1280, 720, 0.1, 0, None)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(SourceError) as caught:
        open_source("sim:?fsp=60&size=1920&defects=1.5&seed=-1&frames=0&fps=inf")
    text = str(caught.value)
    for part in ("unknown key 'fsp'", "'1920'", "'1.5'", "'-1'", "frames: wanted", "'inf'"):
        assert part in text
    with pytest.raises(SourceError, match="given twice"):
        parse_line("sim:?seed=1&seed=2")
    with pytest.raises(SourceError, match="put a '\\?'"):
        parse_line("sim:fps=60")
