"""Behind the engine: resize and smooth, regions in frame coordinates, and the record of a frame as a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest
from suite.scenes import SIZES

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.image.frame import Frame
from edge_ad.image.geometry import place
from edge_ad.image.operators import FrameMap, ResizeSmooth
from edge_ad.record.verdict import Provenance, Verdict, record, record_line
from edge_ad.runtime.judge.postprocess import find_regions

SIDE, PATCHES = 288, 36
THRESHOLD = 0.5


@pytest.fixture(scope="module")
def measured(measure: Any) -> Any:
    patch_map = np.random.default_rng(0).uniform(0, 0.2, (PATCHES, PATCHES)).astype(np.float32)
    for row, column in ((5, 5), (20, 9), (28, 30)):
        patch_map[row : row + 4, column : column + 3] = 0.9
    smooth = ResizeSmooth((PATCHES, PATCHES), (SIDE, SIDE))
    geometry = place(PreprocessSpec(SIDE, SIDE, resize=SIDE), SIZES["1080p"])
    frame_map = FrameMap(geometry, (PATCHES, PATCHES))
    anomaly_map = smooth(patch_map)
    regions = find_regions(anomaly_map, patch_map, geometry, THRESHOLD)
    assert len(regions) == 3
    frame = Frame(0, "bench", datetime.now(timezone.utc), 0, np.zeros((*SIZES["1080p"], 3), np.uint8))
    verdict = Verdict(
        "ok",
        score=float(anomaly_map.max()),
        threshold=THRESHOLD,
        verdict="anomalous",
        regions=regions,
        inspected_box=geometry.inspected_box,
        timings_ms={"decode": 1.0, "preprocess": 1.0, "infer": 1.0, "postprocess": 1.0, "total": 4.0},
    )
    provenance = Provenance("0" * 64, "openvino", "fp32")

    def serialise() -> None:
        record_line(record(frame, verdict, provenance, budget_ms=100.0))

    assert json.loads(record_line(record(frame, verdict, provenance, budget_ms=100.0)))["verdict"] == "anomalous"
    return measure(
        {
            "resize_and_smooth": lambda: nothing(smooth(patch_map)),
            "map_in_frame-1080p": lambda: nothing(frame_map(patch_map)),
            "regions": lambda: nothing(find_regions(anomaly_map, patch_map, geometry, THRESHOLD)),
            "record": serialise,
        }
    )


def nothing(_: object) -> None: ...


@pytest.mark.parametrize("subject", ["resize_and_smooth", "map_in_frame-1080p", "regions", "record"])
def test_postprocess(subject: str, measured: Any, stored: Callable[..., None]) -> None:
    stored(measured[subject])
