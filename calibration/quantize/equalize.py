"""Cross-layer equalization (Nagel et al. 2019, arXiv 1906.04721, section 4.1), for one range per tensor.

int8 has one scale for all channels of an activation, so a channel that stays small is lost beside a large one. Where
only convolutions, additions and functions with f(s·x) = s·f(x) for s > 0 lie between those that make a set of tensors
and those that read them, a channel can be made s times as large by the former and divided by s again by the latter.

A Clip, as in ReLU6, is no such function: its upper bound holds for the scaled channel, that is at bound / s of the
channel itself. Channels are only ever enlarged, at most to the reach of the largest one and at most as far as the
bounds allow, so on the calibration images a bound cuts nothing that it did not cut before; beyond them it acts as the
saturation of int8 would, channel by channel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_ad.calibration.quantize.graph import Convolution, Floats, Graph
from edge_ad.calibration.quantize.observe import ChannelRange

if TYPE_CHECKING:
    from onnx import NodeProto

HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "MaxPool", "AveragePool", "Resize", "Dropout"})
EXPONENTS = (
    0.25,
    0.5,
    0.75,
    1.0,
)  # of (largest reach / reach of the channel); 0, nothing, is what they are held against
LEAST_GAIN = 0.98  # of the estimated noise: less is not worth a change
FAINT = 1e-4  # of the largest reach: a channel below it is silent
LEVELS = 127
ENDS = (-np.inf, np.inf)  # bounds of a Clip that names none


@dataclass(frozen=True)
class Bound:
    """Output of a Clip, and its bounds."""

    tensor: str
    low: float
    high: float

    def room(self, seen: ChannelRange) -> Floats:
        """(C,) factors up to which it cuts no more than it did."""
        above = np.divide(self.high, seen.high, out=np.full_like(seen.high, np.inf), where=seen.high > 0)
        below = np.divide(self.low, seen.low, out=np.full_like(seen.low, np.inf), where=seen.low < 0)
        return np.minimum(above, below)


@dataclass(frozen=True)
class ChannelGroup:
    """Tensors whose channels can only be scaled together.

    Attributes:
        makers, readers: convolutions that write and read them.
        biases: constants of shape (C, 1, 1) that are added to them.
        bounds: of the Clips between them.
    """

    makers: tuple[Convolution, ...]
    readers: tuple[Convolution, ...]
    biases: tuple[str, ...]
    bounds: tuple[Bound, ...]

    @property
    def key(self) -> str:
        return self.makers[0].output


def plan_scales(graph: Graph, ranges: Mapping[str, ChannelRange]) -> dict[str, Floats]:
    """Factors (C,) of the channels of every group that gains by it, by `ChannelGroup.key`."""
    scales = {}
    for group in channel_groups(graph):
        seen = [reader for reader in group.readers if reader.source in ranges]
        if not seen or any(bound.tensor not in ranges for bound in group.bounds):
            continue
        reach = np.max([ranges[reader.source].reach for reader in seen], axis=0)
        if reach.max() <= 0:
            continue
        ratio = reach.max() / _expected(reach)
        for bound in group.bounds:
            ratio = np.clip(ratio, 1, np.maximum(bound.room(ranges[bound.tensor]), 1))
        candidates = [np.ones_like(ratio), *(ratio**exponent for exponent in EXPONENTS)]
        noises = [sum(_noise(graph, reader, ranges[reader.source], s) for reader in seen) for s in candidates]
        best = int(np.argmin(noises))
        if noises[best] < LEAST_GAIN * noises[0]:
            scales[group.key] = candidates[best]
    return scales


def apply_scales(graph: Graph, scales: Mapping[str, Floats]) -> None:
    """Scale the channels in place: weights and biases of what makes them, weights of what reads them."""
    for group in channel_groups(graph):
        if group.key not in scales:
            continue
        scale = scales[group.key]
        for maker in group.makers:
            graph.replace(maker.weight, graph.constant(maker.weight) * scale[:, None, None, None])
            if maker.bias is not None:
                graph.replace(maker.bias, graph.constant(maker.bias) * scale)
        for name in group.biases:
            graph.replace(name, graph.constant(name) * scale[:, None, None])
        for reader in group.readers:
            weight = graph.constant(reader.weight)
            graph.replace(reader.weight, weight / _per_input(scale, reader, len(weight))[:, :, None, None])


def scaled(graph: Graph, ranges: Mapping[str, ChannelRange], scales: Mapping[str, Floats]) -> dict[str, ChannelRange]:
    """The ranges after scaling."""
    found = dict(ranges)
    for group in channel_groups(graph):
        if group.key in scales:
            scale = scales[group.key]
            for name in {reader.source for reader in group.readers} & ranges.keys():
                seen = ranges[name]
                found[name] = ChannelRange(seen.low * scale, seen.high * scale, seen.power * scale**2)
    return found


def channel_groups(graph: Graph) -> list[ChannelGroup]:
    """Groups that may be scaled: no graph input or output and no other kind of operator touches their channels."""
    groups = _UnionFind()
    fixed: set[str] = {value.name for value in graph.model.graph.input} | set(graph.outputs)
    biases: dict[str, list[str]] = defaultdict(list)
    bounds: dict[str, Bound] = {}
    convolutions = {layer.name: layer for layer in graph.convolutions}
    for node in graph.model.graph.node:
        constants = [name for name in node.input if graph.is_constant(name)]
        if node.name in convolutions:
            groups.find(node.input[0])
            groups.find(node.output[0])
        elif node.op_type in HOMOGENEOUS:
            groups.join(node.input[0], node.output[0])
        elif node.op_type == "Clip" and (bound := _bound(graph, node)) is not None:
            groups.join(node.input[0], node.output[0])
            bounds[bound.tensor] = bound
        elif node.op_type == "Add" and not constants:
            groups.join(node.input[0], node.output[0])
            groups.join(node.input[1], node.output[0])
        elif node.op_type == "Add" and len(constants) == 1 and _is_channel_bias(graph.constant(constants[0])):
            tensor = next(name for name in node.input if name != constants[0])
            groups.join(tensor, node.output[0])
            biases[tensor].append(constants[0])
        elif node.op_type != "Shape":
            fixed.update((*node.input, *node.output))
    members: dict[str, list[str]] = defaultdict(list)
    for name in groups.names:
        members[groups.find(name)].append(name)
    found = []
    for names in members.values():
        tensors = set(names)
        makers = tuple(layer for layer in convolutions.values() if layer.output in tensors)
        readers = tuple(layer for layer in convolutions.values() if layer.source in tensors)
        added = tuple(bias for name in names for bias in biases[name])
        clipped = tuple(bounds[name] for name in names if name in bounds)
        counts = {graph.shape(maker.weight)[0] for maker in makers}
        counts |= {graph.shape(reader.weight)[1] * reader.groups for reader in readers}
        if makers and readers and len(counts) == 1 and not tensors & fixed:
            found.append(ChannelGroup(makers, readers, added, clipped))
    return found


def _expected(reach: Floats) -> Floats:
    """The reach, but for silent channels that of the middle one of the others: a defect may wake them up."""
    speaking = reach > FAINT * reach.max()
    return np.where(speaking, reach, np.median(reach[speaking]))


def _bound(graph: Graph, node: NodeProto) -> Bound | None:
    """Bounds of a Clip that lets zero pass; None for others."""
    names = [*node.input[1:], "", ""][:2]
    if node.attribute or not all(graph.is_constant(name) for name in names if name):
        return None
    low, high = (float(graph.constant(name)) if name else end for name, end in zip(names, ENDS, strict=True))
    return Bound(node.output[0], low, high) if low <= 0 <= high else None


def _noise(graph: Graph, reader: Convolution, seen: ChannelRange, scale: Floats) -> float:
    """Power of the rounding noise in a convolution's outputs, relative to that of its signal, for scaled channels.

    Rounding of the activations is uniform noise of one step for the whole tensor, but for channels that are smaller
    and rounded to zero; that of the weights is uniform noise of one step for every output channel.
    """
    weight = graph.constant(reader.weight)
    factor = _per_input(scale, reader, len(weight))[:, :, None, None]
    power = _per_input(seen.power, reader, len(weight))
    scaled_weight = weight / factor
    scaled_power = power * factor[:, :, 0, 0] ** 2
    step = (scale * seen.reach).max() / LEVELS
    weight_step = np.abs(scaled_weight).max(axis=(1, 2, 3)) / LEVELS
    of_activations = ((scaled_weight**2).sum(axis=(2, 3)) * np.minimum(step**2 / 12, scaled_power)).sum()
    kernel_area = weight.shape[2] * weight.shape[3]
    of_weights = (weight_step**2 / 12 * kernel_area * scaled_power.sum(axis=1)).sum()
    signal = ((weight**2).sum(axis=(2, 3)) * power).sum()
    return float((of_activations + of_weights) / signal) if signal > 0 else 0.0


def _per_input(values: Floats, layer: Convolution, outputs: int) -> Floats:
    """Values (C,) of the input channels as (out, in / groups): what each weight of a convolution is multiplied with."""
    return np.repeat(values.reshape(layer.groups, -1), outputs // layer.groups, axis=0)


def _is_channel_bias(constant: Floats) -> bool:
    return constant.ndim == 3 and constant.shape[1:] == (1, 1)


class _UnionFind:
    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    @property
    def names(self) -> Sequence[str]:
        return list(self._parent)

    def find(self, name: str) -> str:
        self._parent.setdefault(name, name)
        while self._parent[name] != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name

    def join(self, first: str, second: str) -> None:
        self._parent[self.find(first)] = self.find(second)
