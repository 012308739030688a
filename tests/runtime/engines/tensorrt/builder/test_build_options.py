"""What `edge-ad build` can be told, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_ad.errors import ConfigError, EngineError, OutputError
from edge_ad.runtime.engines.tensorrt.builder import build
from edge_ad.runtime.engines.tensorrt.builder.build import SourceGraph, build_job, plan_job
from edge_ad.runtime.engines.tensorrt.builder.builder import Plan
from edge_ad.runtime.engines.tensorrt.builder.options import BuildOptions, build_options
from edge_ad.runtime.engines.tensorrt.builder.request import BatchRange

GRAPH = SourceGraph("int8", None, "0" * 64, lambda: b"onnx")
SOUND = {"bundle": "a.edgead", "flavour": "rtx", "sm": "86"}
INT8_TEXT = b"const_payload_size=4096 {f} name type=int8"
FLOAT_TEXT = b"const_payload_size=4096 {f} name type=float"


def options(**values: Any) -> BuildOptions:
    return build_options({**SOUND, **values}, "test")


@pytest.mark.parametrize("tail", ["graph", "kernel"])
def test_a_bundle_that_the_kernel_cannot_judge(tail: str) -> None:
    graph = replace(GRAPH, kernel_fault="the score 'top_mean' is none of its own")
    if tail == "graph":
        assert plan_job(graph, options(tail=tail)).request.tail == "graph"
        return
    with pytest.raises(ConfigError, match=r"tail: kernel is not for this bundle, .* is none of its own; take graph"):
        plan_job(graph, options(tail=tail))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the builder returns next; it gets no graph."""
    plans = [INT8_TEXT]
    monkeypatch.setattr(build, "build_plan", lambda *_: Plan(plans[0], ()))
    return plans


@pytest.mark.parametrize("text", ["86,89", "8.6,8.9", "sm_89, SM86", "89,86,86"])
def test_spellings_of_compute_capabilities(text: str) -> None:
    assert options(sm=text).sm == (86, 89)
    assert options(sm="120,12.1").sm == (120, 121)
    assert options(sm=86).sm == options(sm=8.6).sm == options(sm=[86]).sm == (86,)


