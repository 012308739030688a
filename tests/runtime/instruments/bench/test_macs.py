"""Multiply-accumulates of graphs that can be counted by hand, and of ours against another count."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_ad.errors import EngineError
from edge_ad.runtime.instruments.bench.macs import Macs, graph_macs

BENCHMARKS = Path(__file__).resolve().parents[4] / "benchmarks"


def graph(nodes: list[Any], shape: Sequence[int], weights: dict[str, tuple[int, ...]]) -> bytes:
    """A graph from `x` to `y` whose weights are random."""
    rng = np.random.default_rng(0)
    made = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), name) for name, s in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "attributes", "shape", "weight", "expected"),
    [
        ("Conv", {"pads": [1, 1, 1, 1]}, (1, 3, 8, 6), (5, 3, 3, 3), 5 * 8 * 6 * 3 * 9),
        ("Conv", {"strides": [2, 2]}, (1, 3, 9, 9), (5, 3, 3, 3), 5 * 4 * 4 * 3 * 9),
        ("Conv", {"dilations": [2, 2]}, (1, 3, 9, 9), (5, 3, 3, 3), 5 * 5 * 5 * 3 * 9),
        ("Conv", {"group": 6, "pads": [1, 1, 1, 1]}, (1, 6, 8, 8), (6, 1, 3, 3), 6 * 64 * 9),
        ("Conv", {"group": 2}, (1, 6, 8, 8), (4, 3, 1, 1), 4 * 64 * 3),
        ("Conv", {}, (3, 6, 8, 8), (4, 6, 1, 1), 3 * 4 * 64 * 6),
        ("ConvTranspose", {"strides": [2, 2]}, (1, 4, 5, 5), (4, 7, 2, 2), 25 * 4 * 7 * 4),
        ("ConvTranspose", {"group": 2}, (1, 4, 5, 5), (4, 3, 2, 2), 25 * 4 * 3 * 4),
        ("MatMul", {}, (2, 10, 7), (7, 4), 2 * 10 * 7 * 4),
        ("Gemm", {"transB": 1}, (3, 7), (4, 7), 3 * 7 * 4),
    ],
)
def test_a_layer_is_counted_as_by_hand(
    kind: str, attributes: dict[str, Any], shape: tuple[int, ...], weight: tuple[int, ...], expected: int
) -> None:
    node = helper.make_node(kind, ["x", "w"], ["y"], **attributes)
    assert graph_macs(graph([node], shape, {"w": weight}), shape) == Macs(expected)


def test_a_product_with_a_constant_on_its_left_is_counted_by_what_is_summed_over() -> None:
    node = helper.make_node("MatMul", ["w", "x"], ["y"])
    assert graph_macs(graph([node], (1, 8, 5), {"w": (20, 8)}), (1, 8, 5)) == Macs(20 * 8 * 5)


def test_what_does_not_depend_on_the_image_is_not_counted() -> None:
    nodes = [helper.make_node("MatMul", ["a", "b"], ["c"]), helper.make_node("MatMul", ["x", "c"], ["y"])]
    assert graph_macs(graph(nodes, (1, 4), {"a": (4, 100), "b": (100, 4)}), (1, 4)) == Macs(16)


def test_multiplications_of_other_layers_are_named() -> None:
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="ij,jk->ik")
    assert graph_macs(graph([node], (3, 7), {"w": (7, 4)}), (3, 7)).not_counted == ("Einsum",)


def test_the_count_is_a_whole_number_beyond_what_a_float_can_hold() -> None:
    side, batch = 3001, 10**7 + 1
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Conv", ["z", "v"], ["y"])]
    data = graph(nodes, (1, 3, side, side), {"w": (101, 3, 1, 1), "v": (2, 101, 1, 1)})
    counted = graph_macs(data, (batch, 3, side, side)).count
    assert counted == batch * side * side * (101 * 3 + 2 * 101)
    assert int(float(counted)) != counted


def test_our_graph_has_as_many_as_the_other_count_finds(disc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sys.modules.pop("folded_vs_plain", None)
    from folded_vs_plain import giga_macs  # type: ignore[import-not-found]

    data = (disc / "model.onnx").read_bytes()
    counted = graph_macs(data, (1, 256, 256, 3)).count
    assert counted == round(giga_macs(data) * 1e9) == 165_494_784
    assert graph_macs(data, (4, 256, 256, 3)).count == 4 * counted


def test_an_int8_graph_has_as_many_as_the_float_one(three_precisions: Path) -> None:
    counts = {
        name: graph_macs((three_precisions / name).read_bytes(), (1, 64, 64, 3)).count
        for name in ("model.onnx", "model.fp16.onnx", "model.int8.onnx")
    }
    assert len(set(counts.values())) == 1 and counts["model.onnx"] > 1_000_000


def test_a_graph_that_cannot_be_read_is_one_line() -> None:
    with pytest.raises(EngineError, match="cannot find the shapes"):
        graph_macs(b"no graph", (1, 3, 8, 8))
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    with pytest.raises(EngineError):
        graph_macs(graph([node], (1, 7), {"w": (7, 4)}), (1, 8))
