"""The TensorRT engine with recorded launches, CUDA graphs, through the real cuda-python on the emulated driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.rung(7)

Scenario = Callable[..., dict[str, Any]]
Settings = dict[str, str]

SAME_ATOL = 1e-6  # both sides are ONNX Runtime on this CPU
KERNEL_ATOL = 1e-6  # as in test_tensorrt_engine.py
PIECES = sum(-(-count // 3) for count in range(1, 9)) + 4  # of an engine that takes three; see the scenario
REHEARSED = 3  # batches of one, two and three images, when the engine is loaded
GRAPHS = 6  # three sizes of a batch, two slots
NOTE = "; launches are put onto the GPU one by one, which computes the same"


@pytest.mark.parametrize("order", ["late", "early", "1"])
def test_replayed_batches_are_those_that_were_launched(scenario: Scenario, cuda_graph: Settings, order: str) -> None:
    result = scenario("batches", EMULATED_CUDA_ORDER=order, **cuda_graph)
    assert max(result["differences"]) <= SAME_ATOL
    assert result["contrast"] > 1e4 * SAME_ATOL
    assert result["own"]
    assert result["copies"] == 4 * (PIECES + REHEARSED)
    assert result["graph_launches"] == PIECES + REHEARSED - GRAPHS  # each is recorded at its first batch
    assert (result["loaded"]["graph_execs"], result["used"]["graph_execs"]) == (REHEARSED, GRAPHS)
    assert result["used"]["graphs"] == result["used"]["captures"] == 0
    # However many graphs there are, beside the two slots and TensorRT's own memory they share one more piece.
    assert result["loaded"]["device_allocations"] == result["used"]["device_allocations"] == 11
    assert result["held"] == {}
    assert result["faults"] == []


def test_the_kernel_is_in_the_graph(scenario: Scenario, kernel_tail: Settings, cuda_graph: Settings) -> None:
    settings = {"EMULATED_CUDA_ORDER": "3", "EMULATED_CUDA_INTEGRATED": "1"}
    result = scenario("batches", **settings, **kernel_tail, **cuda_graph)
    assert 0 < max(result["differences"]) <= KERNEL_ATOL
    assert result["launches"] == GRAPHS  # one before each recording
    assert result["graph_launches"] == PIECES + REHEARSED - GRAPHS
    assert result["held"] == {}
    assert result["faults"] == []


@pytest.mark.parametrize("order", ["late", "4"])
def test_sizes_may_change_and_engines_may_have_streams_of_their_own(
    scenario: Scenario, cuda_graph: Settings, order: str
) -> None:
    result = scenario("graphs_of_all_kinds", EMULATED_CUDA_ORDER=order, **cuda_graph)
    # TensorRT 8 cannot let executions share memory, so there each of the four graphs has its own.
    for kind, memories in (("one stream", 1), ("two streams", 1), ("TensorRT 8", 4)):
        assert max(result[kind]["differences"]) <= SAME_ATOL
        assert (result[kind]["replays"], result[kind]["graphs"]) == (18, 4)
        assert result[kind]["device_allocations"] == 10 + memories
    assert result["held"] == {}
    assert result["faults"] == []


def test_the_cuda_python_of_cuda_11_does_it_too(
    scenario: Scenario, cuda_graph: Settings, old_cuda_python: Path
) -> None:
    """Where `cuGraphInstantiate` is another function."""
    result = scenario("graphs_of_all_kinds", PYTHONPATH=str(old_cuda_python), **cuda_graph)
    assert Path(result["package"]).is_relative_to(old_cuda_python)
    assert max(result["two streams"]["differences"]) <= SAME_ATOL
    assert (result["two streams"]["replays"], result["two streams"]["graphs"]) == (18, 4)
    assert result["held"] == {}
    assert result["faults"] == []


def test_two_hundred_frames_take_no_more_memory_than_five(scenario: Scenario, cuda_graph: Settings) -> None:
    result = scenario("frames", **cuda_graph)
    after_five, after_all = result["counts"]
    assert after_five == after_all
    assert (after_five["graph_execs"], after_five["graphs"], after_five["device_allocations"]) == (1, 0, 11)
    assert result["held"] == {}
    assert result["faults"] == []


def test_threads(scenario: Scenario, cuda_graph: Settings) -> None:
    result = scenario("threads", retains=1, **cuda_graph)
    assert max(result["differences"]) <= SAME_ATOL
    assert result["alone"] == result["held"] == {}
    assert result["faults"] == []


REFUSALS = {
    "layers that cannot be recorded": "operation not permitted when stream is capturing)",
    "a stream that does not join": "cuStreamEndCapture failed: capturing stream has unjoined work",
    "a profile that contexts do not share": "lets one execution context use the engine's optimization profile,"
    " and there is one already",
    "cuStreamBeginCapture": "cuStreamBeginCapture failed: invalid argument",
    "cuStreamEndCapture": "cuStreamEndCapture failed: invalid argument",
    "cuGraphInstantiate": "cuGraphInstantiate failed: invalid argument",
    "cuGraphLaunch": "cuGraphLaunch failed: invalid argument",
    "cuda-python is not installed": "a CUDA graph needs the package 'cuda-bindings', which is not installed: pip"
    " install 'edge-ad[tensorrt]'",
}


def test_what_refuses_a_graph_is_said_once_and_costs_no_frame(scenario: Scenario, cuda_graph: Settings) -> None:
    result = scenario("graphs_that_are_refused", says=("no CUDA graph", "a CUDA graph needs"), **cuda_graph)
    found = result["found"]
    assert found.keys() == REFUSALS.keys()
    for name, reason in REFUSALS.items():
        (line,) = found[name]["said"]
        assert line.endswith(f"{reason}{NOTE}"), name
        assert found[name]["apart"] <= SAME_ATOL, name
        assert found[name]["held"] == {}, name
        assert found[name]["replays"] == 0, name
    assert result["faults"] == []


def test_whatever_call_fails_nothing_stays_behind(scenario: Scenario, cuda_graph: Settings) -> None:
    says = ("no CUDA graph of a batch: ", "the GPU failed to close the engine: cuCtxSynchronize")
    result = scenario("every_call_fails_once", says=says, **cuda_graph)
    assert result["wrong"] == []
    assert result["faults"] == []
    assert len(result["outcomes"]) > 90
    assert result["outcomes"].count("passed") > 15  # calls without which batches are launched plainly
    assert result["outcomes"][-1] == "passed"


def test_other_threads_go_on_while_one_records(scenario: Scenario, cuda_graph: Settings) -> None:
    """One allocates and copies; one has failed, and waits with the look at the whole device that would spoil it."""
    result = scenario("recording_beside_other_threads", **cuda_graph)
    assert result["apart"] <= SAME_ATOL
    assert result["replays"] == 1
    assert result["waited"] == [True]
    assert result["graphs"] == [0, 1]  # while another engine is loaded nothing is recorded, and after that it is
    assert result["said"] == "EngineError: this alone is what is said"
    assert result["faults"] == []


def test_a_device_lost_in_a_replay_is_lost_and_not_called_a_refusal(scenario: Scenario, cuda_graph: Settings) -> None:
    lost = "the GPU is lost to this process (cuCtxSynchronize failed: an illegal memory access was encountered; "
    result = scenario("lost_in_a_replay", says=lost, **cuda_graph)
    assert result["said"].startswith(f"EngineError: {lost}")
    assert [line for line in result["log"] if "CUDA graph" in line] == []


def test_a_fresh_process_takes_over_and_records_too(scenario: Scenario, cuda_graph: Settings) -> None:
    result = scenario("lost_device", says="the GPU is lost to this process", **cuda_graph)
    assert len(result["differences"]) == 8
    assert max(result["differences"]) <= SAME_ATOL


SEEN: dict[str, dict[str, Any]] = {
    "none": {},
    "the graph of the other slot": {"off": True},
    "the graph of another number of images": {"off": True},
    "recorded from the context that is used for others": {
        "faults": ["what is replayed was recorded from an execution context that has changed"]
    },
    "recorded before the first execution": {"replays": False},
    "a recording that failed is not ended": {
        "off": True,
        "replays": False,
        "faults": ["a stream was destroyed while it was captured"],
        "held": ["device_allocations", "host_allocations"],
    },
    "the recording is not freed": {"held": ["graphs"]},
    "the graphs are not freed": {"held": ["graph_execs"]},
    "the graph does not wait for its input": {"off": True},
    "the way back does not wait for the graph": {"off": True},
}


def test_wrong_graphs_are_seen(scenario: Scenario, cuda_graph: Settings) -> None:
    says = ("PyCUDA WARNING", "cuMemFree", "the GPU failed to")  # of what is not ended
    seen = scenario("wrong_graphs", says=says, EMULATED_CUDA_ORDER="late", **cuda_graph)["seen"]
    right = {"off": False, "faults": [], "replays": True, "held": []}
    assert seen == {name: right | changes for name, changes in SEEN.items()}


INVALIDATED = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
PERMITTED = ["no error", "CUDA_SUCCESS"]
FORBIDDEN = "failed: operation not permitted when stream is capturing"


def test_the_emulated_driver_keeps_the_rules_of_capturing(scenario: Scenario, cuda_graph: Settings) -> None:
    result = scenario("rules_of_capturing", **cuda_graph)
    assert result["said"] == {
        "a copy": PERMITTED,
        "fork and join": PERMITTED,
        "fork without join": ["no error", "CUDA_ERROR_STREAM_CAPTURE_UNJOINED"],
        "waiting for the stream": [f"cuStreamSynchronize {FORBIDDEN}", INVALIDATED],
        "asking the stream": [f"cuStreamQuery {FORBIDDEN}", INVALIDATED],
        "waiting for a captured event": [
            "cuEventSynchronize failed: operation not permitted on an event last recorded in a capturing stream",
            INVALIDATED,
        ],
        "waiting for the device": [f"cuCtxSynchronize {FORBIDDEN}", INVALIDATED],
        "an event from outside": [
            "cuStreamWaitEvent failed: dependency created on uncaptured work in another stream",
            INVALIDATED,
        ],
        "memory": [f"cuMemAlloc {FORBIDDEN}", INVALIDATED],
        "memory in another thread": PERMITTED,
        "memory in another thread, mode global": [f"cuMemAlloc {FORBIDDEN}", INVALIDATED],
        "memory, mode relaxed": PERMITTED,
        "the default stream": PERMITTED,
        "the default stream beside a blocking one": [
            "cuMemcpyHtoD failed: operation would make the legacy stream depend on a capturing blocking stream",
            INVALIDATED,
        ],
    }
    assert result["results"] == [[255] * 4, [5] * 4, [9] * 4]  # captured work is not done before the graph is launched
    assert result["counted"] == {"captures": 0, "graphs": 1, "graph_execs": 1, "graph_launches": 2}
    assert result["ended"] == ["CUDA_SUCCESS"] * 2 + ["CUDA_ERROR_INVALID_VALUE"] * 2 + ["CUDA_ERROR_ILLEGAL_STATE"]
    assert result["held"] == {}
    assert result["faults"] == []
