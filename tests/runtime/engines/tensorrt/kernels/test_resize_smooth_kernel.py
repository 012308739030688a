"""resize_smooth.cu, executed on the CPU, against the operator in float64 and against the runtime's post-process."""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, ResizeMode
from edge_ad.errors import EngineError
from edge_ad.image.geometry import FrameGeometry, place
from edge_ad.image.operators import FrameMap, resize_smooth_matrix
from edge_ad.image.padding import frame_score, without_padding
from edge_ad.runtime.engines.tensorrt.kernels.launch import source
from edge_ad.runtime.engines.tensorrt.kernels.resize_smooth import FORMAT, PatchType, ResizeSmoothPlan

pytestmark = pytest.mark.rung(6)

Smoothing = Callable[..., Any]
TOLERANCE = 5e-7  # of values up to 1: float32 weights, and about a dozen roundings
BOX = PostprocessSpec(smoothing="box", size=21)  # DRAEM's
SIZES = [
    # patches, map
    ((1, 1), (1, 1)),
    ((1, 1), (5, 37)),
    ((3, 1), (17, 33)),
    ((1, 9), (16, 32)),
    ((7, 5), (50, 31)),
    ((36, 36), (288, 288)),
    ((25, 18), (101, 77)),
    ((40, 60), (33, 17)),
    ((64, 96), (64, 96)),
]


def filled(model_hw: tuple[int, int]) -> FrameGeometry:
    """A frame that fills the model's canvas."""
    return place(PreprocessSpec(*model_hw, resize_mode="stretch"), model_hw)


def in_float64(patch_maps: np.ndarray, map_hw: tuple[int, int], spec: PostprocessSpec) -> np.ndarray:
    rows, columns = (
        resize_smooth_matrix(n_in, n_out, spec) for n_in, n_out in zip(patch_maps.shape[1:], map_hw, strict=True)
    )
    return np.asarray(rows @ patch_maps.astype(np.float64) @ columns.T)


@pytest.mark.parametrize("patch_type", ["float32", "float16"])
@pytest.mark.parametrize(
    "spec",
    [*(PostprocessSpec(sigma=sigma) for sigma in (0.0, 1.0, 4.0)), BOX],
    ids=["0", "1", "4", "box"],
)
def test_maps_scores_and_masks_are_those_of_float64(
    program: Any, cuda_on_cpu: ModuleType, smoothing: Smoothing, patch_type: PatchType, spec: PostprocessSpec
) -> None:
    rng = np.random.default_rng(7)
    cases, expected = [], []
    for index, (patch_hw, map_hw) in enumerate(SIZES):
        patch_maps = rng.random((1 + index % 3, *patch_hw)).astype(patch_type)
        plan = ResizeSmoothPlan.on_model_grid(filled(map_hw), patch_hw, spec, patch_type)
        reference = in_float64(patch_maps, map_hw, spec)
        threshold = float(np.quantile(reference, 0.8))
        case = cuda_on_cpu.Case(seed=index)
        buffers = smoothing(case, plan, patch_maps, threshold)
        cases.append(case)
        expected.append((buffers, reference, threshold))
    program.run(cases)
    for case, (buffers, reference, threshold) in zip(cases, expected, strict=True):
        computed = case[buffers.anomaly_map]
        np.testing.assert_allclose(computed, reference, rtol=0, atol=TOLERANCE)
        # Of the kernel's own values, score and mask are exact.
        assert np.array_equal(case[buffers.score], computed.max(axis=(1, 2)))
        assert np.array_equal(case[buffers.mask], np.where(computed >= np.float32(threshold), 255, 0))
        assert not case[buffers.state].any()


def test_any_sizes_will_do(program: Any, cuda_on_cpu: ModuleType, smoothing: Smoothing) -> None:
    rng = np.random.default_rng(15)
    cases, expected = [], []
    for seed in range(40):
        spec = PostprocessSpec(sigma=float(rng.choice([0.5, 2.0, 9.0])), truncate=float(rng.choice([2.0, 4.0])))
        map_hw, patch_hw = (tuple(map(int, rng.integers(1, high, 2))) for high in (70, 14))
        patch_maps = rng.normal(size=(1 + seed % 4, *patch_hw)).astype(np.float32)
        case = cuda_on_cpu.Case(seed=seed)
        plan = ResizeSmoothPlan.on_model_grid(filled(map_hw), patch_hw, spec)
        expected.append((smoothing(case, plan, patch_maps), in_float64(patch_maps, map_hw, spec)))
        cases.append(case)
    program.run(cases)
    for case, (buffers, reference) in zip(cases, expected, strict=True):
        computed = case[buffers.anomaly_map]
        np.testing.assert_allclose(computed, reference, rtol=0, atol=4 * TOLERANCE)  # the values reach 4
        assert np.array_equal(case[buffers.score], computed.max(axis=(1, 2)))


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_order_of_threads_and_blocks_changes_nothing(
    program: Any, cuda_on_cpu: ModuleType, smoothing: Smoothing, seed: int
) -> None:
    patch_maps = np.random.default_rng(1).random((2, 9, 7), np.float32)
    plan = ResizeSmoothPlan.on_model_grid(filled((70, 50)), (9, 7), PostprocessSpec())
    cases = [cuda_on_cpu.Case(seed=given) for given in (0, 100 + seed)]
    buffers = [smoothing(case, plan, patch_maps) for case in cases]
    program.run(cases)
    for name in ("anomaly_map", "mask", "score"):
        ordered, shuffled = (case[getattr(own, name)] for case, own in zip(cases, buffers, strict=True))
        assert np.array_equal(ordered, shuffled)


