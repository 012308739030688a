"""What is said of a machine, leaks of its memory, and the frames that are looked at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.errors import ConfigError, SourceError
from edge_ad.image.preprocess import Preprocessor
from edge_ad.image.usability import unusable_input
from edge_ad.runtime.host.process_memory import process_bytes
from edge_ad.runtime.instruments.selftest.images import MOST_PICTURES, frames_below, made_up_frames
from edge_ad.runtime.instruments.selftest.machine import gpu_clocks, jetson_clocks, without_home
from edge_ad.runtime.instruments.selftest.memory import MEBIBYTE, MemoryFigures, MemoryWatch
from edge_ad.runtime.instruments.selftest.options import selftest_options


def test_the_home_folder_is_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    inside = f"no engine in {tmp_path}{os.sep}cache; see {tmp_path}{os.sep}x"
    assert without_home({"a": [inside, 1], "b": None}) == {
        "a": [f"no engine in ~{os.sep}cache; see ~{os.sep}x", 1],
        "b": None,
    }
    assert without_home(f"{tmp_path}-of-another") == f"{tmp_path}-of-another"
    monkeypatch.setenv("HOME", "/")
    assert without_home("/etc/x") == "/etc/x"


def test_clocks_of_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\n[ "$4" = 0000:01:00.0 ] || exit 6\necho "570.1, 1410 MHz, 1980 MHz, 61, 90.50 W, P0"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_clocks(lambda: "0000:01:00.0") == "1410 MHz of 1980 MHz, 61 C, 90.50 W, P0, driver 570.1"
    assert gpu_clocks(lambda: "0000:02:00.0") is None
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))

    def not_asked() -> str:
        raise AssertionError

    assert gpu_clocks(not_asked) is None


def test_clocks_of_a_jetson(tmp_path: Path) -> None:
    assert jetson_clocks(tmp_path) is None
    for name, now in (("13e40000.host1x", "1"), ("17000000.gpu", "612000000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cur_freq").write_text(f"{now}\n")
        (tmp_path / name / "max_freq").write_text("918000000\n")
    assert jetson_clocks(tmp_path) == "612 MHz of 918 MHz"


def test_a_leak_is_what_is_lost_in_every_third() -> None:
    def leaked(*free_mib: float) -> int | None:
        return MemoryFigures(free_while_timing=tuple(int(free * MEBIBYTE) for free in free_mib)).leaked

    assert leaked(100, 98, 96, 94) == 6 * MEBIBYTE
    assert leaked(100, 100, 100, 100) is None
    assert leaked(100, 80, 80, 80) is None  # another program, or what is loaded once
    assert leaked(100, 90, 95, 80) is None
    assert leaked(100, 99.9, 99.8, 99.7) is None
    assert leaked(100, 98) is None
    assert leaked() is None


@pytest.mark.parametrize(("rounds", "looks"), [(200, 4), (3, 4), (2, 3), (1, 2)])
def test_memory_is_looked_at_before_and_after_each_third(rounds: int, looks: int) -> None:
    free = iter(range(1000, 0, -1))
    watch = MemoryWatch(lambda: next(free), rounds)
    watch.look()
    for number in range(rounds):
        watch.after(number)
    assert watch.free == list(range(1000, 1000 - looks, -1))
    assert watch.process_growth == watch.process[-1] - watch.process[0]  # type: ignore[operator]
    without = MemoryWatch(None, 3)
    without.look()
    assert without.free == []


def test_memory_of_the_process_grows_with_what_it_holds() -> None:
    before = process_bytes()
    held = np.ones(64 << 20, np.uint8)
    after = process_bytes()
    assert before is not None and after is not None
    assert after - before > len(held) // 2


@pytest.mark.parametrize("size_hw", [(64, 64), (50, 130), (1, 1)])
def test_made_up_frames(size_hw: tuple[int, int]) -> None:
    frames = made_up_frames(size_hw, 0)
    again, others = made_up_frames(size_hw, 0), made_up_frames(size_hw, 1)
    shapes = {frame.shape for frame in frames.judged}
    assert len(shapes) >= 5
    assert all(frame.dtype == np.uint8 and frame.shape[2] == 3 for frame in (*frames.judged, *frames.timed))
    assert {frame.shape for frame in frames.timed} == {(1080, 1920, 3)}
    assert all(np.array_equal(one, other) for one, other in zip(frames.judged, again.judged, strict=True))
    if size_hw == (1, 1):
        return
    assert not any(np.array_equal(one, other) for one, other in zip(frames.judged, others.judged, strict=True))
    preprocess = Preprocessor(PreprocessSpec(*size_hw))
    made = [preprocess(frame) for frame in (*frames.judged, *frames.timed)]
    preprocess.close()
    assert [unusable_input(each) for each in made] == [None] * len(made)
    contrasts = [float(each.image_hwc.std()) for each in made]
    assert min(contrasts) < 30 < max(contrasts)
    assert len({each.image_hwc.tobytes() for each in made}) == len(made)


def test_pictures_of_the_user(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(MOST_PICTURES + 20):
        Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).save(tmp_path / f"{index:03}.png")
    (tmp_path / "000.png").write_bytes(b"no picture")
    frames = frames_below(tmp_path)
    assert len(frames.judged) == MOST_PICTURES - 1
    assert frames.title == f"{MOST_PICTURES - 1} of {MOST_PICTURES + 20} pictures of {tmp_path.name}"
    (line,) = frames.left_out
    assert "000.png" in line
    last = np.asarray(Image.open(tmp_path / f"{MOST_PICTURES + 19:03}.png"))
    np.testing.assert_array_equal(frames.judged[-1], last)


def test_folders_without_a_picture(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        frames_below(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="is a file, not a folder"):
        frames_below(tmp_path / "file")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(SourceError, match="holds no picture"):
        frames_below(tmp_path / "pictures")
    (tmp_path / "pictures" / "a.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match="none of 1 pictures can be read"):
        frames_below(tmp_path / "pictures")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"engine": "cuda"}, "engine: "),
        ({"frames": "0"}, "frames: "),
        ({"budget_ms": "-1"}, "budget_ms: "),
        ({"precision": "fp64"}, "precision: "),
        ({"engine": "openvino", "device": "0"}, "device: is for --engine tensorrt, not for openvino; leave it out"),
        ({"engine": "openvino", "build": True}, "build: is for --engine tensorrt"),
    ],
)
def test_options_that_are_wrong(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        selftest_options({"bundle": "b", **given}, "selftest options")
    assert words in str(caught.value)


def test_options_that_are_not_given_have_defaults() -> None:
    options = selftest_options({"bundle": "b", "engine": None, "frames": "50", "record": None}, "selftest options")
    assert (options.engine, options.frames, options.record, options.bundle) == (None, 50, True, Path("b"))
