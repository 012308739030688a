"""Operators over neighbourhoods of pictures: convolutions, pooling, resizing; and normalisation by channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor, isfinite, prod
from typing import Any

from edge_ad.bundle.graph.elementwise import typed
from edge_ad.bundle.graph.known import (
    FLOATS,
    Batch,
    Known,
    RuleError,
    Size,
    checked,
    is_constant,
    not_batch,
    whole_numbers,
    words,
)
from edge_ad.bundle.graph.model import FLOAT as FLOAT32
from edge_ad.bundle.graph.model import Node
from edge_ad.bundle.graph.operation import FLOAT, INT, INTS, TEXT, Inputs, Operator, bounded, flag, one_of

MOST_STRIDE = 1024
MOST_SCALE = 4096.0


def _pictures(node: Node, source: Known) -> tuple[Size, int, list[int]]:
    """Number, channels, and sizes of what a neighbourhood is taken of; one or two of them. Raises: RuleError."""
    if source.rank not in (3, 4):
        raise RuleError(node, f"wanted pictures (N, channels, rows, columns), got {source}")
    return (
        source.shape[0],
        not_batch(node, source, 1, "mixes"),
        [not_batch(node, source, a, "mixes") for a in (2, 3)[: source.rank - 2]],
    )


def _windows(node: Node, sizes: Sequence[int], kernel: Sequence[int], rounded: Callable[[float], int]) -> list[int]:
    """How many windows fit. Raises: RuleError for attributes that are no sizes, or when none fits."""
    count = len(sizes)
    strides = bounded(node, "strides", (1,) * count, 1, MOST_STRIDE)
    if one_of(node, "auto_pad", (b"NOTSET", b"SAME_UPPER")) != b"NOTSET":
        if any(name in node.attributes for name in ("pads", "ceil_mode")):
            raise RuleError(node, "attribute 'auto_pad': it pads by itself, and is told how")
        bounded(node, "dilations", (1,) * count, 1, MOST_STRIDE)
        return [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]
    dilations = bounded(node, "dilations", (1,) * count, 1, MOST_STRIDE)
    pads = bounded(node, "pads", (0,) * (2 * count), 0, MOST_STRIDE)
    found = []
    for axis, size in enumerate(sizes):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        before, after = pads[axis], pads[axis + count]
        if reach > size + before + after or max(before, after) > reach:
            raise RuleError(node, f"a window of {reach} over {size} with {before} and {after} beside it")
        windows = rounded((size + before + after - reach) / strides[axis]) + 1
        if rounded is ceil and (windows - 1) * strides[axis] >= size + before:
            windows -= 1  # it would begin behind the picture
        found.append(windows)
    return found


def _conv(node: Node, inputs: Inputs) -> list[Known]:
    source, weight, *bias = typed(node, inputs, FLOATS)
    pictures, channels, sizes = _pictures(node, source)
    group = node.attributes.get("group", 1)
    if weight.rank != source.rank or not is_constant([weight, *bias]):
        raise RuleError(node, f"weights {weight} for {source}, wanted constants of as many axes")
    filters, depth, *kernel = (not_batch(node, weight, axis, "has weights along") for axis in range(weight.rank))
    if not 1 <= group <= channels or depth * group != channels or filters % group:
        raise RuleError(node, f"weights {weight} in {group} groups for {channels} channels")
    if tuple(node.attributes.get("kernel_shape", kernel)) != tuple(kernel):
        raise RuleError(node, f"attribute 'kernel_shape': weights are {weight}")
    if bias and bias[0].shape != (filters,):
        raise RuleError(node, f"bias {bias[0]} for {filters} channels")
    shape = checked(node, (pictures, filters, *_windows(node, sizes, kernel, floor)))
    return [Known(source.dtype, shape, constant=source.constant)]


def _conv_work(_: Node, inputs: Sequence[Known]) -> int:
    return prod(size for size in inputs[1].shape[1:] if isinstance(size, int))


def _pool(node: Node, inputs: Inputs) -> list[Known]:
    (source,) = typed(node, inputs, FLOATS)
    pictures, channels, sizes = _pictures(node, source)
    if "kernel_shape" not in node.attributes:
        raise RuleError(node, "attribute 'kernel_shape': missing")
    kernel = bounded(node, "kernel_shape", sizes, 1, MOST_STRIDE)
    flag(node, "count_include_pad", 0), flag(node, "storage_order", 0)
    rounded = ceil if flag(node, "ceil_mode", 0) else floor
    shape = checked(node, (pictures, channels, *_windows(node, sizes, kernel, rounded)))
    return [Known(source.dtype, shape, constant=source.constant)]


def _pool_work(node: Node, _: Sequence[Known]) -> int:
    return prod(node.attributes["kernel_shape"])


def _pool_of_all(node: Node, inputs: Inputs) -> list[Known]:
    (source,) = typed(node, inputs, FLOATS)
    pictures, channels, sizes = _pictures(node, source)
    return [Known(source.dtype, (pictures, channels, *(1 for _ in sizes)), constant=source.constant)]


def _resize(node: Node, inputs: Inputs) -> list[Known]:
    (source,) = typed(node, inputs[:1], FLOATS)
    region, scales, sizes = (*inputs[1:], None, None, None)[:3]
    one_of(node, "mode", (b"nearest", b"linear", b"cubic"))
    one_of(node, "nearest_mode", (b"round_prefer_floor", b"floor", b"ceil", b"round_prefer_ceil"))
    one_of(
        node,
        "coordinate_transformation_mode",
        (b"half_pixel", b"pytorch_half_pixel", b"align_corners", b"asymmetric"),
    )
    flag(node, "exclude_outside", 0)
    if source.rank not in (3, 4) or (region is not None and region.shape != (0,)):
        raise RuleError(node, f"wanted pictures and no region, got {source}")
    scales = None if scales is None or scales.shape == (0,) else scales
    if (scales is None) == (sizes is None):
        raise RuleError(node, "wanted scales or sizes, and not both")
    found = _scaled(node, source, scales) if scales is not None else whole_numbers(node, sizes, "sizes")
    if len(found) != source.rank or tuple(found[:2]) != source.shape[:2]:
        raise RuleError(node, f"makes {words(found)} of {source}; pictures and channels stay as they are")
    return [Known(source.dtype, checked(node, found), constant=source.constant)]


def _scaled(node: Node, source: Known, scales: Known) -> list[Size]:
    factors: list[Any] = [] if scales.elements is None else list(scales.elements.flat)
    fits = scales.dtype == FLOAT32 and scales.shape == (source.rank,) and scales.constant
    if not fits or not all(isinstance(f, (int, float)) and isfinite(f) and 0 < f <= MOST_SCALE for f in factors):
        raise RuleError(node, f"scales {scales}, wanted {source.rank} numbers above 0 to {MOST_SCALE:g}")
    if factors[:2] != [1, 1]:
        raise RuleError(node, f"scales {factors}; pictures and channels stay as they are")
    return [
        size if isinstance(size, Batch) else floor(size * factor)
        for size, factor in zip(source.shape, factors, strict=True)
    ]


def _by_channel(node: Node, inputs: Inputs) -> list[Known]:
    source, *values = typed(node, inputs, FLOATS)
    if source.rank < 2 or len(values) != len(inputs) - 1:
        raise RuleError(node, f"wanted pictures with channels, got {source}")
    channels = not_batch(node, source, 1, "normalises")
    if not is_constant(values) or any(value.shape != (channels,) for value in values):
        raise RuleError(node, f"wanted constants for {channels} channels, got {' and '.join(map(str, values))}")
    epsilon = node.attributes.get("epsilon", 1e-5)
    if not 0 <= epsilon <= 1:
        raise RuleError(node, f"attribute 'epsilon': wanted 0 to 1, got {epsilon}")
    found = [Known(source.dtype, source.shape, constant=source.constant)]
    if flag(node, "training_mode", 0):
        if not source.constant:
            raise RuleError(node, "attribute 'training_mode': a graph of a bundle does not learn from pictures")
        found += [Known(source.dtype, (channels,), constant=True)] * 2
    return found


_WINDOW = {"auto_pad": TEXT, "strides": INTS, "dilations": INTS, "pads": INTS, "kernel_shape": INTS}


OPERATORS: Mapping[str, Operator] = {
    "Conv": Operator(_conv, (2, 3), _WINDOW | {"group": INT}, work=_conv_work),
    "MaxPool": Operator(_pool, (1, 1), _WINDOW | {"ceil_mode": INT, "storage_order": INT}, work=_pool_work),
    "AveragePool": Operator(_pool, (1, 1), _WINDOW | {"ceil_mode": INT, "count_include_pad": INT}, work=_pool_work),
    "GlobalAveragePool": Operator(_pool_of_all, (1, 1)),
    "Resize": Operator(
        _resize,
        (1, 4),
        {
            "mode": TEXT,
            "nearest_mode": TEXT,
            "coordinate_transformation_mode": TEXT,
            "cubic_coeff_a": FLOAT,
            "exclude_outside": INT,
        },
        empty=frozenset({1, 2}),
    ),
    "BatchNormalization": Operator(
        _by_channel, (5, 5), {"epsilon": FLOAT, "momentum": FLOAT, "training_mode": INT}, outputs=3
    ),
    "InstanceNormalization": Operator(_by_channel, (3, 3), {"epsilon": FLOAT}),
}