@pytest.mark.parametrize(
    "spec",
    [PostprocessSpec(sigma=2.0), PostprocessSpec(sigma=2.0, score="patch_max"), BOX],
    ids=["map_max", "patch_max", "box"],
)
@pytest.mark.parametrize("mode", ["letterbox", "shorter_side_crop"])
@pytest.mark.parametrize("frame_hw", [(30, 97), (97, 30), (1, 50), (64, 64)])
def test_padding_counts_as_on_the_cpu(
    program: Any,
    cuda_on_cpu: ModuleType,
    smoothing: Smoothing,
    frame_hw: tuple[int, int],
    mode: ResizeMode,
    spec: PostprocessSpec,
) -> None:
    """The patches that show only padding are the highest of all, so that one that counts is seen."""
    resize = 40 if mode == "shorter_side_crop" else None
    geometry = place(PreprocessSpec(64, 72, resize_mode=mode, resize=resize), frame_hw)
    patch_map = np.random.default_rng(3).random((8, 9), np.float32) / 2
    x_min, y_min, x_max, y_max = (value / 8 for value in geometry.content_box)
    outside = np.ones((8, 9), bool)
    outside[int(y_min) : int(np.ceil(y_max)), int(x_min) : int(np.ceil(x_max))] = False
    patch_map[outside] = 1
    anomaly_map = in_float64(patch_map[None], geometry.model_hw, spec)[0].astype(np.float32)
    continued, expected = without_padding(patch_map, anomaly_map, geometry, spec)
    case = cuda_on_cpu.Case(seed=5)
    buffers = smoothing(case, ResizeSmoothPlan.on_model_grid(geometry, (8, 9), spec), patch_map[None], 0.3)
    program.run(case)
    np.testing.assert_allclose(case[buffers.anomaly_map][0], expected, rtol=0, atol=TOLERANCE)
    wanted = frame_score(continued, expected, 0.0, geometry, spec)
    assert abs(case[buffers.score][0] - wanted) <= (TOLERANCE if spec.score == "map_max" else 0)
    x_low, y_low, x_high, y_high = geometry.content_box
    mask = np.zeros(geometry.model_hw, np.uint8)
    inside = case[buffers.anomaly_map][0, y_low:y_high, x_low:x_high]
    mask[y_low:y_high, x_low:x_high] = np.where(inside >= np.float32(0.3), 255, 0)
    assert np.array_equal(case[buffers.mask][0], mask)
    assert 0 < wanted < 0.5  # patches of padding are 1


def test_a_state_serves_frame_after_frame_without_a_reset(
    program: Any, cuda_on_cpu: ModuleType, smoothing: Smoothing
) -> None:
    plan = ResizeSmoothPlan.on_model_grid(filled((40, 70)), (5, 9), PostprocessSpec())
    rng = np.random.default_rng(2)
    frames = [rng.random((3, 5, 9), np.float32) * scale for scale in (1.0, 0.5, 0.1, 0.9)]
    case = cuda_on_cpu.Case(seed=9)
    state = case.put(np.zeros(3 * 8, np.uint8))
    buffers = [smoothing(case, plan, frame, state=state) for frame in frames]
    program.run(case)
    for own in buffers:
        assert np.array_equal(case[own.score], case[own.anomaly_map].max(axis=(1, 2)))


@pytest.mark.parametrize("score", ["map_max", "patch_max"])
def test_scores_may_be_negative(program: Any, cuda_on_cpu: ModuleType, smoothing: Smoothing, score: Any) -> None:
    patch_maps = np.stack([np.full((4, 4), -2.5), np.full((4, 4), 0.0), -np.arange(1.0, 17).reshape(4, 4)])
    plan = ResizeSmoothPlan.on_model_grid(filled((33, 40)), (4, 4), PostprocessSpec(score=score))
    case = cuda_on_cpu.Case(seed=1)
    buffers = smoothing(case, plan, patch_maps.astype(np.float32), -2.0)
    program.run(case)
    scored = case[buffers.anomaly_map] if score == "map_max" else patch_maps
    assert np.array_equal(case[buffers.score], scored.max(axis=(1, 2)).astype(np.float32))
    assert not case[buffers.mask][0].any() and case[buffers.mask][1].all()


