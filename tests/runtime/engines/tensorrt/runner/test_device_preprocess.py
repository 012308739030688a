"""Frames that become model inputs on the device: the same pixels, order of work, memory, failures, and whole runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_ad.bundle.bundle import Bundle
from edge_ad.runtime.engines.tensorrt.choices import Choices, write_choices
from edge_ad.runtime.engines.tensorrt.fingerprint import PlanNeed, this_platform

pytestmark = pytest.mark.rung(7)

Scenario = Callable[..., dict[str, Any]]

STRAYS = 1e-3  # share of values that may be one grey level off: Pillow's edges are in single precision
FRAMES_ON_DEVICE = 3 * 6 * 2  # modes, sizes, channel orders

# Both sides are ONNX Runtime on this CPU; it may add up in another order. 0 in practice.
SAME_ATOL = 1e-6
# 12 of 12,288 values may be a grey level off. As many at random move this score by 3e-4 at most; 0 in practice.
SCORE_ATOL = 1e-3
FRAMES = 12
COMMAND = ("-W", "error", "-m", "edge_ad")


@pytest.fixture
def kernels(cpu_kernels: Path) -> dict[str, str]:
    return {"EMULATED_CUDA_KERNELS": str(cpu_kernels)}


@pytest.mark.parametrize(
    "settings",
    [{"EMULATED_CUDA_ORDER": order} for order in ("late", "early", "1")] + [{"EMULATED_CUDA_INTEGRATED": "1"}],
)
def test_frames_are_those_of_the_cpu(scenario: Scenario, kernels: dict[str, str], settings: dict[str, str]) -> None:
    result = scenario("frames_on_device", **kernels, **settings)
    assert result["worst"] <= 1
    assert result["strays"] <= STRAYS
    assert result["same geometry"]
    assert result["launches"] == FRAMES_ON_DEVICE  # and so they were made on the device
    assert result["own"]
    assert result["contrast"] > 50  # control: another frame is another picture
    for on_cpu, on_device in result["said"]:
        assert on_cpu == on_device and on_cpu.startswith("ImageError: ")
    assert result["on the CPU"] == [True] * 3
    assert result["launches for those"] == 0
    there = 2 * FRAMES_ON_DEVICE + 1 + 3  # tables and frame of every size and order; then three frames of one
    back = 0 if "EMULATED_CUDA_INTEGRATED" in settings else FRAMES_ON_DEVICE + 3
    assert result["copies"] == there + back
    assert result["pageable_copies"] == 0
    assert result["held"] == {}
    assert result["faults"] == []


def test_frames_of_many_sizes_share_their_memory_and_do_not_drive_each_other_out(
    scenario: Scenario, kernels: dict[str, str]
) -> None:
    result = scenario("changing_frames", **kernels)
    assert result["worst"] <= 1
    after_each_once, after_all = result["counts"]
    assert after_each_once == after_all
    # The tables of each size that is kept; memory for one frame, and for one model input.
    assert after_all["device_allocations"] == after_all["host_allocations"] == result["sizes"] + 2
    assert (after_all["streams"], after_all["modules"]) == (1, 1)
    one_size, eight_in_turn = result["calls and copies for known sizes"]
    assert one_size == eight_in_turn and one_size[1] == 2 * 8
    assert result["held"] == {}
    assert result["faults"] == []


@pytest.mark.parametrize("order", ["late", "early"])
def test_threads(scenario: Scenario, kernels: dict[str, str], order: str) -> None:
    # pycuda lets go of a primary context only in the thread that asked for it; here that one has ended.
    result = scenario("prepare_in_threads", retains=1, EMULATED_CUDA_ORDER=order, **kernels)
    assert result["apart"] <= 1
    assert result["differences"] <= SAME_ATOL
    assert result["without its engine"] <= 1
    assert result["resizes with"][0] == "CUDA" != result["resizes with"][1]
    assert result["launches"] == 24 + 1
    assert result["held"] == {}
    assert result["faults"] == []


def test_whatever_call_fails_is_said_once_and_nothing_stays_behind(scenario: Scenario, kernels: dict[str, str]) -> None:
    result = scenario("every_call_of_a_resize_fails_once", **kernels)
    assert result["wrong"] == []
    assert result["faults"] == []
    outcomes = result["outcomes"]
    for call in (
        "cuStreamCreate",
        "cuModuleLoadDataEx",
        "cuModuleGetFunction",
        "cuMemAlloc",
        "cuMemHostAlloc",
        "cuMemcpyHtoDAsync",
        "cuLaunchKernel",
        "cuMemcpyDtoHAsync",
        "cuStreamSynchronize",
    ):
        assert any(f"{call} failed: invalid argument" in outcome for outcome in outcomes), call
    assert any("its memory is full; end other programs" in outcome for outcome in outcomes)
    assert outcomes[-1] == "passed"


def test_when_the_device_is_lost_the_cpu_serves_the_process_that_takes_over(
    scenario: Scenario, kernels: dict[str, str]
) -> None:
    lost = "the GPU is lost to this process (cuCtxSynchronize failed: an illegal memory access was encountered; "
    result = scenario("device_lost_in_a_resize", says=lost, **kernels)
    said = result["said"]
    assert all(line.startswith(f"EngineError: {lost}") for line in said)
    assert said[0].endswith("and at power and temperature)")
    assert result["made on the CPU"]
    assert max(result["off by"]) <= SAME_ATOL


def test_a_wrong_resize_is_seen(scenario: Scenario, kernels: dict[str, str]) -> None:
    off_by = scenario("wrong_resizes", EMULATED_CUDA_ORDER="late", **kernels)["off by"]
    assert off_by.pop("none") <= 1
    assert off_by.pop("one size is kept") <= 1
    assert {name for name, levels in off_by.items() if levels <= 8} == set()


@pytest.mark.parametrize("size", ["160x120", "64x64"])
def test_verdicts_are_the_same_wherever_frames_become_model_inputs(
    emulated: Callable[..., Any], engines: Path, tiny_bundle: Path, kernels: dict[str, str], size: str
) -> None:
    source = ("--source", f"sim:?size={size}&seed=1&defects=0.5", "--max-frames", str(FRAMES))
    command = ("run", str(tiny_bundle), "--engine", "tensorrt", "--engine-cache", str(engines), *source)
    runs = {}
    for place in ("cpu", "device"):
        write_choices(engines, _need(tiny_bundle), Choices(preprocess=place))  # type: ignore[arg-type]
        done = emulated(*COMMAND, *command, **kernels)
        assert done.code == 0, done.err
        assert done.report["launches"] == (FRAMES + 1 if place == "device" else 0)  # one to warm up
        assert done.report["faults"] == []
        for name in ("device_allocations", "host_allocations", "streams", "events", "modules", "primary_retains"):
            assert done.report[name] == 0, name
        runs[place] = [json.loads(line) for line in done.out.splitlines()]
    assert len(runs["cpu"]) == len(runs["device"]) == FRAMES
    for one, other in zip(*runs.values(), strict=True):
        assert (one["status"], one["verdict"]) == ("ok", other["verdict"])
        assert math.isclose(one["score"], other["score"], rel_tol=0, abs_tol=SCORE_ATOL)
    assert len({entry["score"] for entry in runs["device"]}) == FRAMES  # control: the frames differ


def test_a_device_that_is_lost_in_a_resize_does_not_end_the_line(
    emulated: Callable[..., Any], engines: Path, tiny_bundle: Path, kernels: dict[str, str]
) -> None:
    write_choices(engines, _need(tiny_bundle), Choices(preprocess="device"))
    source = ("--source", "sim:?size=160x120&seed=1&defects=0.5", "--max-frames", str(FRAMES))
    command = ("run", str(tiny_bundle), "--engine", "tensorrt", "--engine-cache", str(engines), *source)
    done = emulated(*COMMAND, *command, EMULATED_CUDA_FAIL="cuLaunchKernel 9 700 1", **kernels)
    assert done.code == 0, done.err
    entries = [json.loads(line) for line in done.out.splitlines()]
    statuses = [entry["status"] for entry in entries]  # launch 1 is the warm-up's, 9 that of frame 7
    assert statuses[:4] == ["ok"] * 4
    assert statuses[-1] == "ok"  # by the process that takes over; some more were in the engine before that
    lost = [entry["reason"] for entry in entries if entry["status"] == "error"]
    assert 1 <= len(lost) <= 3 and all("the GPU is lost to this process" in reason for reason in lost)
    assert "Traceback" not in done.err


def _need(bundle: Path) -> PlanNeed:
    """What `edge-ad run` asks for on the emulated GPU."""
    opened = Bundle.read(bundle)
    return PlanNeed(
        flavour="tensorrt",
        version="10.3.0",
        sm=86,
        gpu="emulated GPU",
        precision="fp32",
        batch=1,
        onnx_sha256=opened.manifest.files[opened.model_file("fp32")],
        dla=None,
        platform=this_platform(),
        tail=None,
    )
