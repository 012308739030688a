"""Operators that give an element for each element."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from edge_ad.bundle.graph.known import (
    FLOATS,
    INTEGERS,
    MOST_FOLLOWED,
    Batch,
    Known,
    RuleError,
    axis_of,
    broadcast,
    each,
    followed,
    is_constant,
    minus,
    not_batch,
    over,
    plain_numbers,
    plus,
    rest,
    times,
    volume,
    within,
)
from edge_ad.bundle.graph.model import BOOL, INT8, ITEM_BYTES, TYPE_NAMES, UINT8, Node
from edge_ad.bundle.graph.model import FLOAT as FLOAT32
from edge_ad.bundle.graph.operation import FLOAT, INT, Inputs, Operator, Rule, flag

_MOST_ALPHA = 1e6
MOST_EXACT = 1 << 24  # up to here every whole number is a float32


def typed(node: Node, inputs: Inputs, types: tuple[int, ...]) -> list[Known]:
    """The inputs that are there, all of one type. Raises: RuleError."""
    found = [source for source in inputs if source is not None]
    kinds = {source.dtype for source in found}
    if len(kinds) != 1 or not kinds <= set(types):
        wanted = " or ".join(TYPE_NAMES[kind] for kind in types)
        raise RuleError(node, f"wanted {wanted} and one type, got {' and '.join(map(str, found))}")
    return found


def _same(types: tuple[int, ...]) -> Rule:
    def rule(node: Node, inputs: Inputs) -> list[Known]:
        (source,) = typed(node, inputs, types)
        if any(abs(value) > _MOST_ALPHA for value in node.attributes.values() if isinstance(value, float)):
            raise RuleError(node, f"attributes {dict(node.attributes)}, which no network has")
        return [Known(source.dtype, source.shape, constant=source.constant)]

    return rule


def _binary(function: Callable[[Any, Any], Any], types: tuple[int, ...]) -> Rule:
    def rule(node: Node, inputs: Inputs) -> list[Known]:
        first, second = typed(node, inputs, types)
        divides = node.operator in ("Div", "Mod") and first.dtype in INTEGERS
        if divides and (second.span is None or second.span[0] < 1):
            raise RuleError(node, "divides whole numbers by what may be zero")
        shape = broadcast(node, [first.shape, second.shape])
        constant = is_constant(inputs)
        whole = first.dtype in INTEGERS  # what is computed of other numbers depends on how they are rounded
        few = volume(shape)[0] <= MOST_FOLLOWED
        if whole and few and first.elements is not None and second.elements is not None:
            return [followed(first.dtype, each(function, first.elements, second.elements), constant=constant)]
        return [Known(first.dtype, shape, span=_sum_span(node, first, second), constant=constant)]

    return rule


def _sum_span(node: Node, first: Known, second: Known) -> tuple[int, int] | None:
    """Least and greatest sum of whole numbers, where those of both are known."""
    if node.operator != "Add" or first.span is None or second.span is None:
        return None
    return within(first.dtype, (first.span[0] + second.span[0], first.span[1] + second.span[1]))


def _mod(node: Node, inputs: Inputs) -> list[Known]:
    if flag(node, "fmod", 0):
        raise RuleError(node, "attribute 'fmod': wanted 0")
    return _binary(rest, INTEGERS)(node, inputs)


def _cast(node: Node, inputs: Inputs) -> list[Known]:
    source = inputs[0]
    assert source is not None
    wanted = node.attributes.get("to")
    if wanted not in ITEM_BYTES or "to" not in node.attributes:
        raise RuleError(node, f"attribute 'to': type {wanted}, wanted one of {', '.join(TYPE_NAMES.values())}")
    if source.elements is not None and wanted in (*INTEGERS, FLOAT32):
        return [followed(wanted, each(_exact, source.elements), constant=source.constant)]
    return [Known(wanted, source.shape, span=within(wanted, source.span), constant=source.constant)]


def _exact(value: Any) -> Any:
    """A number that is the same as a whole one and as a float."""
    if isinstance(value, Batch):
        return value
    whole = isfinite(value) and abs(value) <= MOST_EXACT and value == int(value)
    return int(value) if whole else None


def _identity(_: Node, inputs: Inputs) -> list[Known]:
    source = inputs[0]
    assert source is not None
    return [Known(source.dtype, source.shape, source.elements, source.span, source.constant)]


def _clip(node: Node, inputs: Inputs) -> list[Known]:
    source, *limits = typed(node, inputs, FLOATS)
    if any(limit.shape not in ((), (1,)) for limit in limits):
        raise RuleError(node, f"limits {' and '.join(map(str, limits))}, wanted single numbers")
    return [Known(source.dtype, source.shape, constant=is_constant(inputs))]


def _cumulative(node: Node, inputs: Inputs) -> list[Known]:
    (source,) = typed(node, inputs[:1], (*FLOATS, *INTEGERS))
    axes = plain_numbers(node, inputs[1], "axis")
    if len(axes) != 1:
        raise RuleError(node, f"axis {axes}, wanted one number")
    not_batch(node, source, axis_of(node, axes[0], source.rank), "adds along")
    flag(node, "exclusive", 0), flag(node, "reverse", 0)
    return [Known(source.dtype, source.shape, constant=source.constant)]


def _softmax(node: Node, inputs: Inputs) -> list[Known]:
    (source,) = typed(node, inputs, FLOATS)
    axis = node.attributes.get("axis", -1)
    not_batch(node, source, axis_of(node, axis, source.rank), "compares along")
    return [Known(source.dtype, source.shape, constant=source.constant)]


def _quantize(node: Node, inputs: Inputs) -> list[Known]:
    source, scale, zero = (*inputs, None)[:3]
    typed(node, [source, scale], FLOATS)
    return [_in_steps(node, source, scale, zero, UINT8 if zero is None else zero.dtype)]


def _dequantize(node: Node, inputs: Inputs) -> list[Known]:
    source, scale, zero = (*inputs, None)[:3]
    assert source is not None and scale is not None
    if source.dtype not in (INT8, UINT8) or (zero is not None and zero.dtype != source.dtype):
        raise RuleError(node, f"wanted int8 or uint8 and a zero of that type, got {source}")
    typed(node, [scale], FLOATS)
    return [_in_steps(node, source, scale, zero, scale.dtype)]


def _in_steps(node: Node, source: Known | None, scale: Known | None, zero: Known | None, dtype: int) -> Known:
    assert source is not None and scale is not None
    if not is_constant([scale, zero]) or (zero is not None and zero.shape != scale.shape):
        raise RuleError(node, "wanted a constant scale and a zero of its shape")
    if dtype not in (INT8, UINT8, *FLOATS):
        raise RuleError(node, f"gives {TYPE_NAMES[dtype]}, wanted int8 or uint8")
    if scale.shape not in ((), (1,)):
        axis = axis_of(node, node.attributes.get("axis", 1), source.rank)
        if scale.shape != (not_batch(node, source, axis, "has steps along"),):
            raise RuleError(node, f"scale {scale} for axis {axis} of {source}")
    return Known(dtype, source.shape, constant=source.constant)


_numbers = (*FLOATS, *INTEGERS)
OPERATORS: Mapping[str, Operator] = {
    **{
        name: Operator(_same(FLOATS), (1, 1))
        for name in ("Relu", "Sigmoid", "Erf", "Exp", "Log", "Sqrt", "HardSwish", "Sin", "Cos")
    },
    "LeakyRelu": Operator(_same(FLOATS), (1, 1), {"alpha": FLOAT}),
    "HardSigmoid": Operator(_same(FLOATS), (1, 1), {"alpha": FLOAT, "beta": FLOAT}),
    "Not": Operator(_same((BOOL,)), (1, 1)),
    "Add": Operator(_binary(plus, _numbers), (2, 2)),
    "Sub": Operator(_binary(minus, _numbers), (2, 2)),
    "Mul": Operator(_binary(times, _numbers), (2, 2)),
    "Div": Operator(_binary(over, _numbers), (2, 2)),
    "Mod": Operator(_mod, (2, 2), {"fmod": INT}),
    "Pow": Operator(_binary(lambda a, b: None, FLOATS), (2, 2)),
    "Cast": Operator(_cast, (1, 1), {"to": INT}),
    "Identity": Operator(_identity, (1, 1)),
    "Clip": Operator(_clip, (1, 3)),
    "CumSum": Operator(_cumulative, (2, 2), {"exclusive": INT, "reverse": INT}),
    "Softmax": Operator(_softmax, (1, 1), {"axis": INT}),
    "QuantizeLinear": Operator(_quantize, (2, 3), {"axis": INT}),
    "DequantizeLinear": Operator(_dequantize, (2, 3), {"axis": INT}),
}