@pytest.mark.parametrize("broken", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("score", ["map_max", "patch_max"])
@pytest.mark.parametrize("patch_type", ["float32", "float16"])
def test_a_value_that_is_not_finite_makes_the_score_nan(
    program: Any, cuda_on_cpu: ModuleType, smoothing: Smoothing, broken: float, score: Any, patch_type: PatchType
) -> None:
    patch_maps = np.random.default_rng(4).random((2, 6, 6)).astype(patch_type)
    patch_maps[1, 2, 5] = broken
    plan = ResizeSmoothPlan.on_model_grid(filled((48, 48)), (6, 6), PostprocessSpec(score=score), patch_type)
    case = cuda_on_cpu.Case(seed=1)
    buffers = smoothing(case, plan, patch_maps)
    program.run(case)
    assert np.isnan(case[buffers.score]).tolist() == [False, True]


def test_every_half_is_read_exactly(program: Any, cuda_on_cpu: ModuleType, smoothing: Smoothing) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(1, 256, 256)
    plan = ResizeSmoothPlan.on_model_grid(filled((256, 256)), (256, 256), PostprocessSpec(sigma=0.0), "float16")
    case = cuda_on_cpu.Case()
    buffers = smoothing(case, plan, halves)
    program.run(case)
    assert np.array_equal(case[buffers.anomaly_map], halves.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("without", [("anomaly_map",), ("mask",), ("anomaly_map", "mask"), ("score",)])
def test_outputs_can_be_left_out(
    program: Any, cuda_on_cpu: ModuleType, smoothing: Smoothing, without: tuple[str, ...]
) -> None:
    patch_maps = np.random.default_rng(6).random((2, 5, 6), np.float32)
    plan = ResizeSmoothPlan.on_model_grid(filled((40, 48)), (5, 6), PostprocessSpec())
    cases = [cuda_on_cpu.Case(), cuda_on_cpu.Case()]
    whole = smoothing(cases[0], plan, patch_maps)
    part = smoothing(cases[1], plan, patch_maps, without=without, state=0 if without == ("score",) else None)
    program.run(cases)
    for name in {"anomaly_map", "mask", "score"} - set(without):
        assert np.array_equal(cases[0][getattr(whole, name)], cases[1][getattr(part, name)])


@pytest.mark.parametrize(
    ("mode", "frame_hw"), [("stretch", (90, 131)), ("letterbox", (50, 131)), ("letterbox", (90, 20))]
)
@pytest.mark.parametrize("spec", [PostprocessSpec(), BOX], ids=["gaussian", "box"])
def test_the_map_in_frame_pixels_is_that_of_the_frame_operator(
    program: Any,
    cuda_on_cpu: ModuleType,
    smoothing: Smoothing,
    mode: ResizeMode,
    frame_hw: tuple[int, int],
    spec: PostprocessSpec,
) -> None:
    geometry = place(PreprocessSpec(64, 64, resize_mode=mode), frame_hw)
    patch_map = np.random.default_rng(8).random((8, 8), np.float32)
    continued, _ = without_padding(patch_map, np.zeros((64, 64), np.float32), geometry, spec)
    expected = FrameMap(geometry, (8, 8), spec).inside(continued)
    plan = ResizeSmoothPlan.on_frame(geometry, (8, 8), spec)
    case = cuda_on_cpu.Case(seed=2)
    buffers = smoothing(case, plan, patch_map[None])
    program.run(case)
    assert plan.map_hw == expected.shape
    np.testing.assert_allclose(case[buffers.anomaly_map][0], expected, rtol=0, atol=2 * TOLERANCE)
    assert np.array_equal(case[buffers.mask][0] > 0, case[buffers.anomaly_map][0] >= 0.5)


def test_a_launch_says_its_arguments_as_the_kernel_takes_them(cuda_on_cpu: ModuleType, smoothing: Smoothing) -> None:
    plan = ResizeSmoothPlan.on_model_grid(filled((288, 288)), (36, 36), PostprocessSpec())
    case = cuda_on_cpu.Case()
    buffers = smoothing(case, plan, np.zeros((3, 36, 36), np.float32))
    (launch,) = case.launches
    assert (launch.grid, launch.block) == ((9, 18, 3), (32, 8, 1))
    assert launch.shared_bytes == 4 * (16 * 10 + 8)
    unpacked = struct.unpack(FORMAT, launch.argument_buffer)
    assert len(launch.argument_buffer) == 11 * 8 + 64
    assert unpacked[0] == buffers.patch_map and unpacked[6:11] == (
        buffers.threshold,
        buffers.state,
        buffers.anomaly_map,
        buffers.mask,
        buffers.score,
    )
    assert "resize_smooth_float" in source("resize_smooth")


def test_what_no_block_can_hold_is_refused() -> None:
    with pytest.raises(EngineError, match=r"map of 900x900 from 900x900 patches needs 57632 bytes"):
        ResizeSmoothPlan.on_model_grid(filled((900, 900)), (900, 900), PostprocessSpec(sigma=400.0))
    plan = ResizeSmoothPlan.on_model_grid(filled((8, 8)), (1, 1), PostprocessSpec())
    with pytest.raises(EngineError, match="batch of 0"):
        plan.launch(0, None)  # type: ignore[arg-type]