@pytest.mark.parametrize(
    ("values", "faults"),
    [
        ({"sm": "ampere"}, ["sm: wanted compute capabilities such as 86,89"]),
        ({"sm": "86,,89"}, ["sm: wanted compute capabilities"]),
        ({"sm": "87"}, ["sm: TensorRT-RTX does not build for 87, wanted 75, 80, 86, 89, 120, 121"]),
        ({"flavour": "tensorrt"}, ["sm: TensorRT builds for the GPU that it runs on"]),
        ({"flavour": "openvino"}, ["flavour: wanted 'tensorrt' or 'rtx'"]),
        ({"batch": "0"}, ["batch: wanted a number above 0"]),
        ({"batch": "2", "optimum": "3"}, ["optimum: 3 is more than --batch 2"]),
        ({"dla": "0"}, ["dla: TensorRT-RTX is for graphics cards"]),
        (
            {"dla": "0", "precision": "int8", "flavour": "tensorrt", "sm": None},
            ["dla: computes in fp16 alone, not int8"],
        ),
        ({"timing_cache": "t"}, ["timing_cache: TensorRT-RTX measures nothing"]),
        ({"hardware_compatible": True}, ["hardware_compatible: name the GPUs with --sm"]),
        ({"version_compatible": True}, ["version_compatible: TensorRT-RTX builds for its own"]),
        ({"device": "1"}, ["device: --sm says what to build for"]),
        ({"output": "a.plan", "engine_cache": "b"}, ["engine_cache: --output says where"]),
        ({"sm": True}, ["sm: wanted a list"]),
        ({"output": "a.json"}, ["output: what describes the engine gets the suffix .json"]),
        ({"workspace": "-1", "optimum": "x"}, ["workspace: wanted a number above 0", "optimum: wanted a whole number"]),
    ],
)
def test_faults_are_said_all_at_once(values: dict[str, Any], faults: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        options(**values)
    found = sorted(caught.value.faults)
    assert len(found) == len(faults), found
    for line, start in zip(found, sorted(faults), strict=True):
        assert line.startswith(start), line


def test_an_explicit_qdq_graph_is_refused_on_the_dla() -> None:
    chosen = build_options({"bundle": "a.edgead", "dla": "0"}, "test")
    with pytest.raises(ConfigError, match="an explicit Q/DQ graph not at all; got int8"):
        plan_job(GRAPH, chosen)


@pytest.mark.parametrize(
    ("fixed", "values", "wanted"),
    [
        (None, {}, BatchRange(1, 1, 1)),
        (None, {"batch": 8}, BatchRange(1, 8, 8)),
        (None, {"batch": 8, "optimum": 2}, BatchRange(1, 2, 8)),
        (None, {"optimum": 4}, BatchRange(1, 4, 4)),
        (2, {}, BatchRange(2, 2, 2)),
        (2, {"batch": 2}, BatchRange(2, 2, 2)),
    ],
)
def test_batches(fixed: int | None, values: dict[str, int], wanted: BatchRange, tensorrt_rtx: None) -> None:
    assert plan_job(replace(GRAPH, batch=fixed), options(**values)).request.batches == wanted


def test_another_batch_than_the_graph_has_fixed_is_refused(tensorrt_rtx: None) -> None:
    with pytest.raises(ConfigError, match="the graph takes batches of 2, wanted 4"):
        plan_job(replace(GRAPH, batch=2), options(batch=4))


def test_the_cache_keeps_one_plan_of_each_kind(tensorrt_rtx: None, compiled: list[bytes], tmp_path: Path) -> None:
    first = build_job(plan_job(GRAPH, options(engine_cache=tmp_path)))
    again = build_job(plan_job(GRAPH, options(engine_cache=tmp_path)))
    assert (first.from_cache, again.from_cache, again.path) == (False, True, first.path)
    assert again.payload == first.payload == {"int8": 4096}
    for values in ({"sm": "89"}, {"batch": 2}, {"tf32": True}, {"workspace": 1}):
        other = build_job(plan_job(GRAPH, options(engine_cache=tmp_path, **values)))
        assert not other.from_cache and other.path != first.path
    assert len(list(tmp_path.glob("*.plan"))) == 5
    first.path.write_bytes(b"damaged")
    assert not build_job(plan_job(GRAPH, options(engine_cache=tmp_path))).from_cache
    assert first.path.read_bytes() == INT8_TEXT
    compiled[0] = INT8_TEXT + b" anew"
    assert build_job(plan_job(GRAPH, options(engine_cache=tmp_path)), force=True).path.read_bytes() == compiled[0]


def test_int8_that_became_float_is_a_failure(tensorrt_rtx: None, compiled: list[bytes], tmp_path: Path) -> None:
    compiled[0] = FLOAT_TEXT
    with pytest.raises(EngineError, match=r"kept none of the int8 weights \(constants: float\); nothing was written"):
        build_job(plan_job(GRAPH, options(engine_cache=tmp_path)))
    assert list(tmp_path.iterdir()) == []
    build_job(plan_job(replace(GRAPH, precision="fp32"), options(engine_cache=tmp_path)))  # where float is meant


def test_a_file_that_is_another_engine_is_not_replaced_unasked(
    tensorrt_rtx: None, compiled: list[bytes], tmp_path: Path
) -> None:
    output = tmp_path / "engines" / "bottle.plan"
    job = plan_job(GRAPH, options(output=output))
    assert build_job(job).path == output and build_job(job).size_bytes == len(INT8_TEXT)
    assert plan_job(GRAPH, options(output=output)) == job  # the same one is welcome
    with pytest.raises(OutputError, match="exists and is not this engine; give --force"):
        plan_job(GRAPH, options(output=output, sm="89"))
    plan_job(GRAPH, options(output=output, sm="89", force=True))
    precious = tmp_path / "notes.json"
    precious.write_text("[]")
    with pytest.raises(OutputError, match=r"notes\.json exists"):
        plan_job(GRAPH, options(output=tmp_path / "notes.plan"))
    with pytest.raises(OutputError, match="is a folder"):
        plan_job(GRAPH, options(output=tmp_path))
