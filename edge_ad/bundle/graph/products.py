"""Operators that bring many elements together: matrix products, normalisation, reductions, and choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_ad.bundle.graph.elementwise import typed
from edge_ad.bundle.graph.known import (
    FLOATS,
    INTEGERS,
    Known,
    RuleError,
    Shape,
    axes_of,
    axis_of,
    broadcast,
    checked,
    is_constant,
    not_batch,
    plain_numbers,
)
from edge_ad.bundle.graph.model import INT64, Node
from edge_ad.bundle.graph.operation import FLOAT, INT, INTS, Inputs, Operator, flag


def _matmul(node: Node, inputs: Inputs) -> list[Known]:
    left, right = typed(node, inputs, FLOATS)
    if min(left.rank, right.rank) < 2:
        raise RuleError(node, f"wanted matrices, got {left} and {right}")
    inner = not_batch(node, left, left.rank - 1, "adds along")
    if right.shape[-2] != inner:
        raise RuleError(node, f"{left} times {right}: sizes differ")
    stacked = broadcast(node, [left.shape[:-2], right.shape[:-2]]) if max(left.rank, right.rank) > 2 else ()
    shape = checked(node, (*stacked, left.shape[-2], right.shape[-1]))
    return [Known(left.dtype, shape, constant=is_constant(inputs))]


def _inner(_: Node, inputs: Sequence[Known]) -> int:
    size = inputs[0].shape[-1]
    return size if isinstance(size, int) else 1


def _layer_norm(node: Node, inputs: Inputs) -> list[Known]:
    source, *values = typed(node, inputs, FLOATS)
    axis = axis_of(node, node.attributes.get("axis", -1), source.rank)
    for other in range(axis, source.rank):
        not_batch(node, source, other, "normalises along")
    if node.attributes.get("stash_type", 1) != 1 or not 0 <= node.attributes.get("epsilon", 1e-5) <= 1:
        raise RuleError(node, f"attributes {dict(node.attributes)}")
    if not is_constant(values) or any(value.shape != source.shape[axis:] for value in values):
        raise RuleError(node, f"{' and '.join(map(str, values))} for {source} from axis {axis} on")
    return [Known(source.dtype, source.shape, constant=source.constant)]


def _reduced(node: Node, source: Known, axes: Sequence[int]) -> Shape:
    for axis in axes:
        not_batch(node, source, axis, "brings together")
    kept = flag(node, "keepdims", 1)
    shape = [1 if axis in axes else size for axis, size in enumerate(source.shape) if kept or axis not in axes]
    return checked(node, shape)


def _reduce(node: Node, inputs: Inputs) -> list[Known]:
    (source,) = typed(node, inputs[:1], (*FLOATS, *INTEGERS))
    given = inputs[1] if len(inputs) > 1 else None
    if given is not None:
        wanted: Sequence[int] = plain_numbers(node, given, "axes")
    else:
        wanted = node.attributes.get("axes", range(source.rank))
    if flag(node, "noop_with_empty_axes", 0) or not wanted:
        raise RuleError(node, "wanted axes")
    shape = _reduced(node, source, axes_of(node, wanted, source.rank))
    return [Known(source.dtype, shape, constant=source.constant)]


def _best(node: Node, inputs: Inputs) -> list[Known]:
    (source,) = typed(node, inputs, FLOATS)
    axis = axis_of(node, node.attributes.get("axis", 0), source.rank)
    flag(node, "select_last_index", 0)
    size = not_batch(node, source, axis, "compares along")
    return [Known(INT64, _reduced(node, source, (axis,)), span=(0, size - 1), constant=source.constant)]


def _top(node: Node, inputs: Inputs) -> list[Known]:
    (source,) = typed(node, inputs[:1], FLOATS)
    axis = axis_of(node, node.attributes.get("axis", -1), source.rank)
    size, count = not_batch(node, source, axis, "compares along"), plain_numbers(node, inputs[1], "k")
    flag(node, "largest", 1), flag(node, "sorted", 1)
    if len(count) != 1 or not 1 <= count[0] <= size:
        raise RuleError(node, f"takes {count[:10]} of {size}")
    shape = (*source.shape[:axis], count[0], *source.shape[axis + 1 :])
    return [
        Known(source.dtype, shape, constant=source.constant),
        Known(INT64, shape, span=(0, size - 1), constant=source.constant),
    ]


_KEPT = {"axes": INTS, "keepdims": INT}
_CHOICE = {"axis": INT, "keepdims": INT, "select_last_index": INT}
OPERATORS: Mapping[str, Operator] = {
    "MatMul": Operator(_matmul, (2, 2), work=_inner),
    "LayerNormalization": Operator(_layer_norm, (2, 3), {"axis": INT, "epsilon": FLOAT, "stash_type": INT}),
    **{name: Operator(_reduce, (1, 1), _KEPT) for name in ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceL2")},
    "ReduceSum": Operator(_reduce, (1, 2), {"keepdims": INT, "noop_with_empty_axes": INT}),
    "ArgMax": Operator(_best, (1, 1), _CHOICE),
    "ArgMin": Operator(_best, (1, 1), _CHOICE),
    "TopK": Operator(_top, (2, 2), {"axis": INT, "largest": INT, "sorted": INT}, outputs=2),
}
