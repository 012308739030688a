"""The TensorRT engine on the emulated driver, with unmodified pycuda: results, order of work, memory, failures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.rung(7)

Scenario = Callable[..., dict[str, Any]]

# Both sides are ONNX Runtime on this CPU. It may add up batches of another size in another order; 0 in practice.
SAME_ATOL = 1e-6
ORDERS = ("late", "early", "1", "2")
"""When queued work runs: at the last moment, at the first, or at random; see tests/support/emulated_cuda."""
BATCHES = range(1, 9)
PIECES = sum(-(-count // 3) for count in BATCHES) + 4  # of an engine that takes three; four batches of one piece follow


@pytest.mark.parametrize("order", ORDERS)
def test_batches_of_any_size_in_any_order_of_work(scenario: Scenario, order: str) -> None:
    result = scenario("batches", EMULATED_CUDA_ORDER=order)
    assert max(result["differences"]) <= SAME_ATOL
    assert result["contrast"] > 1e4 * SAME_ATOL  # control: other images give other outputs
    assert result["shapes"] == [[[count, 16, 16], [count, 64, 64], [count]] for count in BATCHES]
    assert result["own"]
    assert result["copies"] == 4 * PIECES  # the image there, three outputs back
    assert result["pageable_copies"] == 0  # which would wait for each other
    assert result["faults"] == []
    assert result["held"] == {}
    assert (result["precision"], result["from_cache"]) == ("fp32", True)


def test_a_gpu_in_the_processors_memory_copies_nothing(scenario: Scenario) -> None:
    result = scenario("batches", EMULATED_CUDA_INTEGRATED="1")
    assert max(result["differences"]) <= SAME_ATOL
    assert result["copies"] == 0
    assert result["loaded"]["host_allocations"] == 8  # two slots of four tensors
    assert result["loaded"]["device_allocations"] == 2  # TensorRT's own
    assert result["held"] == {}
    assert result["faults"] == []


def test_two_hundred_frames_take_no_more_memory_than_five(scenario: Scenario) -> None:
    result = scenario("frames")
    after_five, after_all = result["counts"]
    assert after_five == after_all
    assert after_five["device_allocations"] == 10  # control: two slots of four tensors, and TensorRT's two
    assert after_five["streams"] == 3
    assert result["held"] == {}
    assert result["faults"] == []


def test_threads(scenario: Scenario) -> None:
    # pycuda lets go of a primary context only in the thread that asked for it; here that one has ended.
    result = scenario("threads", retains=1)
    assert len(result["differences"]) == 9
    assert max(result["differences"]) <= SAME_ATOL
    assert result["alone"] == result["held"] == {}
    assert result["faults"] == []


def test_whatever_call_fails_is_said_once_and_nothing_stays_behind(scenario: Scenario) -> None:
    result = scenario("every_call_fails_once", says="the GPU failed to close the engine: cuCtxSynchronize")
    assert result["wrong"] == []
    assert result["faults"] == []
    outcomes = result["outcomes"]
    assert len(outcomes) > 120
    for call in (
        "cuMemAlloc",
        "cuMemHostAlloc",
        "cuStreamCreate",
        "cuEventCreate",
        "cuMemcpyHtoDAsync",
        "cuEventRecord",
    ):
        assert any(f"{call} failed: invalid argument" in outcome for outcome in outcomes), call
    assert any("its memory is full; end other programs" in outcome for outcome in outcomes)
    assert any("TensorRT 10.3.0 failed on a batch: " in outcome for outcome in outcomes)
    assert outcomes[-1] == "passed"


def test_a_fresh_process_takes_over_from_a_lost_device(scenario: Scenario) -> None:
    lost = "the GPU is lost to this process (cuCtxSynchronize failed: an illegal memory access was encountered; "
    result = scenario("lost_device", says=lost)
    *said, opened_again = result["said"]
    assert said[0].startswith(f"EngineError: {lost}") and said[0].endswith("and at power and temperature)")
    told = [line for line in said if line != "no error"]  # a batch waits for the process that takes over
    assert all(lost in line or "its process was killed (SIGKILL" in line for line in told)
    assert opened_again.startswith("EngineError: ")
    assert len(result["differences"]) == 8
    assert max(result["differences"]) <= SAME_ATOL
    assert result["another"]
    assert result["late"].endswith("its process gave no answer within 0.2 s; a fresh one takes over")
    assert result["ended"]


KERNEL_ATOL = 1e-6
"""The kernel adds up in float32, six taps per axis where the graph multiplies by whole matrices; 1.8e-7 in practice."""


@pytest.mark.parametrize("order", ORDERS)
def test_the_kernel_does_what_the_tail_of_the_graph_does(
    scenario: Scenario, kernel_tail: dict[str, str], order: str
) -> None:
    result = scenario("batches", EMULATED_CUDA_ORDER=order, **kernel_tail)
    assert 0 < max(result["differences"]) <= KERNEL_ATOL
    assert result["contrast"] > 1e4 * KERNEL_ATOL
    assert result["shapes"] == [[[count, 16, 16], [count, 64, 64], [count]] for count in BATCHES]
    assert result["copies"] == 4 * PIECES + 1  # and the tables once
    assert result["launches"] == PIECES
    assert result["faults"] == []
    assert result["held"] == {}


def test_the_kernel_does_what_the_tail_of_draem_does(
    scenario: Scenario, kernel_tail: dict[str, str], tiny_draem: Path
) -> None:
    """Its patch map has the size of the picture, and it is smoothed by the mean of a square, less at the border."""
    result = scenario("batches", bundle=tiny_draem, **kernel_tail)
    assert 0 < max(result["differences"]) <= KERNEL_ATOL
    assert result["contrast"] > 1e4 * KERNEL_ATOL
    assert result["shapes"] == [[[count, 64, 64], [count, 64, 64], [count]] for count in BATCHES]
    assert result["launches"] == PIECES
    assert result["faults"] == []
    assert result["held"] == {}


def test_two_hundred_frames_with_the_kernel(scenario: Scenario, kernel_tail: dict[str, str]) -> None:
    result = scenario("frames", **kernel_tail)
    after_five, after_all = result["counts"]
    assert after_five == after_all
    assert (after_five["device_allocations"], after_five["modules"]) == (11, 1)
    assert result["held"] == {}
    assert result["faults"] == []


def test_whatever_call_fails_with_the_kernel_nothing_stays_behind(
    scenario: Scenario, kernel_tail: dict[str, str]
) -> None:
    result = scenario(
        "every_call_fails_once", says="the GPU failed to close the engine: cuCtxSynchronize", **kernel_tail
    )
    assert result["wrong"] == []
    assert result["faults"] == []
    for call in ("cuModuleLoadDataEx", "cuModuleGetFunction", "cuLaunchKernel"):
        assert any(f"{call} failed: invalid argument" in outcome for outcome in result["outcomes"]), call
    assert result["outcomes"][-1] == "passed"


def test_a_fresh_process_takes_over_with_the_kernel(scenario: Scenario, kernel_tail: dict[str, str]) -> None:
    result = scenario("lost_device", says="the GPU is lost to this process", **kernel_tail)
    assert len(result["differences"]) == 8
    assert max(result["differences"]) <= KERNEL_ATOL


def test_which_tail_runs(scenario: Scenario, cpu_kernels: Path, tmp_path: Path) -> None:
    of_a_damaged_file = str(tmp_path / "engines")
    result = scenario("tails", says=of_a_damaged_file, EMULATED_CUDA_KERNELS=str(cpu_kernels))
    assert "built with --tail kernel, wanted graph" in result.pop("a spec without its smoothing")
    assert result == {
        "only the kernel's is there": 1,
        "nothing was measured": 0,
        "the kernel's was faster": 1,
        "the graph's was faster": 0,
        "the file is damaged": 0,
        "precision": "tf32",
        "held": {},
        "faults": [],
    }


REFUSALS = {
    "nothing built": "none was built from this bundle's fp32 model; build one on this machine with 'edge-ad build'",
    "no folder": "here there is no folder to look in",
    "other GPU": "built for SM89, this is SM86; build one",
    "other version": "built by TensorRT 10.2.0, this is 10.3.0; build one",
    "other batch": "built for batches of 4, wanted 1; build one",
    "garbage": "TensorRT 10.3.0 refuses the engine: Serialization assertion",
    "other input": "tensor 'image' is input float (N, 64, 64, 3), the bundle has input uint8 (N, 64, 64, 3); build one",
    "other outputs": "tensor 'heat_map' is output float (N, 16, 16), the bundle has absent; build one",
    "damaged": ".plan is damaged; build one",
    "memory": "cannot make the engine ready: Requested size was 4096 bytes.; if the GPU's memory is full",
    "too few": "the engine takes 2 to 2 images at once, got 3",
}


def test_engines_that_are_not_run(scenario: Scenario) -> None:
    result = scenario("refused")
    said = result["said"]
    assert said.keys() - {"execution"} == REFUSALS.keys()
    for name, words in REFUSALS.items():
        assert said[name].startswith("EngineError: ")
        assert words in said[name], name
        assert "\n" not in said[name]
    assert len(set(said["execution"])) == 1  # the same words for the same failure, frame after frame
    assert "TensorRT 10.3.0 failed on a batch" in said["execution"][0]
    assert result["held"] == {}
    assert result["faults"] == []


def test_what_is_not_installed_is_one_line(scenario: Scenario) -> None:
    without_pycuda, without_tensorrt = scenario("not_installed")["said"]
    assert without_pycuda == (
        "MissingExtraError: engine 'tensorrt' needs the package 'pycuda', which is not installed:"
        " pip install 'edge-ad[tensorrt]'"
    )
    assert without_tensorrt.startswith(
        "EngineError: TensorRT is not installed: no module 'tensorrt'; on Jetson it comes"
    )


def test_copies_go_on_while_the_graph_computes(scenario: Scenario) -> None:
    result = scenario("copies_beside_computing")
    assert result["copies"] == 8  # of both pieces there and back, before the first is waited for
    assert result["upload ends"]
    assert not result["computing ends"]  # control
    assert result["held"] == {}
    assert result["faults"] == []


def test_the_next_frame_is_resized_while_the_graph_computes(scenario: Scenario, cpu_kernels: Path) -> None:
    result = scenario("resizing_beside_computing", EMULATED_CUDA_KERNELS=str(cpu_kernels))
    assert result["ends"] == {"streams of their own": True, "one stream": False}  # the second is the control
    assert result["apart"] <= 1
    assert result["held"] == {}
    assert result["faults"] == []
