"""preprocess.cu, executed on the CPU, against the transform that the models are trained with, and OpenCV's NV12."""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from edge_ad.bundle.specs import PreprocessSpec, ResizeMode
from edge_ad.errors import EngineError
from edge_ad.image.preprocess import Preprocessor
from edge_ad.runtime.engines.tensorrt.kernels.launch import source
from edge_ad.runtime.engines.tensorrt.kernels.preprocess import FORMAT, FrameFormat, PreprocessBuffers, PreprocessPlan

pytestmark = pytest.mark.rung(6)

Preparation = Callable[..., int]
PAD = (11, 22, 33)
STRAYS = 1e-3  # share of values that may be one grey level off: Pillow's edges are in single precision
FRAMES = [(1, 1), (1, 9), (9, 1), (40, 56), (41, 57), (64, 64), (97, 203), (203, 97), (300, 431)]


def picture(frame_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Noise on a slope, so that misplaced and misweighted samples show."""
    rows, columns = (np.linspace(0, 120, length) for length in frame_hw)
    slope = rows[:, None, None] + columns[None, :, None] * [1.0, 0.5, 0.0]
    noise = np.random.default_rng(seed).integers(0, 80, (*frame_hw, 3))
    return (slope[..., :3] + noise).clip(0, 255).astype(np.uint8)


def assert_same(got: np.ndarray, expected: np.ndarray, strays: float = STRAYS) -> None:
    difference = np.abs(got.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= strays


@pytest.mark.parametrize("frame_format", ["rgb", "bgr"])
@pytest.mark.parametrize("mode", ["shorter_side_crop", "stretch", "letterbox"])
def test_packed_frames_become_what_training_sees(
    program: Any, cuda_on_cpu: ModuleType, preparation: Preparation, mode: ResizeMode, frame_format: FrameFormat
) -> None:
    spec = PreprocessSpec(50, 67, resize_mode=mode, resize=60 if mode == "shorter_side_crop" else None, pad_rgb=PAD)
    cases, images = [], []
    for index, frame_hw in enumerate(FRAMES):
        frame = picture(frame_hw)
        step = -1 if frame_format == "bgr" else 1
        case = cuda_on_cpu.Case(seed=index)
        plan = PreprocessPlan(spec, frame_hw, frame_format)
        images.append((preparation(case, plan, (frame[:, :, ::step],), spare=index % 3 * 5), frame))
        cases.append(case)
    program.run(cases)
    for case, (image, frame) in zip(cases, images, strict=True):
        assert_same(case[image], Preprocessor(spec)(frame).image_hwc)


def test_any_sizes_will_do(program: Any, cuda_on_cpu: ModuleType, preparation: Preparation) -> None:
    rng = np.random.default_rng(21)
    modes: tuple[ResizeMode, ...] = ("shorter_side_crop", "stretch", "letterbox")
    cases, images = [], []
    for seed in range(40):
        height, width, resize = (int(value) for value in rng.integers(1, 70, 3))
        mode = modes[seed % 3]
        spec = PreprocessSpec(
            height, width, resize_mode=mode, resize=resize if mode == "shorter_side_crop" else None, pad_rgb=PAD
        )
        frame = picture((int(rng.integers(1, 200)), int(rng.integers(1, 200))), seed)
        case = cuda_on_cpu.Case(seed=seed)
        plan = PreprocessPlan(spec, (frame.shape[0], frame.shape[1]), "rgb")
        images.append((preparation(case, plan, (frame,)), Preprocessor(spec)(frame).image_hwc))
        cases.append(case)
    program.run(cases)
    results = [(case[image], expected) for case, (image, expected) in zip(cases, images, strict=True)]
    assert_same(*(np.concatenate([pair[side].ravel() for pair in results]) for side in (0, 1)))


@pytest.mark.parametrize("mode", ["shorter_side_crop", "letterbox"])
def test_nv12_becomes_what_opencv_and_training_make_of_it(
    program: Any, cuda_on_cpu: ModuleType, preparation: Preparation, mode: ResizeMode
) -> None:
    spec = PreprocessSpec(48, 40, resize_mode=mode, pad_rgb=PAD)
    rng = np.random.default_rng(5)
    cases, expected = [], []
    for index, (height, width) in enumerate([(2, 2), (96, 128), (48, 40), (130, 74)]):
        planes = rng.integers(0, 256, (height * 3 // 2, width), np.uint8)
        rgb = cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_NV12)
        chroma = planes[height:].reshape(height // 2, width // 2, 2)
        case = cuda_on_cpu.Case(seed=index)
        plan = PreprocessPlan(spec, (height, width), "nv12")
        expected.append((preparation(case, plan, (planes[:height], chroma), spare=6 * index), rgb))
        cases.append(case)
    program.run(cases)
    for case, (image, rgb) in zip(cases, expected, strict=True):
        assert_same(case[image], Preprocessor(spec)(rgb).image_hwc)


def test_nv12_colours_are_opencvs_to_the_bit(program: Any, cuda_on_cpu: ModuleType, preparation: Preparation) -> None:
    """All of Y, with every 8th U and V and their ends, without a resize."""
    levels = np.array([*range(0, 256, 8), 255], np.uint8)
    u, v, y = np.meshgrid(levels, levels, np.arange(64), indexing="ij")
    count = len(levels)
    luma = np.empty((count * 2, count * 64 * 2), np.uint8)
    blocks = 4 * y.transpose(0, 1, 2).reshape(count, count * 64)
    for corner in range(4):
        luma[corner // 2 :: 2, corner % 2 :: 2] = blocks + corner
    chroma = np.stack([u.reshape(count, -1), v.reshape(count, -1)], axis=-1)
    planes = np.vstack([luma, chroma.reshape(count, -1)])
    plan = PreprocessPlan(PreprocessSpec(*luma.shape, resize_mode="stretch"), (luma.shape[0], luma.shape[1]), "nv12")
    case = cuda_on_cpu.Case()
    image = preparation(case, plan, (luma, chroma))
    program.run(case)
    assert np.array_equal(case[image], cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_NV12))


def test_odd_nv12_frames_repeat_their_last_chroma(
    program: Any, cuda_on_cpu: ModuleType, preparation: Preparation
) -> None:
    rng = np.random.default_rng(6)
    luma, chroma = rng.integers(0, 256, (5, 7), np.uint8), rng.integers(0, 256, (3, 4, 2), np.uint8)
    even = np.vstack([np.pad(luma, ((0, 1), (0, 1))), chroma.reshape(3, 8)])
    case = cuda_on_cpu.Case()
    plan = PreprocessPlan(PreprocessSpec(5, 7, resize_mode="stretch"), (5, 7), "nv12")
    image = preparation(case, plan, (luma, chroma))
    program.run(case)
    assert np.array_equal(case[image], cv2.cvtColor(even, cv2.COLOR_YUV2RGB_NV12)[:5, :7])


@pytest.mark.parametrize("frame_format", ["bgr", "nv12"])
def test_halves_hold_the_same_grey_levels(
    program: Any, cuda_on_cpu: ModuleType, preparation: Preparation, frame_format: FrameFormat
) -> None:
    rng = np.random.default_rng(9)
    height, width = 16, 64
    packed = (np.arange(height * width * 3) % 256).astype(np.uint8).reshape(height, width, 3)  # every level
    planar = (rng.integers(0, 256, (height, width), np.uint8), rng.integers(0, 256, (8, 32, 2), np.uint8))
    frame = (packed,) if frame_format == "bgr" else planar
    case, images = cuda_on_cpu.Case(), []
    for image_type in ("uint8", "float16"):
        spec = PreprocessSpec(height, width, resize_mode="letterbox", pad_rgb=PAD)
        images.append(preparation(case, PreprocessPlan(spec, (height, width), frame_format, image_type), frame))
    program.run(case)
    assert case[images[1]].dtype == np.float16
    assert np.array_equal(case[images[0]], case[images[1]])
    if frame_format == "bgr":
        assert set(range(256)) == set(case[images[0]].ravel().tolist())


@pytest.mark.parametrize(
    ("frame_hw", "tile_rows"), [((540, 960), 16), ((4000, 24), 4), ((10_000, 8), 1), ((100, 10_000), 16)]
)
def test_strong_reductions_take_smaller_tiles(
    program: Any, cuda_on_cpu: ModuleType, preparation: Preparation, frame_hw: tuple[int, int], tile_rows: int
) -> None:
    spec = PreprocessSpec(48, 48, resize_mode="stretch")
    frame = picture(frame_hw)
    plan = PreprocessPlan(spec, frame_hw)
    assert plan.tile_rows == tile_rows
    case = cuda_on_cpu.Case(seed=3)
    image = preparation(case, plan, (frame[:, :, ::-1],))
    program.run(case)
    assert_same(case[image], Preprocessor(spec)(frame).image_hwc)


def test_a_large_frame_is_within_a_grey_level(program: Any, cuda_on_cpu: ModuleType, preparation: Preparation) -> None:
    """As a line runs it: full HD, strips and all."""
    spec = PreprocessSpec(288, 288, resize=288)
    frame = picture((1080, 1920))
    case = cuda_on_cpu.Case(seed=1)
    image = preparation(case, PreprocessPlan(spec, (1080, 1920)), (frame[:, :, ::-1],))
    program.run(case)
    assert_same(case[image], Preprocessor(spec)(frame).image_hwc)


def test_a_launch_says_its_arguments_as_the_kernel_takes_them(cuda_on_cpu: ModuleType) -> None:
    plan = PreprocessPlan(PreprocessSpec(288, 288, resize=288), (1080, 1920), "nv12", "float16")
    launch = plan.launch(PreprocessBuffers(tables=4096, frame=16, image=32, pitch=2048, chroma=64, chroma_pitch=1984))
    assert (launch.kernel, launch.grid, launch.block) == ("preprocess_nv12_half", (9, 18, 1), (32, 8, 1))
    unpacked = struct.unpack(FORMAT, launch.argument_buffer)
    assert len(launch.argument_buffer) == 8 * 8 + 64
    assert (unpacked[0], unpacked[1], unpacked[7]) == (16, 64, 32)
    assert struct.unpack("16i", unpacked[8])[:2] == (2048, 1984)
    assert launch.kernel in source("preprocess")


def test_a_reduction_that_no_block_can_hold_is_refused() -> None:
    with pytest.raises(EngineError, match=r"one row of the model input needs 1500 rows of the frame.*on the CPU"):
        PreprocessPlan(PreprocessSpec(4, 4, resize_mode="stretch"), (3000, 4))


@pytest.fixture(scope="module")
def watched(compiler: Any) -> Any:
    """The kernel under AddressSanitizer, which sees every read outside of an array."""
    return compiler.program("address", units=["preprocess_kernels"])


def put_part(case: Any, plan: PreprocessPlan, frame: np.ndarray, smaller: tuple[int, int, int, int]) -> int:
    """One launch for a frame of which only the source box is there, and that as much smaller on every side."""
    left, top, right, bottom = (
        edge + change for edge, change in zip(plan.source_box, np.multiply(smaller, (1, 1, -1, -1)), strict=True)
    )
    part, pitch = case.put(frame[top:bottom, left:right]), 3 * int(right - left)
    image = case.put(np.full((*plan.geometry.model_hw, 3), 77, np.uint8))
    first = part - int(top) * pitch - 3 * int(left)
    case.launches.append(plan.launch(PreprocessBuffers(case.put(plan.tables.data), first, image, pitch=pitch)))
    return image


CROPPED = PreprocessSpec(20, 30, resize=40)


def test_no_more_than_the_source_box_is_read(watched: Any, cuda_on_cpu: ModuleType) -> None:
    specs = [
        CROPPED,
        PreprocessSpec(50, 67, resize_mode="stretch"),
        PreprocessSpec(50, 67, resize_mode="letterbox", pad_rgb=PAD),
    ]
    cases, images = [], []
    for spec in specs:
        for seed, frame_hw in enumerate(FRAMES):
            case, frame, plan = cuda_on_cpu.Case(seed=seed), picture(frame_hw), PreprocessPlan(spec, frame_hw, "rgb")
            images.append((put_part(case, plan, frame, (0, 0, 0, 0)), Preprocessor(spec)(frame).image_hwc))
            cases.append(case)
    watched.run(cases)
    for case, (image, expected) in zip(cases, images, strict=True):
        assert_same(case[image], expected)
    left, top, right, bottom = PreprocessPlan(CROPPED, (300, 431)).source_box
    assert (right - left) * (bottom - top) < 0.5 * 300 * 431  # most of a cropped frame is not read


@pytest.mark.parametrize("smaller", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)])
def test_all_of_the_source_box_is_read(
    watched: Any, cuda_on_cpu: ModuleType, smaller: tuple[int, int, int, int]
) -> None:
    case = cuda_on_cpu.Case()
    put_part(case, PreprocessPlan(CROPPED, (300, 431), "rgb"), picture((300, 431)), smaller)
    with pytest.raises(cuda_on_cpu.KernelError, match="heap-buffer-overflow"):
        watched.run(case)
