"""Centring activations, so that symmetric int8 spends both halves of its range.

A tensor that only convolutions without padding and additions read may be shifted by a constant per channel: the
convolution that makes it takes the shift into its bias, those that read it take it out again. The graph computes the
same in float; the quantized one loses less, most of all in linear bottlenecks whose channels lie far from zero. With
padding it would not be the same, because the border is filled with zeros.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_ad.calibration.quantize.graph import Convolution, Floats, Graph
from edge_ad.calibration.quantize.observe import ChannelRange


def plan_shifts(graph: Graph, ranges: Mapping[str, ChannelRange]) -> dict[str, Floats]:
    """What to add to every channel: (C,) for each tensor whose shift is not zero, in the order of computation."""
    by_output = {layer.output: layer for layer in graph.convolutions}
    readers = {layer.name: layer for layer in graph.convolutions}

    def channels(convolved: str) -> int:
        return graph.shape(by_output[convolved].weight)[0]

    def free_operand(inputs: list[str]) -> str | None:
        """An operand that nothing else reads and that comes straight from a convolution: its bias can be chosen."""
        alone = [name for name in inputs if name in by_output and len(graph.consumers[name]) == 1]
        return next((name for name in reversed(alone) if name not in graph.outputs), None)

    def may_move(name: str) -> bool:
        if name not in ranges or name in graph.outputs:
            return False
        for node in graph.consumers[name]:
            if node.name in readers and not readers[node.name].is_padded:
                continue
            if node.op_type != "Add" or any(map(graph.is_constant, node.input)):
                return False
            free = free_operand(list(node.input))
            if free is None or free == name or channels(free) != len(ranges[name].low):
                return False
        return True

    shifts: dict[str, Floats] = {}
    for node in graph.model.graph.node:
        output = node.output[0]
        if output in by_output and may_move(output):
            shifts[output] = _to_centre(ranges[output])
        elif node.op_type == "Add" and not any(map(graph.is_constant, node.input)):
            free = free_operand(list(node.input))
            if free is None:
                continue
            others = [shifts[name] for name in node.input if name != free and name in shifts]
            moves = may_move(output) and channels(free) == len(ranges[output].low)
            if not moves and not others:
                continue
            wanted = _to_centre(ranges[output]) if moves else np.zeros(channels(free))
            shifts[free] = wanted - sum(others, start=np.zeros(channels(free)))
            if moves:
                shifts[output] = wanted
    return shifts


def apply_shifts(graph: Graph, shifts: Mapping[str, Floats]) -> None:
    """Move the tensors of `plan_shifts` in place: biases of what makes them, and of what reads them."""
    convolutions = graph.convolutions
    by_output = {layer.output: layer.name for layer in convolutions}
    for name, shift in shifts.items():
        if name in by_output:
            graph.add_to_bias(_named(graph, by_output[name]), shift)
        for node in graph.consumers[name]:
            if node.op_type == "Conv":
                layer = _named(graph, node.name)
                graph.add_to_bias(layer, -_response(graph, layer, shift))


def moved(ranges: Mapping[str, ChannelRange], shifts: Mapping[str, Floats]) -> dict[str, ChannelRange]:
    """The ranges after the shifts. The mean square is bounded from above by the new reach, where it has moved."""
    found = dict(ranges)
    for name, shift in shifts.items():
        if name in ranges:
            low, high = ranges[name].low + shift, ranges[name].high + shift
            reach = np.maximum(np.abs(low), np.abs(high))
            found[name] = ChannelRange(low, high, np.minimum(ranges[name].power, reach**2))
    return found


def _to_centre(seen: ChannelRange) -> Floats:
    return -(seen.low + seen.high) / 2


def _response(graph: Graph, layer: Convolution, shift: Floats) -> Floats:
    """What a constant input of `shift` per channel adds to every output of an unpadded convolution: (out,)."""
    weight = graph.constant(layer.weight)
    per_group = np.repeat(shift.reshape(layer.groups, -1), len(weight) // layer.groups, axis=0)
    return np.asarray((weight.sum(axis=(2, 3)) * per_group).sum(axis=1))


def _named(graph: Graph, name: str) -> Convolution:
    return next(layer for layer in graph.convolutions if layer.name == name)
