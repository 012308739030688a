"""A machine whose clocks are turned by hand, so that no test depends on how fast the real one is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import edge_ad
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.instruments.bench.baseline import Subject
from edge_ad.runtime.instruments.bench.measure import Measurement, measure
from edge_ad.runtime.instruments.bench.yardstick import NAME

STAGE_MS = {"preprocess": 4.0, "infer": 10.0, "postprocess": 1.0}


class HandClock:
    """Elapsed time that is moved on by whoever works; two threads work, so processor time goes twice as fast."""

    def __init__(self) -> None:
        self.now_ms = 0.0

    def __call__(self) -> tuple[float, float]:
        return self.now_ms, 2 * self.now_ms

    def work(self, milliseconds: float) -> None:
        self.now_ms += milliseconds


class MadeDetector:
    """Takes `STAGE_MS`, times what `slowness` says of the moment."""

    def __init__(self, clock: HandClock, slowness: Callable[[str], float]) -> None:
        self._work = lambda stage, count: clock.work(STAGE_MS[stage] * slowness(stage) * count)

    def prepare(self, image: Any) -> Any:
        self._work("preprocess", 1)
        return SimpleNamespace(reason=None)

    def infer(self, batch: Sequence[Any]) -> Any:
        self._work("infer", len(batch))

    def conclude(self, prepared: Any, outputs: Any, index: int) -> Verdict:
        self._work("postprocess", 1)
        return Verdict("ok", score=0.25, verdict="normal")


class MadeYardstick:
    threads = 2

    def __init__(self, clock: HandClock, slowness: Callable[[], float]) -> None:
        self._clock, self._slowness = clock, slowness

    def times(self) -> np.ndarray[Any, Any]:
        marks = [self._clock()]
        for milliseconds in (4.0,) * 4:
            self._clock.work(milliseconds * self._slowness())
            marks.append(self._clock())
        return np.diff(np.array(marks), axis=0).reshape(2, 2, 2)


def made_measurement(
    *,
    duration_s: float = 2.0,
    batch: int = 1,
    slowness: Callable[[str], float] = lambda _: 1.0,
    machine: Callable[[], float] = lambda: 1.0,
    **more: Any,
) -> Measurement:
    """Measure a made-up detector on a made-up machine.

    Args:
        slowness: how many times longer a stage takes, of the detector alone.
        machine: how many times longer everything takes.
    """
    clock = HandClock()
    images = [np.zeros((4, 4, 3), np.uint8)] * batch
    return measure(
        MadeDetector(clock, lambda stage: slowness(stage) * machine()),  # type: ignore[arg-type]
        images,
        duration_s=duration_s,
        warmup_s=0.1,
        yardstick=MadeYardstick(clock, machine),  # type: ignore[arg-type]
        read=clock,
        **more,
    )


@pytest.fixture(scope="session")
def measured() -> Callable[..., Measurement]:
    """`made_measurement`."""
    return made_measurement


@pytest.fixture
def subject() -> Subject:
    return Subject("a" * 64, "openvino", "fp32", "fp32", 1, (1080, 1920), "made:1", 0, None, NAME)


@pytest.fixture(scope="session")
def disc() -> Path:
    """The bundle that ships with edge-ad: MobileNetV2 at 256×256, any batch. Do not change it."""
    return Path(edge_ad.__file__).parent / "demo" / "disc.edgead"
