"""Real engines, built by TensorRT-RTX on a machine without a GPU."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.runtime.engines.tensorrt.builder.payload import describe_payload, plan_payload

pytestmark = pytest.mark.rung(3)

Builds = Callable[..., list[dict[str, Any]]]
PRECISIONS = ("fp32", "fp16", "int8")
ELEMENT = {"fp32": "float", "fp16": "half", "int8": "int8"}
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
PADDED = 1.05
"""Most that kernels may pad the weights to; measured 1.004 (fp32) to 1.011 (int8)."""
LEFT_FLOAT = 0.05
"""Most that biases, scales, the layers left in float and the resize operators may take, of the float weights' bytes.

Measured 0.003 (fp16) and 0.009 (int8).
"""


@pytest.fixture(scope="module")
def fixed_batch(three_precisions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same graphs for batches of two and nothing else."""
    bundle = Bundle.read(three_precisions)
    files = {}
    for name in bundle.manifest.models.values():
        model = onnx.load_model_from_string(bundle.read_file(name))
        for tensor in (*model.graph.input, *model.graph.output):
            tensor.type.tensor_type.shape.dim[0].dim_value = 2
        files[name] = model.SerializeToString()
    manifest = bundle.manifest
    image, *outputs = (replace(tensor, shape=(2, *tensor.shape[1:])) for tensor in (manifest.input, *manifest.outputs))
    path = tmp_path_factory.mktemp("bundle") / "two.edgead"
    return write_changed(bundle, path, {"input": image, "outputs": outputs}, files=files).path


@pytest.fixture(scope="module")
def engines(three_precisions: Path, fixed_batch: Path, build_engines: Builds, engine_cache: Path) -> dict[Any, Any]:
    """What came of each: (precision, SM, batch) → result; batch 4 of the open graph, batch 2 of the fixed one."""
    bundles = {4: three_precisions, 2: fixed_batch}
    wanted = [*product(PRECISIONS, ("86", "89"), (4, 2)), ("int8", "86,89", 4)]
    results = build_engines(
        *(
            {
                "bundle": bundles[batch],
                "flavour": "rtx",
                "sm": sm,
                "precision": precision,
                "batch": batch,
                "engine_cache": engine_cache,
            }
            for precision, sm, batch in wanted
        )
    )
    return dict(zip(wanted, results, strict=True))


