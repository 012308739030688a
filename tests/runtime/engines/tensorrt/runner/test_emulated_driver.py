"""The emulated driver itself: it runs kernels, and it sees what the runner could do wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.rung(7)

Scenario = Callable[..., dict[str, Any]]

# float32 sums of a few taps, in another order than NumPy's.
MAP_ATOL = 1e-6


def test_a_kernel_is_launched_through_pycuda(scenario: Scenario, cpu_kernels: Path) -> None:
    result = scenario("kernel", EMULATED_CUDA_KERNELS=str(cpu_kernels))
    assert result["off by"] <= MAP_ATOL
    assert result["scores off by"] <= MAP_ATOL
    assert result["mask pixels"] == 0
    assert 0 < result["masked"] < 2 * 64 * 64
    assert result["said"] == {
        "an argument too few": "cuLaunchKernel failed: too many resources requested for launch",
        "an argument too many": "cuLaunchKernel failed: too many resources requested for launch",
        "a large block": "cuLaunchKernel failed: invalid argument",
        "a high grid": "cuLaunchKernel failed: invalid argument",
        "much shared memory": "cuLaunchKernel failed: invalid argument",
        "no such kernel": "cuModuleGetFunction failed: named symbol not found",
    }
    assert result["launches"] == 1
    assert [line.split(" takes ")[0] for line in result["faults"]] == ["resize_smooth_float"] * 2
    assert result["overrun"] == ["resize_smooth_float wrote outside of its memory"]
    assert result["held"] == {}


def test_wrong_copies_and_calls_are_refused(scenario: Scenario) -> None:
    result = scenario("emulator_checks")
    invalid = "failed: invalid argument"
    assert result["said"] == {
        "copy there": f"cuMemcpyHtoD {invalid}",
        "copy back": f"cuMemcpyDtoH {invalid}",
        "queued copy there": f"cuMemcpyHtoDAsync {invalid}",
        "queued copy back": f"cuMemcpyDtoHAsync {invalid}",
        "a copy that fits": "no error",
        "not mapped": f"cuMemHostGetDevicePointer {invalid}",
        "not emulated": "cuMemAllocPitch failed: operation not supported",
        "no context": "cuMemAlloc failed: invalid device context",
    }
    assert result["pageable"] == 1
    assert result["faults"] == [
        "cuMemAllocPitch_v2 is not emulated",
        "cuMemFree: written outside of it",
        "cuMemAlloc without a current context",
    ]
    assert result["held"] == {}


@pytest.mark.parametrize(
    ("order", "seen"),
    [
        (
            "late",
            {
                "the graph does not wait for its input",
                "the way back does not wait for the graph",
                "outputs are taken before they are there",
                "a slot is filled while it is in use",
                "a piece too much stays in its slot",
            },
        ),
        ("early", {"a slot is filled while it is in use", "a piece too much stays in its slot"}),
    ],
)
def test_a_pipeline_that_forgets_to_wait_is_seen(scenario: Scenario, order: str, seen: set[str]) -> None:
    off_by = scenario("wrong_pipelines", EMULATED_CUDA_ORDER=order)["off by"]
    assert off_by["none"] == off_by["one slot"] == 0
    assert {name for name, value in off_by.items() if value > 1e-3} == seen


def test_a_wrong_tail_is_seen(scenario: Scenario, kernel_tail: dict[str, str]) -> None:
    off_by = scenario("wrong_tails", EMULATED_CUDA_ORDER="late", **kernel_tail)["off by"]
    assert off_by.pop("none") < 1e-6
    assert {name for name, value in off_by.items() if value < 1e-4} == set()


def test_what_is_not_closed_is_seen(scenario: Scenario) -> None:
    result = scenario("leaking")
    assert result["held"] == {"device_allocations": 10, "host_allocations": 8, "streams": 3, "events": 6}
    assert result["faults"] == {"before": [], "closed too soon": ["cuMemFree of memory that queued work uses"]}
