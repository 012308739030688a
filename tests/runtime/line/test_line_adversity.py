"""A line whose parts misbehave in ways that no contract allows: it goes on or ends, but never lies and never hangs."""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kept_records import Records
from misbehaving_line import Script, frame_of, frames, run
from patience import PATIENCE_S

from edge_ad.engine import BatchArray, Outputs
from edge_ad.image.frame import Frame
from edge_ad.runtime.judge import detector as detector_module
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.line import line as line_module
from edge_ad.runtime.line.scheduling import ledger as ledger_module

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class Unprintable(BaseException):
    """What no `except Exception` catches, as the panics of some native extensions."""


@pytest.mark.parametrize(
    "changes",
    [
        {"image_hwc": np.zeros(7, np.uint8)},
        {"image_hwc": np.uint8(3)},
        {"image_hwc": np.zeros((0, 0, 3), np.uint8)},
        {"image_hwc": np.zeros((32, 32), np.uint8)},
        {"image_hwc": np.zeros((32, 32, 3), np.float32)},
        {"image_hwc": [[1, 2, 3]]},
        {"image_hwc": "no picture"},
        {"image_hwc": None, "error": "torn"},
        {"image_hwc": None, "error": ""},
        {"error": ValueError("torn")},
    ],
    ids=lambda changes: str(changes).replace("\n", " ")[:40],
)
@pytest.mark.parametrize("live", [False, True])
def test_a_frame_of_any_shape_is_an_error_and_the_next_goes_on(
    detector: Detector, changes: dict[str, Any], live: bool
) -> None:
    kept = Records()
    bad = lambda: frame_of(1, **changes)  # noqa: E731
    run(detector, Script([frames(1)[0], bad, bad, lambda: frame_of(3)], live=live), kept)
    assert kept.statuses == ["ok", "error", "error", "ok"]
    assert kept.entries[1]["reason"]
    json.dumps(kept.entries, allow_nan=False)


@pytest.mark.parametrize("decode_ms", [float("nan"), float("inf"), -1.0])
def test_times_that_are_no_times_do_not_reach_the_record(detector: Detector, decode_ms: float) -> None:
    kept = Records()
    run(detector, Script([lambda: frame_of(0, decode_ms=decode_ms)]), kept)
    assert kept.statuses == ["ok"]
    assert kept.entries[0]["timings_ms"]["decode"] == 0.0


def test_a_stamp_of_another_clock_does_not_extend_the_deadline(detector: Detector) -> None:
    """Stamped in the future, a frame could never be late."""
    kept = Records()
    before_ns = time.monotonic_ns()
    run(detector, Script([lambda: frame_of(0, captured_ns=time.time_ns() + 10**18)]), kept, budget_ms=60_000)
    assert before_ns <= kept.entries[0]["captured_monotonic_ns"] <= time.monotonic_ns()
    assert kept.entries[0]["timings_ms"]["total"] > 0


@pytest.mark.parametrize("where", ["engine", "source", "prepare"])
@pytest.mark.parametrize("raised", [Unprintable("out of this world"), SystemExit(0)])
def test_what_is_no_exception_does_not_end_the_line_in_silence(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, where: str, raised: BaseException, quick_stop: None
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise raised

    steps = frames(4)
    if where == "engine":
        monkeypatch.setattr(detector._engine, "infer_impl", fail)
    elif where == "prepare":
        monkeypatch.setattr(detector, "prepare", fail)
    else:
        steps[2] = fail
    kept = Records()
    with pytest.raises(Exception, match=type(raised).__name__):
        run(detector, Script(steps), kept)
    assert set(kept.statuses) <= {"ok", "error"}


@pytest.mark.parametrize("raised", [SystemError("error return without exception set"), MemoryError()])
def test_an_engine_that_fails_as_python_does_costs_a_frame(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    calls, original = iter(range(100)), detector._engine.infer_impl

    def infer(batch_nhwc: BatchArray) -> Outputs:
        if next(calls) == 1:
            raise raised
        return original(batch_nhwc)

    monkeypatch.setattr(detector._engine, "infer_impl", infer)
    kept = Records()
    run(detector, Script(frames(3)), kept)
    assert kept.statuses == ["ok", "error", "ok"]
    assert type(raised).__name__ in kept.entries[1]["reason"]


def test_a_system_without_threads_left_ends_the_line_cleanly(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, quick_stop: None
) -> None:
    original = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "edge-ad-conclude":
            raise RuntimeError("can't start new thread")
        original(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run(detector, Script(frames(5)), Records())


def test_pictures_do_not_pile_up_behind_a_frame_that_hangs_in_the_engine(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, quick_stop: None
) -> None:
    """The engine hangs and the lights go out: black frames are settled at once, but may not leave before the first."""
    hangs, release, stop = threading.Event(), threading.Event(), threading.Event()
    original = detector._engine.infer_impl

    def infer(batch_nhwc: BatchArray) -> Outputs:
        hangs.set()
        release.wait(2 * PATIENCE_S)
        return original(batch_nhwc)

    monkeypatch.setattr(detector._engine, "infer_impl", infer)
    pictures: list[weakref.ref[Any]] = []
    alive = -1

    class Picture(np.ndarray[Any, Any]):
        """An array that can be referred to weakly."""

    def black(number: int) -> Callable[[], Frame]:
        def make() -> Frame:
            image = np.zeros((32, 32, 3), np.uint8).view(Picture)
            image[0, 0] = number % 8
            pictures.append(weakref.ref(image))
            return frame_of(number, image_hwc=image)

        return make

    def look() -> Frame:
        nonlocal alive
        assert hangs.wait(PATIENCE_S)
        alive = sum(picture() is not None for picture in pictures)
        release.set()
        return frame_of(301)

    steps = [frames(1)[0], *(black(number) for number in range(1, 300)), look]
    kept = Records()
    run(detector, Script(steps), kept, stop=stop)
    assert kept.statuses == ["ok", *["unusable"] * 299, "ok"]
    assert 0 < alive <= ledger_module.MAX_PICTURES + line_module.DEPTH + 3


def test_a_hanging_engine_is_said(detector: Detector, monkeypatch: pytest.MonkeyPatch, quick_stop: None) -> None:
    monkeypatch.setattr(line_module, "HUNG_S", 0.2)
    said, release, original = [], threading.Event(), detector._engine.infer_impl

    def say(text: str) -> None:
        said.append(text)
        release.set()

    def infer(batch_nhwc: BatchArray) -> Outputs:
        assert release.wait(PATIENCE_S)
        return original(batch_nhwc)

    monkeypatch.setattr(detector._engine, "infer_impl", infer)
    run(detector, Script(frames(1)), Records(), say=say)
    assert "the engine has not answered" in said[0]


def test_an_engine_is_not_closed_under_a_call_that_hangs(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, quick_stop: None
) -> None:
    """Freeing a network that computes ends the process with a crash."""
    monkeypatch.setattr(detector_module, "CLOSE_S", 0.1)
    release, stop, closed = threading.Event(), threading.Event(), []
    with open_detector(detector.bundle, engine="fake") as other:
        original = other._engine.close_impl

        def close() -> None:
            closed.append(release.is_set())
            original()

        def infer(batch_nhwc: BatchArray) -> Outputs:
            stop.set()
            release.wait(2 * PATIENCE_S)
            raise RuntimeError("too late")

        monkeypatch.setattr(other._engine, "close_impl", close)
        monkeypatch.setattr(other._engine, "infer_impl", infer)
        kept = Records()
        run(other, Script(frames(3)), kept, stop=stop)
        assert "error" in kept.statuses
    assert closed == []
    release.set()
