"""Whole frames: decoded 1080p frame → verdict with regions, through the real detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from suite.scenes import scene

from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector

SHORT = ["mobilenet_v2-256/fp32", "mobilenet_v2-256/int8", "resnet18-256/fp32"]
FULL = ["wide_resnet50_2-288/fp32", "wide_resnet50_2-288/int8"]


@pytest.fixture(scope="module")
def measured(measure: Any, selected: list[str], bundles: Any, engine_cache: Path) -> Iterator[Any]:
    frame = scene("1080p")
    with ExitStack() as stack:
        subjects, facts = {}, {}
        for name in selected:
            network, precision = name.split("/")
            detector = stack.enter_context(
                open_detector(bundles(network), precision=precision, threshold=0.5, engine_cache=engine_cache)
            )
            facts[name] = {"regions": make_anomalous(detector, frame), "computes_in": detector.provenance.precision}
            subjects[name] = judging(detector, frame)
        yield measure(subjects), facts


def make_anomalous(detector: Detector, frame: Any) -> int:
    """Put the threshold where a hundredth of the map is anomalous. Returns: the regions that are then found."""
    maps = detector.judge(frame, color_order="bgr").maps
    assert maps is not None
    detector.thresholds = type(detector.thresholds)(float(np.quantile(maps.anomaly_map, 0.99)))
    verdict = detector.judge(frame, color_order="bgr")
    assert verdict.verdict == "anomalous" and verdict.regions
    return len(verdict.regions)


def judging(detector: Detector, frame: Any) -> Callable[[], None]:
    def once() -> None:
        assert detector.judge(frame, color_order="bgr").status == "ok"

    return once


@pytest.mark.parametrize("subject", [*SHORT, *(pytest.param(name, marks=pytest.mark.full) for name in FULL)])
def test_frame(subject: str, measured: Any, stored: Callable[..., None]) -> None:
    rounds, facts = measured
    stored(rounds[subject], **facts[subject])
