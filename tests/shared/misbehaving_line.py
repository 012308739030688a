"""A line of one camera, whose frames, engine and sinks are whatever a test makes of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from edge_ad.image.frame import Frame, ImageArray
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.telemetry import Telemetry


def picture(number: int) -> ImageArray:
    image = np.repeat((40 + 2 * np.arange(32, dtype=np.uint8))[:, None, None].repeat(32, 1), 3, axis=2)
    image[0, 0] = number % 8
    return image


def frame_of(number: int, **changes: Any) -> Frame:
    frame = Frame(number, "script", datetime.now(timezone.utc), time.monotonic_ns(), picture(number))
    return replace(frame, **changes)


class Script:
    """Gives the frames that it is told, or what the steps return or raise."""

    name, length = "script", None

    def __init__(self, steps: list[Callable[[], Frame]], *, live: bool = True) -> None:
        self.live = live
        self.steps = iter(steps)

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def read(self) -> Frame | None:
        for step in self.steps:
            return step()
        return None


def frames(count: int) -> list[Callable[[], Frame]]:
    return [lambda number=number: frame_of(number) for number in range(count)]  # type: ignore[misc]


def run(
    detector: Detector, source: Script, *sinks: Any, stop: threading.Event | None = None, **rules: Any
) -> Telemetry:
    telemetry, say = Telemetry(), rules.pop("say", lambda _: None)
    lane = Lane(source, "script", buffer="every_frame" if source.live else "auto", **rules)
    try:
        Line(detector, [lane], sinks, telemetry, say=say).run(stop or threading.Event())
    finally:
        assert telemetry.counters.snapshot().adds_up
        assert telemetry.counters.snapshot().lanes[0].in_flight == 0
    return telemetry
