"""Both kernels under AddressSanitizer and ThreadSanitizer, and faults planted into them, each of which must be seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import cv2
import numpy as np
import pytest

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.image.geometry import place
from edge_ad.image.operators import resize_smooth_matrix
from edge_ad.image.padding import frame_score, without_padding
from edge_ad.image.preprocess import Preprocessor
from edge_ad.runtime.engines.tensorrt.kernels.launch import source
from edge_ad.runtime.engines.tensorrt.kernels.preprocess import PreprocessPlan
from edge_ad.runtime.engines.tensorrt.kernels.resize_smooth import ResizeSmoothPlan

pytestmark = pytest.mark.rung(6)

Name = Literal["resize_smooth", "preprocess"]
Examination = Callable[[Name, Any], None]
NAMES: tuple[Name, ...] = ("resize_smooth", "preprocess")


@pytest.fixture(scope="session")
def examine(cuda_on_cpu: ModuleType, smoothing: Callable[..., Any], preparation: Callable[..., int]) -> Examination:
    """Runs a program through a few frames and compares all that it makes. Raises: AssertionError, KernelError."""

    def resize_smooth(program: Any) -> None:
        spec = PostprocessSpec(sigma=2.0)
        geometry = place(PreprocessSpec(50, 70, resize_mode="letterbox"), (40, 70))
        plan = ResizeSmoothPlan.on_model_grid(geometry, (7, 9), spec, "float16")
        rng = np.random.default_rng(11)
        # The second frame is darker than the first, the third below zero.
        ranges = ((0, 1), (0, 0.5), (-2, -1))
        frames = [rng.uniform(low, high, (2, 7, 9)).astype(np.float16) for low, high in ranges]
        for frame in frames:
            frame[:, [0, -1]] = 1  # rows of padding, for the greater part
        broken = frames[0].copy()
        broken[0, 3, 4] = -np.inf
        by_patches = replace(spec, score="patch_max")
        of_patches = ResizeSmoothPlan.on_model_grid(geometry, (7, 9), by_patches, "float16")
        case = cuda_on_cpu.Case(seed=4)
        state = case.put(np.zeros(2 * 8, np.uint8))
        runs = [(frame, smoothing(case, plan, frame, -1.6, state=state)) for frame in frames]
        last = smoothing(case, of_patches, broken, state=state)
        program.run(case)
        rows, columns = (resize_smooth_matrix(n_in, n_out, PostprocessSpec(2.0)) for n_in, n_out in ((7, 50), (9, 70)))
        top, bottom = geometry.content_box[1], geometry.content_box[3]
        for frame, buffers in runs:
            for index, patch_map in enumerate(frame.astype(np.float32)):
                whole = (rows @ patch_map @ columns.T).astype(np.float32)
                _, expected = without_padding(patch_map, whole, geometry, spec)
                computed = case[buffers.anomaly_map][index]
                np.testing.assert_allclose(computed, expected, rtol=0, atol=2e-6)
                assert (
                    abs(
                        case[buffers.score][index]
                        - frame_score(expected, expected, 0.0, geometry, PostprocessSpec(score="patch_max"))
                    )
                    <= 2e-6
                )
                mask = np.zeros((50, 70), bool)
                mask[top:bottom] = computed[top:bottom] >= np.float32(-1.6)
                assert np.array_equal(case[buffers.mask][index], 255 * mask)
        assert np.isnan(case[last.score]).tolist() == [True, False]

    def preprocess(program: Any) -> None:
        rng = np.random.default_rng(12)
        spec = PreprocessSpec(34, 39, resize_mode="letterbox", pad_rgb=(5, 6, 7))
        planes = rng.integers(0, 256, (60 * 3 // 2, 74), np.uint8)
        rgb = cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_NV12)
        frames = {"bgr": (rgb[:, :, ::-1],), "nv12": (planes[:60], planes[60:].reshape(30, 37, 2))}
        case, images = cuda_on_cpu.Case(seed=4), []
        for frame_format, frame in frames.items():
            plan = PreprocessPlan(spec, (60, 74), frame_format, "float16")  # type: ignore[arg-type]
            images.append(preparation(case, plan, frame, spare=10))
        program.run(case)
        for image in images:
            difference = np.abs(case[image].astype(int) - Preprocessor(spec)(rgb).image_hwc)
            assert difference.max() <= 1 and (difference > 0).mean() <= 1e-3

    examinations = {"resize_smooth": resize_smooth, "preprocess": preprocess}
    return lambda name, program: examinations[name](program)


@pytest.mark.parametrize("variant", ["plain", "address", "thread"])
@pytest.mark.parametrize("name", NAMES)
def test_the_kernels_pass(compiler: Any, examine: Examination, name: Name, variant: str) -> None:
    examine(name, compiler.program(variant, units=[f"{name}_kernels"]))


@dataclass(frozen=True)
class Fault:
    """A change to a kernel; `said` is what a sanitizer has to say of it, nothing where wrong results are enough."""

    name: Name
    title: str
    old: str
    new: str
    variant: Literal["plain", "address", "thread"] = "plain"
    said: str = ""


FIRST_BARRIER = "  __syncthreads();\n\n  unsigned int best = 0;"
FAULTS = [
    Fault("resize_smooth", "no barrier behind the rows", FIRST_BARRIER, "  unsigned int best = 0;"),
    Fault(
        "resize_smooth", "no barrier behind the rows", FIRST_BARRIER, "  unsigned int best = 0;", "thread", "data race"
    ),
    Fault("resize_smooth", "no barrier before the block's maximum", "= best;\n  __syncthreads();", "= best;"),
    Fault(
        "resize_smooth",
        "a barrier for half of the threads",
        FIRST_BARRIER,
        f"  if (threadIdx.y % 2){FIRST_BARRIER}",
        said="only some threads",
    ),
    Fault("resize_smooth", "no bound for columns", "if (column < shape.columns) {", "{"),
    Fault("resize_smooth", "no bound for rows of the map", "if (row >= shape.rows) continue;", ""),
    Fault(
        "resize_smooth",
        "no bound for rows of the map",
        "if (row >= shape.rows) continue;",
        "",
        "address",
        "AddressSanitizer",
    ),
    Fault("resize_smooth", "no bound for rows of the operator", "if (row >= shape.rows) break;", "", "address"),
    Fault("resize_smooth", "wrong first row", "patches + row_starts[row]", "patches + max(row_starts[row] - 1, 0)"),
    Fault(
        "resize_smooth",
        "wrong first column",
        "(column_starts[column] - reached)",
        "(column_starts[column] - reached + 1)",
    ),
    Fault(
        "resize_smooth",
        "patches beyond the last one",
        "reached + i % shape.tile_span",
        "reached + 9 + i % shape.tile_span",
        "address",
        "heap-buffer-overflow",
    ),
    Fault(
        "resize_smooth", "the last frame's best stays", "value_of(atomicExch(&own->best, 0u))", "value_of(own->best)"
    ),
    Fault(
        "resize_smooth",
        "the count of blocks stays",
        "atomicInc(&own->blocks_done, last)",
        "atomicInc(&own->blocks_done, ~0u)",
    ),
    Fault(
        "resize_smooth",
        "the maximum is not atomic",
        "atomicMax(&own->best, best);",
        "own->best = max(own->best, best);",
        "thread",
        "data race",
    ),
    Fault("resize_smooth", "padding counts in the score", "if (counts && !shape", "if (!shape"),
    Fault("resize_smooth", "padding counts in the mask", "counts && sums[r] >= limit", "sums[r] >= limit"),
    Fault("resize_smooth", "keys in the order of the bits", "bits & 0x80000000u ? ~bits : bits | 0x80000000u", "bits"),
    Fault(
        "resize_smooth",
        "minus infinity is a number",
        "(bits & 0x7f800000u) == 0x7f800000u",
        "(bits & 0x7fffffffu) > 0x7f800000u",
    ),
    Fault("resize_smooth", "one image for all", "blockIdx.z) * shape.patch_rows", "0) * shape.patch_rows"),
    Fault("preprocess", "no barrier between the axes", "  __syncthreads();\n", ""),
    Fault("preprocess", "no barrier between the axes", "  __syncthreads();\n", "", "thread", "data race"),
    Fault("preprocess", "no bound for columns", "if (column >= shape.columns) return;", ""),
    Fault("preprocess", "no bound for rows", "if (row >= shape.rows) break;", ""),
    Fault("preprocess", "no bound for rows", "if (row >= shape.rows) break;", "", "address", "AddressSanitizer"),
    Fault("preprocess", "wrong first column", "pixels[start + k]", "pixels[start + k + 1]"),
    Fault("preprocess", "wrong first row", "(row_starts[row] - source_row)", "(row_starts[row] - source_row + 1)"),
    Fault(
        "preprocess",
        "a source row too many",
        "r < shape.tile_span",
        "r <= shape.tile_span",
        "address",
        "heap-buffer-overflow",
    ),
    Fault("preprocess", "no rounding", "(sum + (1 << (WEIGHT_BITS - 1)))", "sum"),
    Fault("preprocess", "U for V", "const int u = chroma[column / 2 * 2]", "const int u = chroma[column / 2 * 2 + 1]"),
    Fault("preprocess", "chroma of another row", "row / 2", "(row + 1) / 2"),
    Fault(
        "preprocess", "red for blue", "{pixel[red_at], pixel[1], pixel[2 - red_at]}", "{pixel[0], pixel[1], pixel[2]}"
    ),
    Fault(
        "preprocess",
        "rows follow each other",
        "luma(frame + static_cast<size_t>(row) * shape.pitch)",
        "luma(frame + static_cast<size_t>(row) * (shape.pitch - 10))",
    ),
    Fault("preprocess", "padding is black", "store(out, shape.pad_red)", "store(out, 0)"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.name}: {fault.title}, {fault.variant}")
def test_planted_faults_are_seen(
    compiler: Any, cuda_on_cpu: ModuleType, examine: Examination, tmp_path: Path, fault: Fault
) -> None:
    text = source(fault.name)
    assert text.count(fault.old) == 1
    (tmp_path / f"{fault.name}.cu").write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    program = compiler.program(fault.variant, tmp_path, [f"{fault.name}_kernels"])
    with pytest.raises((AssertionError, cuda_on_cpu.KernelError)) as seen:
        examine(fault.name, program)
    assert fault.said in str(seen.value)
