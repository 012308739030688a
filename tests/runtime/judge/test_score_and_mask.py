"""At the threshold and one rounding to each side of it, verdict, regions and mask say the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, ScoreKind, Thresholds
from edge_ad.engine import Outputs
from edge_ad.image.operators import ResizeSmooth
from edge_ad.metrics.ranking import operation
from edge_ad.runtime.instruments.selftest.agreement import judged
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector

SIDE, PATCHES = 32, 8
WAYS: dict[str, PreprocessSpec] = {
    "crop": PreprocessSpec(SIDE, SIDE, resize=40),
    "padded crop": PreprocessSpec(SIDE, SIDE, resize=20),
    "stretch": PreprocessSpec(SIDE, SIDE, "stretch"),
    "letterbox": PreprocessSpec(SIDE, SIDE, "letterbox"),
}
SCORES: tuple[ScoreKind, ...] = ("map_max", "patch_max")


@pytest.fixture(scope="module")
def detectors(
    tmp_path_factory: pytest.TempPathFactory, fake_bundle: Callable[..., Bundle]
) -> Iterator[dict[tuple[str, ScoreKind], Detector]]:
    folder: Path = tmp_path_factory.mktemp("ways")
    made = {}
    for way, preprocess in WAYS.items():
        for score in SCORES:
            postprocess = PostprocessSpec(2.0, 4.0, score)
            path = folder / f"{way}-{score}"
            bundle = fake_bundle(path, side=SIDE, preprocess=preprocess, postprocess=postprocess)
            made[way, score] = open_detector(bundle, engine="fake").__enter__()
    yield made
    for detector in made.values():
        detector.__exit__(None, None, None)


def beside(score: float) -> list[float]:
    """A score, and its neighbours as float64 and as float32."""
    single = np.float32(score)
    found = [score, *(math.nextafter(score, side) for side in (-math.inf, math.inf))]
    return found + [float(np.nextafter(single, np.float32(side))) for side in (-np.inf, np.inf)]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    way=st.sampled_from(list(WAYS)),
    score=st.sampled_from(SCORES),
    frame_hw=st.tuples(st.integers(9, 70), st.integers(9, 70)),
    with_roi=st.booleans(),
    seed=st.integers(0, 10**6),
    flat=st.booleans(),
)
def test_a_frame_is_anomalous_exactly_where_its_mask_is_not_empty(
    detectors: Any, way: str, score: ScoreKind, frame_hw: tuple[int, int], with_roi: bool, seed: int, flat: bool
) -> None:
    detector, rng = detectors[way, score], np.random.default_rng(seed)
    patch_map = rng.uniform(0, 1, (1, PATCHES, PATCHES)).astype(np.float32)
    if flat:  # rounding alone decides which pixel is highest
        patch_map[:] = patch_map[0, 0, 0]
    postprocess = detector.bundle.manifest.postprocess
    anomaly_map = ResizeSmooth((PATCHES, PATCHES), (SIDE, SIDE), postprocess)(patch_map)
    scored = anomaly_map if score == "map_max" else patch_map
    outputs = Outputs(patch_map, anomaly_map, scored.max(axis=(1, 2)))
    frame = rng.integers(0, 256, (*frame_hw, 3), np.uint8)
    roi = (1, 2, frame_hw[1] - 1, frame_hw[0]) if with_roi else None
    prepared = detector.prepare(frame, roi=roi)
    value = detector.conclude(prepared, outputs, thresholds=Thresholds()).score
    assert value is not None
    for threshold in beside(value):
        verdict = detector.conclude(prepared, outputs, thresholds=Thresholds(threshold))
        is_anomalous = value >= threshold
        assert verdict.verdict == ("anomalous" if is_anomalous else "normal")
        assert bool(verdict.regions) == is_anomalous
        x_min, y_min, x_max, y_max = verdict.inspected_box
        mask = verdict.mask_frame
        assert bool(mask[y_min:y_max, x_min:x_max].any()) == bool(mask.any()) == is_anomalous
        seen = operation([value], [True], threshold)
        assert (seen.hits, seen.misses) == (int(is_anomalous), int(not is_anomalous))
    geometry = prepared.model_input.geometry
    assert float(judged(outputs, [geometry], postprocess).scores[0]) == value


@pytest.mark.parametrize("pixel", [0.0, 0.3, None])
def test_regions_are_of_the_pixels_own_threshold(detectors: Any, pixel: float | None) -> None:
    """Zero is a threshold like any other: where scores have no bounds it lies among them."""
    detector = detectors["stretch", "map_max"]
    patch_map = np.full((1, PATCHES, PATCHES), -0.5, np.float32)
    patch_map[0, 2:6, 2:6] = 0.2
    patch_map[0, 3:5, 3:5] = 0.9
    anomaly_map = ResizeSmooth((PATCHES, PATCHES), (SIDE, SIDE), detector.bundle.manifest.postprocess)(patch_map)
    prepared = detector.prepare(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    outputs = Outputs(patch_map, anomaly_map, anomaly_map.max(axis=(1, 2)))
    verdict = detector.conclude(prepared, outputs, thresholds=Thresholds(0.5 * float(anomaly_map.max()), pixel=pixel))
    at = verdict.threshold if pixel is None else pixel
    assert verdict.verdict == "anomalous" and verdict.maps is not None and at is not None
    area = int((anomaly_map[0] >= at).sum())  # a frame of the model's size: its pixels are the map's
    assert [region.area_px for region in verdict.regions] == [area] == [int((verdict.mask_frame > 0).sum())]
