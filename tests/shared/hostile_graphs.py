"""Graphs whose hash fits and that no engine should see: operators with sizes that nothing has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

SIZES = (
    -(2**63),
    -(2**40),
    -(2**31) - 1,
    -(2**31),
    -(10**9),
    -65537,
    10**6,
    10**9,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**62,
)
"""Thirteen, for what is a size, a position, an axis or a count."""

Part = tuple[list[NodeProto], dict[str, Any]]
"""Nodes that make the tensor `w` of `patch_map`, and their constants by name."""


def _node(kind: str, inputs: list[str], constants: dict[str, Any] | None = None, **attributes: Any) -> Part:
    outputs = ["w", "w_further"] if kind == "TopK" else ["w"]
    return [helper.make_node(kind, inputs, outputs, "hostile", **attributes)], constants or {}


def _ints(*values: int) -> Any:
    return np.array(values, np.int64)


def _attribute(kind: str, name: str, *inputs: str, **others: Any) -> Callable[[int], Part]:
    return lambda size: _node(kind, ["patch_map", *inputs], {}, **{name: size}, **others)


def _windows(
    kind: str, name: str, inputs: list[str], constants: dict[str, Any], **others: Any
) -> Callable[[int], Part]:
    def make(size: int) -> Part:
        count = 4 if name == "pads" else 2
        given = {**others, name: [size] * count}
        nodes, held = _node(kind, ["pictures", *inputs], constants, **given)
        lift = helper.make_node("Unsqueeze", ["patch_map", "channel"], ["pictures"], "lift")
        return [lift, *nodes], held | {"channel": _ints(1)}

    return make


def _one(
    kind: str, name: str, *before: int, after: tuple[int, ...] = (), dtype: Any = np.int64
) -> Callable[[int], Part]:
    """An operator whose second input is a list of numbers with the size in it."""

    def make(size: int) -> Part:
        return _node(kind, ["patch_map", name], {name: _ints(*before, size)})

    return make


def _resize(size: int) -> Part:
    lift = helper.make_node("Unsqueeze", ["patch_map", "channel"], ["pictures"], "lift")
    nodes = [lift, helper.make_node("Resize", ["pictures", "", "", "sizes"], ["w"], "hostile", mode="nearest")]
    return nodes, {"channel": _ints(1), "sizes": _ints(1, 1, size, 16)}


_KERNEL = np.ones((1, 1, 3, 3), np.float32)
OPERATORS: dict[str, Callable[[int], Part]] = {
    "GatherND": lambda size: _node("GatherND", ["patch_map", "i"], {"i": np.array([[0, size, 0]], np.int64)}),
    "Gather": lambda size: _node("Gather", ["patch_map", "i"], {"i": _ints(size)}, axis=1),
    "GatherElements": lambda size: _node(
        "GatherElements", ["patch_map", "i"], {"i": np.array([[[size]]], np.int64)}, axis=1
    ),
    "ScatterElements": lambda size: _node(
        "ScatterElements",
        ["patch_map", "i", "u"],
        {"i": np.array([[[size]]], np.int64), "u": np.ones((1, 1, 1), np.float32)},
        axis=1,
    ),
    "ScatterND": lambda size: _node(
        "ScatterND", ["patch_map", "i", "u"], {"i": np.array([[0, size, 0]], np.int64), "u": np.ones(1, np.float32)}
    ),
    "Slice": lambda size: _node(
        "Slice", ["patch_map", "from", "to", "axis"], {"from": _ints(size), "to": _ints(size + 1), "axis": _ints(1)}
    ),
    "Split": lambda size: _node("Split", ["patch_map", "parts"], {"parts": _ints(size)}, axis=1),
    "Reshape": _one("Reshape", "shape", 1),
    "Expand": _one("Expand", "shape", 1, 16),
    "Tile": _one("Tile", "times", 1, 1),
    "ConstantOfShape": lambda size: _node("ConstantOfShape", ["shape"], {"shape": _ints(size)}),
    "Range": lambda size: _node("Range", ["a", "b", "c"], {"a": np.int64(0), "b": np.int64(size), "c": np.int64(1)}),
    "Resize": _resize,
    "Pad": lambda size: _node("Pad", ["patch_map", "pads"], {"pads": _ints(0, size, 0, 0, 0, 0)}),
    "TopK": _one("TopK", "k"),
    "OneHot": lambda size: _node(
        "OneHot", ["patch_map", "depth", "v"], {"depth": np.int64(size), "v": np.array([0, 1], np.float32)}
    ),
    "CumSum": lambda size: _node("CumSum", ["patch_map", "axis"], {"axis": np.int64(size)}),
    "Squeeze": _one("Squeeze", "axes"),
    "Unsqueeze": _one("Unsqueeze", "axes"),
    "ReduceSum": _one("ReduceSum", "axes"),
    "Conv": _windows("Conv", "pads", ["kernel"], {"kernel": _KERNEL}),
    "ConvTranspose": _windows("ConvTranspose", "strides", ["kernel"], {"kernel": _KERNEL}),
    "MaxPool": _windows("MaxPool", "kernel_shape", [], {}),
    "AveragePool": _windows("AveragePool", "strides", [], {}, kernel_shape=[2, 2]),
    "Transpose": lambda size: _node("Transpose", ["patch_map"], perm=[0, size, 1]),
    "Concat": _attribute("Concat", "axis", "patch_map"),
    "ReduceMax": lambda size: _node("ReduceMax", ["patch_map"], axes=[size]),
    "Softmax": _attribute("Softmax", "axis"),
    "ArgMax": _attribute("ArgMax", "axis"),
    "Flatten": _attribute("Flatten", "axis"),
    "DepthToSpace": _attribute("DepthToSpace", "blocksize"),
    "Shape": _attribute("Shape", "start"),
    "Cast": _attribute("Cast", "to"),
    "EyeLike": _attribute("EyeLike", "k"),
}
"""Thirty-four operators, each as a function of a size."""


@dataclass(frozen=True)
class Hostile:
    """A graph and what is wrong with it."""

    operator: str
    size: int
    graph: bytes


def hostile_graphs(graph: bytes) -> Iterator[Hostile]:
    """Every operator with every size, behind the patch map of a sound graph, its score made of it too."""
    for operator, part in OPERATORS.items():
        for size in SIZES:
            yield Hostile(operator, size, with_part(graph, part(size)))


def with_part(graph: bytes, part: Part) -> bytes:
    """A graph whose score depends on a tensor `w` as well."""
    model = onnx.load_model_from_string(graph)
    nodes, constants = part
    last = next(node for node in model.graph.node if "pred_score" in node.output)
    last.output[0] = "score_before"
    own = {name: f"own_{name}" for name in (*constants, "tiny")}
    constants = {own[name]: value for name, value in {**constants, "tiny": np.array(1e-9, np.float32)}.items()}
    for node in nodes:
        node.input[:] = [own.get(name, name) for name in node.input]
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items())
    model.graph.node.extend(nodes)
    model.graph.node.append(helper.make_node("Cast", ["w"], ["w_float"], to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("ReduceMax", ["w_float"], ["w_max"], keepdims=0))
    model.graph.node.append(helper.make_node("Mul", ["w_max", "own_tiny"], ["w_tiny"]))
    model.graph.node.append(helper.make_node("Add", ["score_before", "w_tiny"], ["pred_score"]))
    return bytes(model.SerializeToString())


def per_picture(graph: bytes, part: Part) -> bytes:
    """The same as `with_part`, with a score for each picture of a batch."""
    model = onnx.load_model_from_string(with_part(graph, part))
    reduce = next(node for node in model.graph.node if "w_max" in node.output)
    reduce.op_type = "Mul"
    del reduce.attribute[:]
    reduce.input[:] = ["score_before", "own_tiny"]
    return bytes(model.SerializeToString())
