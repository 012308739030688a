"""Operators that move elements, and those that compute with shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_ad.bundle.graph.elementwise import typed
from edge_ad.bundle.graph.known import (
    INTEGERS,
    MOST_FOLLOWED,
    Batch,
    Known,
    RuleError,
    Shape,
    Size,
    axes_of,
    axis_of,
    broadcast,
    checked,
    followed,
    is_constant,
    not_batch,
    over,
    plain_numbers,
    plus,
    volume,
    whole_numbers,
    words,
)
from edge_ad.bundle.graph.model import FLOAT, INT64, ITEM_BYTES, Node
from edge_ad.bundle.graph.operation import INT, INTS, TENSOR, TEXT, Inputs, Operator, one_of

TO_THE_END = frozenset({(1 << 63) - 1, -(1 << 63) + 1})
"""What the exporter writes for the end of a slice that goes to the end, forwards or backwards."""
MOST_PADDING = 4096
MOST_FILLED = 1 << 16  # elements of a constant that is made of one number: masks and paddings are small


def _moved(source: Known, shape: Shape, elements: Any = None) -> Known:
    """The same elements in another order or number. Args: elements: what became of those that are followed."""
    if elements is not None and elements.size <= MOST_FOLLOWED:
        return followed(source.dtype, elements, constant=source.constant)
    return Known(source.dtype, shape, span=source.span, constant=source.constant)


def _source(node: Node, inputs: Inputs) -> Known:
    (source,) = typed(node, inputs[:1], tuple(ITEM_BYTES))
    return source


def _shape(node: Node, inputs: Inputs) -> list[Known]:
    source = _source(node, inputs)
    start, end = node.attributes.get("start", 0), node.attributes.get("end", source.rank)
    if not (0 <= start < end <= source.rank):
        raise RuleError(node, f"sizes {start} to {end} of {source.rank}")
    return [followed(INT64, list(source.shape[start:end]))]


def _reshape(node: Node, inputs: Inputs) -> list[Known]:
    source = _source(node, inputs)
    wanted = whole_numbers(node, inputs[1], "shape")
    if node.attributes.get("allowzero", 0) != 0:
        raise RuleError(node, "attribute 'allowzero': wanted 0")
    shape: list[Any] = []
    for axis, size in enumerate(wanted):
        if size == 0 and axis >= source.rank:
            raise RuleError(node, f"shape {words(wanted)} keeps a size that {source} does not have")
        shape.append(source.shape[axis] if size == 0 else size)
    if shape.count(-1) > 1:
        raise RuleError(node, f"shape {words(wanted)} leaves two sizes open")
    rest = checked(node, [size for size in shape if size != -1])
    if -1 in shape:
        shape[shape.index(-1)] = _share(node, source.shape, rest)
    shape = list(checked(node, shape))
    if volume(tuple(shape)) != volume(source.shape):
        raise RuleError(node, f"{source} has not as many elements as {words(shape)}")
    elements = None if source.elements is None else source.elements.reshape(tuple(shape))
    return [_moved(source, tuple(shape), elements)]


def _share(node: Node, whole: Shape, rest: Shape) -> Size | None:
    """What is left for the open size."""
    count, batches = volume(whole)
    divisor, taken = volume(rest)
    size = over(Batch(count) if batches else count, Batch(divisor) if taken else divisor)
    if size is None or (not batches and count % divisor):
        raise RuleError(node, f"{words(whole)} is no multiple of {words(rest)}")
    return size if isinstance(size, (int, Batch)) else None


def _transpose(node: Node, inputs: Inputs) -> list[Known]:
    source = _source(node, inputs)
    order = node.attributes.get("perm", tuple(range(source.rank))[::-1])
    if sorted(order) != list(range(source.rank)):
        raise RuleError(node, f"attribute 'perm': {order[:10]} for {source.rank} axes")
    elements = None if source.elements is None else source.elements.transpose(order)
    return [_moved(source, tuple(source.shape[axis] for axis in order), elements)]


def _squeeze(node: Node, inputs: Inputs) -> list[Known]:
    source = _source(node, inputs)
    axes = axes_of(node, plain_numbers(node, inputs[1], "axes"), source.rank)
    if any(source.shape[axis] != 1 for axis in axes):
        raise RuleError(node, f"axes {axes} of {source}, wanted sizes of 1")
    shape = tuple(size for axis, size in enumerate(source.shape) if axis not in axes)
    return [_moved(source, shape, None if source.elements is None else source.elements.squeeze(axes))]


def _unsqueeze(node: Node, inputs: Inputs) -> list[Known]:
    source = _source(node, inputs)
    wanted = plain_numbers(node, inputs[1], "axes")
    rank = source.rank + len(wanted)
    axes = axes_of(node, wanted, rank)
    rest = iter(source.shape)
    shape = checked(node, [1 if axis in axes else next(rest) for axis in range(rank)])
    elements = None if source.elements is None else np.expand_dims(source.elements, axes)
    return [_moved(source, shape, elements)]


def _concat(node: Node, inputs: Inputs) -> list[Known]:
    sources = typed(node, inputs, tuple(ITEM_BYTES))
    first = sources[0]
    if "axis" not in node.attributes or len(sources) != len(inputs):
        raise RuleError(node, "wanted an attribute 'axis' and every input")
    axis = axis_of(node, node.attributes["axis"], first.rank)
    total: Any = 0
    for source in sources:
        same = source.rank == first.rank and all(
            source.shape[other] == first.shape[other] for other in range(first.rank) if other != axis
        )
        if not same:
            raise RuleError(node, f"{source} does not go behind {first} along axis {axis}")
        total = plus(total, source.shape[axis])
        if total is None:
            raise RuleError(node, f"puts pictures and others behind each other along axis {axis}")
    shape = checked(node, [total if index == axis else size for index, size in enumerate(first.shape)])
    constant = is_constant(sources)
    if all(source.elements is not None for source in sources):
        elements = np.concatenate([source.elements for source in sources if source.elements is not None], axis)
        if elements.size <= MOST_FOLLOWED:
            return [followed(first.dtype, elements, constant=constant)]
    spans = [source.span for source in sources if source.span is not None]
    span = (min(low for low, _ in spans), max(high for _, high in spans)) if len(spans) == len(sources) else None
    return [Known(first.dtype, shape, span=span, constant=constant)]


def _split(node: Node, inputs: Inputs) -> list[Known]:
    source = _source(node, inputs)
    axis = axis_of(node, node.attributes.get("axis", 0), source.rank)
    size, count = not_batch(node, source, axis, "splits"), len(node.outputs)
    if len(inputs) > 1 and inputs[1] is not None:
        parts = plain_numbers(node, inputs[1], "split")
    else:
        parts = [size // count] * count
    if len(parts) != count or sum(parts) != size or min(parts) < 1:
        raise RuleError(node, f"{source} into {count} parts of {parts[:10]} along axis {axis}")
    found, at = [], 0
    for part in parts:
        elements = None if source.elements is None else source.elements.take(range(at, at + part), axis)
        found.append(_moved(source, (*source.shape[:axis], part, *source.shape[axis + 1 :]), elements))
        at += part
    return found


def _slice(node: Node, inputs: Inputs) -> list[Known]:
    source = _source(node, inputs)
    starts, ends = (whole_numbers(node, inputs[at], what) for at, what in ((1, "starts"), (2, "ends")))
    given = [inputs[at] if len(inputs) > at else None for at in (3, 4)]
    axes = axes_of(node, range(len(starts)) if given[0] is None else plain_numbers(node, given[0], "axes"), source.rank)
    steps = [1] * len(starts) if given[1] is None else plain_numbers(node, given[1], "steps")
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise RuleError(node, f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes, {len(steps)} steps")
    shape, taken = list(source.shape), [slice(None)] * source.rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = source.shape[axis]
        if isinstance(size, Batch) or isinstance(start, Batch) or isinstance(end, Batch):
            if (start, step) != (0, 1) or (end not in TO_THE_END and end != size):
                raise RuleError(node, f"takes {start} to {end} of {source} along axis {axis}")
            continue
        taken[axis] = _part(node, start, end, step, size)
        shape[axis] = len(range(size)[taken[axis]])
    shape = list(checked(node, shape))
    return [_moved(source, tuple(shape), None if source.elements is None else source.elements[tuple(taken)])]


def _part(node: Node, start: int, end: int, step: int, size: int) -> slice:
    near = -size <= end <= 2 * size  # the last part of a tensor that is cut into equal ones may end behind it
    if not (-size <= start <= size and (near or end in TO_THE_END) and 1 <= abs(step) <= size):
        raise RuleError(node, f"takes {start} to {end} in steps of {step}, of {size}")
    if end in TO_THE_END:
        return slice(start, None, step) if (step > 0) == (end > 0) else slice(0, 0)
    return slice(start, end, step)


def _gather(node: Node, inputs: Inputs) -> list[Known]:
    source, indices = _source(node, inputs), inputs[1]
    assert indices is not None
    axis = axis_of(node, node.attributes.get("axis", 0), source.rank)
    size = not_batch(node, source, axis, "gathers along")
    if indices.dtype not in INTEGERS:
        raise RuleError(node, f"indices {indices}, wanted whole numbers")
    low, high = (-size if indices.constant else 0), size - 1
    if indices.span is None:
        raise RuleError(
            node, "indices are neither constants nor from TopK, ArgMin or ArgMax; any place in memory could be meant"
        )
    if not low <= indices.span[0] <= indices.span[1] <= high:
        raise RuleError(node, f"indices {indices.span[0]} to {indices.span[1]} along an axis of {size}")
    shape = checked(node, (*source.shape[:axis], *indices.shape, *source.shape[axis + 1 :]))
    constant = is_constant(inputs)
    if source.elements is not None and indices.elements is not None:
        taken = np.take(source.elements, np.asarray(indices.elements, dtype=np.int64), axis)
        array = np.empty(np.shape(taken), object)
        array[...] = taken
        if array.size <= MOST_FOLLOWED:
            return [followed(source.dtype, array, constant=constant)]
    return [Known(source.dtype, shape, span=source.span, constant=constant)]


def _gather_elements(node: Node, inputs: Inputs) -> list[Known]:
    source, indices = _source(node, inputs), inputs[1]
    assert indices is not None
    axis = axis_of(node, node.attributes.get("axis", 0), source.rank)
    size = not_batch(node, source, axis, "gathers along")
    if indices.dtype not in INTEGERS or indices.rank != source.rank:
        raise RuleError(node, f"indices {indices}, wanted whole numbers in {source.rank} directions")
    if indices.span is None or not 0 <= indices.span[0] <= indices.span[1] < size:
        found = "are not known beforehand" if indices.span is None else f"{indices.span[0]} to {indices.span[1]}"
        raise RuleError(node, f"indices {found}, wanted some of an axis of {size}")
    others = [other for other in range(source.rank) if other != axis]
    if any(indices.shape[other] != source.shape[other] for other in others):
        raise RuleError(node, f"indices {indices} do not lie over {source}")
    return [Known(source.dtype, indices.shape, span=source.span, constant=is_constant(inputs))]


def _expand(node: Node, inputs: Inputs) -> list[Known]:
    source = _source(node, inputs)
    shape = broadcast(node, [source.shape, checked(node, whole_numbers(node, inputs[1], "shape"))])
    _check_filled(node, shape, source.constant)
    return [Known(source.dtype, shape, span=source.span, constant=source.constant)]


def _check_filled(node: Node, shape: Shape, constant: bool) -> None:
    if constant and volume(shape)[0] > MOST_FILLED:
        raise RuleError(node, f"fills {words(shape)} with what is constant, {MOST_FILLED} elements are the most")


def _constant_of_shape(node: Node, inputs: Inputs) -> list[Known]:
    value = node.attributes.get("value")
    if value is not None and (value.count != 1):
        raise RuleError(node, f"attribute 'value': {value.count} elements, wanted 1")
    shape = checked(node, whole_numbers(node, inputs[0], "shape"))
    _check_filled(node, shape, True)
    if value is None:
        return [Known(FLOAT, shape, constant=True)]
    count, batches = volume(shape)
    if value.numbers and count <= MOST_FOLLOWED and not batches and value.dtype in INTEGERS:
        return [followed(value.dtype, np.full(shape, value.numbers[0], object))]
    return [Known(value.dtype, shape, constant=True)]


def _pad(node: Node, inputs: Inputs) -> list[Known]:
    source = _source(node, inputs)
    mode = one_of(node, "mode", (b"constant", b"reflect", b"edge"))
    pads = plain_numbers(node, inputs[1], "pads")
    if len(pads) != 2 * source.rank or not all(0 <= pad <= MOST_PADDING for pad in pads):
        raise RuleError(node, f"pads {pads[:16]} for {source.rank} axes, wanted two each from 0 to {MOST_PADDING}")
    value = inputs[2] if len(inputs) > 2 else None
    if value is not None and (value.dtype != source.dtype or value.shape not in ((), (1,))):
        raise RuleError(node, f"pads with {value}, wanted one number")
    shape: list[Size] = []
    for axis, size in enumerate(source.shape):
        before, after = pads[axis], pads[axis + source.rank]
        if before or after:
            size = not_batch(node, source, axis, "pads")
            if mode == b"reflect" and max(before, after) >= size:
                raise RuleError(node, f"reflects {max(before, after)} of {size} elements")
            size += before + after
        shape.append(size)
    return [Known(source.dtype, checked(node, shape), constant=source.constant)]


OPERATORS: Mapping[str, Operator] = {
    "Shape": Operator(_shape, (1, 1), {"start": INT, "end": INT}),
    "Reshape": Operator(_reshape, (2, 2), {"allowzero": INT}),
    "Transpose": Operator(_transpose, (1, 1), {"perm": INTS}),
    "Squeeze": Operator(_squeeze, (2, 2)),
    "Unsqueeze": Operator(_unsqueeze, (2, 2)),
    "Concat": Operator(_concat, (1, 1024), {"axis": INT}),
    "Split": Operator(_split, (1, 2), {"axis": INT}, outputs=256),
    "Slice": Operator(_slice, (3, 5)),
    "Gather": Operator(_gather, (2, 2), {"axis": INT}),
    "GatherElements": Operator(_gather_elements, (2, 2), {"axis": INT}),
    "Expand": Operator(_expand, (2, 2)),
    "ConstantOfShape": Operator(_constant_of_shape, (1, 1), {"value": TENSOR}),
    "Pad": Operator(_pad, (2, 3), {"mode": TEXT}),
}
