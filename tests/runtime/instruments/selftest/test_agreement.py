"""How far engines are apart: planted faults are seen, what is the same is zero, padding counts nowhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.engine import Outputs
from edge_ad.errors import EngineError
from edge_ad.image.geometry import place
from edge_ad.image.operators import ResizeSmooth
from edge_ad.image.preprocess import ModelInput, Preprocessor
from edge_ad.runtime.instruments.selftest.agreement import (
    LIMITS,
    Judged,
    difference,
    infer_in_batches,
    judged,
    scale_of,
    threshold_for,
)
from edge_ad.runtime.instruments.selftest.kernels import OPERATOR_LIMIT, operator_difference, preprocess_difference

SIZE, PATCHES = 48, 12
WHOLE = place(PreprocessSpec(SIZE, SIZE, "stretch"), (SIZE, SIZE))
FP32 = LIMITS["fp32"]


def _outputs(count: int = 6, seed: int = 0, sigma: float = 4.0, patch_map: Any = None) -> Outputs:
    if patch_map is None:
        patch_map = np.random.default_rng(seed).random((count, PATCHES, PATCHES), np.float32)
    maps = ResizeSmooth((PATCHES, PATCHES), (SIZE, SIZE), sigma)(patch_map)
    return Outputs(patch_map, maps, maps.max(axis=(1, 2)))


def _judged(outputs: Outputs) -> Judged:
    return judged(outputs, [WHOLE] * len(outputs.pred_score), PostprocessSpec())


def _faults(reference: Outputs, got: Outputs, arithmetic: str = "fp32", threshold: float = 0.5) -> list[str]:
    limits = LIMITS[arithmetic]
    return list(difference(_judged(reference), _judged(got), threshold, limits).faults(limits))


def test_the_same_is_no_way_off() -> None:
    found = difference(_judged(_outputs()), _judged(_outputs()), 0.5, FP32)
    assert (found.patch_map, found.anomaly_map, found.score, found.mask_share) == (0, 0, 0, 0)
    assert (found.flips, found.near_flips, found.frames) == (0, 0, 6)
    assert found.correlation == pytest.approx(1, abs=1e-12)
    assert list(found.faults(FP32)) == []


@pytest.mark.parametrize("arithmetic", ["fp32", "fp16", "int8"])
def test_planted_faults_are_seen_in_every_arithmetic(arithmetic: str) -> None:
    right = _outputs()
    shifted = np.roll(right.anomaly_map, 1, axis=2)
    wrong = {
        "a map of the next image": replace(right, anomaly_map=np.roll(right.anomaly_map, 1, axis=0)),
        "a map upside down": replace(right, anomaly_map=np.ascontiguousarray(right.anomaly_map[:, ::-1])),
        "a map shifted by a patch": replace(right, anomaly_map=np.roll(right.anomaly_map, 4, axis=1)),
        "half of everything": Outputs(*(array / 2 for array in (right.patch_map, right.anomaly_map, right.pred_score))),
        "another score": replace(right, pred_score=right.pred_score + np.float32(0.2)),
        "patches transposed": replace(right, patch_map=np.ascontiguousarray(right.patch_map.transpose(0, 2, 1))),
        "nothing": _outputs(patch_map=np.zeros_like(right.patch_map)),
    }
    if arithmetic == "fp32":
        wrong["a map shifted by a pixel"] = replace(right, anomaly_map=shifted)
        wrong["another smoothing"] = _outputs(sigma=3.9)
        noise = np.random.default_rng(1).normal(0, 1e-3, right.patch_map.shape).astype(np.float32)
        wrong["noise of a thousandth"] = _outputs(patch_map=right.patch_map + noise)
    assert {name for name, outputs in wrong.items() if not _faults(right, outputs, arithmetic)} == set()


@pytest.mark.parametrize(("arithmetic", "noise"), [("fp32", 3e-6), ("fp16", 2e-3), ("int8", 1.5e-2)])
def test_what_arithmetic_does_is_allowed(arithmetic: str, noise: float) -> None:
    right = _outputs()
    moved = right.patch_map + np.random.default_rng(1).normal(0, noise, right.patch_map.shape).astype(np.float32)
    assert _faults(right, _outputs(patch_map=moved), arithmetic, threshold=0.3) == []


def _lowered(outputs: Outputs, by: float) -> Outputs:
    """Map and score of the first image, lowered."""
    first = np.float32([by, 0])
    return replace(
        outputs, anomaly_map=outputs.anomaly_map - first[:, None, None], pred_score=outputs.pred_score - first
    )


def test_verdicts_flip_but_near_the_threshold_that_is_allowed() -> None:
    right = _outputs(2)
    threshold = float(right.pred_score[0]) - 1e-5
    near = _lowered(right, 2e-5)
    found = difference(_judged(right), _judged(near), threshold, FP32)
    assert (found.flips, found.near_flips) == (1, 1)
    assert list(found.faults(FP32)) == []
    far = _lowered(right, 0.3)
    found = difference(_judged(right), _judged(far), threshold - 0.1, FP32)
    assert (found.flips, found.near_flips) == (1, 0)
    assert "1 of 2 verdicts differ" in list(found.faults(FP32))


def test_the_mask_is_where_the_map_reaches_the_threshold() -> None:
    right = _outputs(1)
    one_more = right.anomaly_map.copy()
    one_more[0, 3, 4] = one_more.max() + 0.01
    threshold = float(one_more.max())
    found = difference(_judged(right), _judged(replace(right, anomaly_map=one_more)), threshold, FP32)
    assert found.mask_share == pytest.approx(1 / SIZE**2)


def test_not_a_number_is_never_within_a_limit() -> None:
    right = _outputs(1)
    broken = replace(right, pred_score=np.float32([np.nan]))
    assert any("score off by nan" in fault for fault in _faults(right, broken))


def test_another_form_is_said() -> None:
    right = _outputs(2)
    with pytest.raises(EngineError, match=r"returned 'patch_map' as \(2, 12, 1\), the reference as \(2, 12, 12\)"):
        difference(_judged(right), _judged(replace(right, patch_map=right.patch_map[..., :1])), 0.5, FP32)


def test_padding_counts_in_no_mask_and_in_no_score() -> None:
    geometry = place(PreprocessSpec(SIZE, SIZE, "letterbox"), (24, 48))
    right = _outputs(1)
    rows = right.patch_map.copy()
    rows[:, :3] = 1 - rows[:, :3]  # patches that show padding alone
    other = _outputs(patch_map=rows)
    ours, theirs = (judged(outputs, [geometry], PostprocessSpec()) for outputs in (right, other))
    np.testing.assert_allclose(ours.maps, theirs.maps, atol=1e-6)
    assert ours.scores == pytest.approx(theirs.scores, abs=1e-6)
    assert ours.scores[0] != right.pred_score[0]  # control: with padding it would be another one


def test_maps_that_do_not_vary_have_no_correlation() -> None:
    flat = _outputs(patch_map=np.full((2, PATCHES, PATCHES), 0.25, np.float32))
    flat = replace(flat, anomaly_map=np.full_like(flat.anomaly_map, 0.25))
    found = difference(_judged(flat), _judged(flat), 0.5, FP32)
    assert found.correlation is None
    assert list(found.faults(FP32)) == []


def test_values_of_other_families_are_measured_by_their_own_scale() -> None:
    large = _outputs(patch_map=1000 * _outputs().patch_map)
    assert scale_of(large) == pytest.approx(float(large.anomaly_map.max()))
    assert scale_of(_outputs()) == 1
    moved = _outputs(patch_map=large.patch_map + np.float32(0.01))
    found = difference(_judged(large), _judged(moved), 500, FP32)
    assert list(found.faults(FP32, scale_of(large))) == []
    assert list(found.faults(FP32)) != []


def test_without_a_threshold_some_pixels_reach_the_one_that_is_taken() -> None:
    right = _judged(_outputs())
    assert threshold_for(0.7, right) == 0.7
    assert 0 < np.mean(right.maps >= threshold_for(None, right)) < 0.02


@pytest.mark.parametrize(("fixed", "batch", "sizes"), [(None, 1, [1] * 5), (None, 3, [3, 3]), (4, 4, [4, 4])])
def test_batches_are_filled_up(make_engine: Any, fixed: int | None, batch: int, sizes: list[int]) -> None:
    images = [np.full((SIZE, SIZE, 3), 40 * number, np.uint8) for number in range(5)]
    with make_engine(batch=fixed) as engine:
        outputs = infer_in_batches(engine, images, batch)
    assert engine.sizes == sizes
    np.testing.assert_allclose(outputs.pred_score, [40 * number / 255 for number in range(5)], atol=1e-6)


@pytest.mark.parametrize("score", ["map_max", "patch_max"])
def test_the_operator_and_what_is_off_it(score: Any) -> None:
    spec = PostprocessSpec(score=score)
    right = _outputs()
    if score == "patch_max":
        right = replace(right, pred_score=right.patch_map.max(axis=(1, 2)))
    found = operator_difference(right, spec)
    assert max(found.anomaly_map, found.score) <= 1e-6
    assert list(found.faults()) == []
    wrong = {
        "another smoothing": replace(right, anomaly_map=_outputs(sigma=3.9).anomaly_map),
        "a shift by a pixel": replace(right, anomaly_map=np.roll(right.anomaly_map, 1, axis=1)),
        "another border": replace(right, anomaly_map=right.anomaly_map * np.float32(1 + 1e-4)),
        "another score": replace(right, pred_score=right.pred_score + np.float32(2 * OPERATOR_LIMIT)),
        "no score": replace(right, pred_score=np.float32([np.nan] * 6)),
    }
    assert {name for name, outputs in wrong.items() if not list(operator_difference(outputs, spec).faults())} == set()


def test_model_inputs_and_what_is_off_them(frames: tuple[Any, ...]) -> None:
    spec = PreprocessSpec(SIZE, SIZE)
    on_cpu = Preprocessor(spec)

    def changed(change: Any) -> Any:
        return lambda frame, order: change(on_cpu(frame, order))

    def one_value(made: ModelInput) -> ModelInput:
        made.image_hwc[0, 0, 0] ^= 1
        return made

    def darker(made: ModelInput) -> ModelInput:
        return ModelInput(np.maximum(made.image_hwc, 1) - np.uint8(1), made.geometry)

    def far(made: ModelInput) -> ModelInput:
        made.image_hwc[1, 1, 1] ^= 2
        return made

    def elsewhere(made: ModelInput) -> ModelInput:
        return ModelInput(made.image_hwc, place(spec, (9, 9)))

    found = preprocess_difference(frames, on_cpu, changed(one_value))
    assert (found.grey_levels, found.share, list(found.faults())) == (1, 1 / (3 * SIZE**2), [])
    wrong = {
        "all values a grey level off": changed(darker),
        "one value two grey levels off": changed(far),
        "another place": changed(elsewhere),
        "one order for all": lambda frame, order: on_cpu(frame, "rgb"),
    }
    assert {
        name for name, made in wrong.items() if not list(preprocess_difference(frames, on_cpu, made).faults())
    } == set()
    on_cpu.close()