@pytest.mark.parametrize("batch", [4, 2], ids=["dynamic", "static"])
@pytest.mark.parametrize("sm", ["86", "89"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_plan_holds_what_the_graph_says(
    precision: str, sm: str, batch: int, engines: dict[Any, Any], three_precisions: Path
) -> None:
    built = engines[precision, sm, batch]
    assert "error" not in built and built["notes"] == []
    model = onnx.load(three_precisions / "model.onnx")
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    weights = [prod(shapes[node.input[1]]) for node in model.graph.node if node.op_type == "Conv"]
    quantized = sum(weights[:-1]) if precision == "int8" else sum(weights)
    payload = plan_payload(Path(built["path"]).read_bytes())
    assert payload == built["payload"]
    assert next(iter(payload)) == ELEMENT[precision]  # the largest is first
    assert quantized * BYTES[precision] <= payload[ELEMENT[precision]] <= PADDED * sum(weights) * BYTES[precision]
    if precision != "fp32":
        assert payload["float"] <= LEFT_FLOAT * 4 * sum(weights)


def test_the_float_plan_holds_no_int8(engines: dict[Any, Any]) -> None:
    """Control: the same reading of the plan tells the two apart."""
    for precision, sm, batch in engines:
        if precision != "int8":
            assert "int8" not in engines[precision, sm, batch]["payload"]


def test_the_sidecar_says_what_it_was_built_for(engines: dict[Any, Any]) -> None:
    import tensorrt_rtx

    path = Path(engines["int8", "86,89", 4]["path"])
    fingerprint = json.loads(path.with_suffix(".json").read_text())["fingerprint"]
    assert fingerprint["sm"] == [86, 89] and fingerprint["gpu"] is None
    assert (fingerprint["flavour"], fingerprint["version"]) == ("rtx", tensorrt_rtx.__version__)
    assert [fingerprint[f"batch_{which}"] for which in ("min", "best", "max")] == [1, 4, 4]
    static = Path(engines["int8", "86", 2]["path"])
    fingerprint = json.loads(static.with_suffix(".json").read_text())["fingerprint"]
    assert [fingerprint[f"batch_{which}"] for which in ("min", "best", "max")] == [2, 2, 2]


def test_an_engine_that_ends_at_the_patch_map(
    three_precisions: Path, build_engines: Builds, engines: dict[Any, Any], tmp_path: Path
) -> None:
    """It holds the weights of the whole one, and can be built for SM75, where float32 matrix products cannot."""
    wanted = [("fp32", "75"), ("int8", "75"), ("fp32", "86"), ("int8", "86")]
    common = {"bundle": three_precisions, "flavour": "rtx", "batch": 4, "tail": "kernel", "engine_cache": tmp_path}
    built = build_engines(*({"precision": precision, "sm": sm, **common} for precision, sm in wanted))
    for (precision, sm), result in zip(wanted, built, strict=True):
        assert "error" not in result
        fingerprint = json.loads(Path(result["path"]).with_suffix(".json").read_text())["fingerprint"]
        assert (fingerprint["sm"], fingerprint["flags"]) == ([int(sm)], ["kernel-tail"])
        if sm == "86":
            whole = engines[precision, sm, 4]["payload"]
            assert result["payload"].get("int8", 0) == whole.get("int8", 0)
            assert 0 < result["payload"]["float"] < whole["float"]  # without the matrices that resize and smooth


def test_progress_is_reported_and_ends(engines: dict[Any, Any]) -> None:
    for built in engines.values():
        assert built["phases"] > 5 and built["steps"] > built["phases"] and built["open_phases"] == 0


def test_refusals_name_the_reason(three_precisions: Path, build_engines: Builds, tmp_path: Path) -> None:
    bundle = Bundle.read(three_precisions)
    rubbish = write_changed(bundle, tmp_path / "rubbish.edgead", {}, files={"model.onnx": b"no ONNX at all"}).path
    model = onnx.load_model_from_string(bundle.read_file("model.onnx"))
    node = next(node for node in model.graph.node if node.op_type == "Sigmoid")
    node.op_type = "Gaussianish"
    unknown = write_changed(
        bundle, tmp_path / "unknown.edgead", {}, files={"model.onnx": model.SerializeToString()}
    ).path
    common = {"flavour": "rtx", "precision": "fp32", "engine_cache": tmp_path / "engines"}
    refused = build_engines(
        {"bundle": three_precisions, "sm": "75", **common},
        {"bundle": rubbish, "sm": "86", **common},
        {"bundle": unknown, "sm": "86", **common},
        {"bundle": three_precisions, "sm": "86", "workspace": 1, **common},
        {"bundle": three_precisions, "sm": "86", **common, "precision": "int8", "batch": 4},  # one that is taken
    )
    words = (
        ("EngineError", "cannot build fp32 for SM75: .*FP32 GEMM.*; --tail kernel leaves"),
        ("BundleError", "no engine is given model.onnx"),  # nor is a builder
        ("BundleError", f"node {node.name!r} \\(Gaussianish\\): this operator is not among"),
        ("EngineError", "workspace limit"),
    )
    for result, (kind, pattern) in zip(refused, words, strict=False):
        assert result["kind"] == kind
        assert re.search(pattern, result["error"]), result["error"]
        assert "\n" not in result["error"] and "/_src/" not in result["error"]
    assert "error" not in refused[-1]
    assert len(list((tmp_path / "engines").glob("*.plan"))) == 1


def test_sizes_in_words() -> None:
    assert (
        describe_payload({"int8": 26_520_000, "float": 412_000, "half": 840})
        == "int8 26.5 MB, float 0.4 MB, half 0.8 kB"
    )
    assert plan_payload(b"no text of a plan") == {}
