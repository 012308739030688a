"""Convolutions of a concatenation, taken apart: one for each part, and the sum of them.

conv([a, b]) = conv_a(a) + conv_b(b), up to float rounding. Each part then has a range of its own, and its channels can
be equalized. It has to be so, too: OpenVINO on a CPU (2025.4 and 2026.4 were tried) takes a pair behind a concatenation
to the front of it, and there rounds to whole numbers instead of to the pair's levels, so that what it computes has
little to do with the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_ad.calibration.quantize.graph import CHANNEL_AXES, Convolution, Graph

if TYPE_CHECKING:
    from onnx import NodeProto


def in_parts(graph: Graph) -> Graph:
    """The same computation, without concatenations of channels in front of convolutions.

    Convolutions of groups, and of parts whose channels are not known, stay as they are; see `Graph.layers`.

    Args:
        graph: is taken over and changed.
    """
    nodes = graph.model.graph.node
    channels = _channels(graph)
    replaced: dict[str, list[NodeProto]] = {}
    for layer in graph.convolutions:
        joint = graph.producers.get(layer.source)
        if joint is None or joint.op_type != "Concat" or layer.groups != 1 or _axis(joint) not in CHANNEL_AXES:
            continue
        counts = [channels.get(name) for name in joint.input]
        known = [count for count in counts if count is not None]
        if len(known) == len(counts) and sum(known) == graph.shape(layer.weight)[1]:
            replaced[layer.name] = _parts(graph, layer, list(joint.input), known)
    if not replaced:
        return graph
    ordered = [part for node in nodes for part in replaced.get(node.name, [node])]
    read = {name for node in ordered for name in node.input} | graph.outputs
    kept = [node for node in ordered if node.op_type != "Concat" or node.output[0] in read]
    kept = [type(node).FromString(node.SerializeToString()) for node in kept]
    del nodes[:]
    nodes.extend(kept)
    graph.drop_unused_constants()
    return Graph(graph.model)


def _parts(graph: Graph, layer: Convolution, sources: list[str], counts: list[int]) -> list[NodeProto]:
    """Nodes in place of a convolution; the bias stays with the first."""
    import onnx

    (whole,) = (node for node in graph.model.graph.node if node.name == layer.name)
    ends = np.cumsum(counts)[:-1]
    made: list[NodeProto] = []
    sums: list[NodeProto] = []
    total = ""
    for number, (source, weight) in enumerate(
        zip(sources, np.split(graph.constant(layer.weight), ends, axis=1), strict=True)
    ):
        part = onnx.NodeProto()
        part.CopyFrom(whole)
        part.name = f"{layer.name}.part{number}"
        part.output[0] = f"{layer.output}.part{number}"
        bias = [layer.bias] if number == 0 and layer.bias is not None else []
        part.input[:] = [source, graph.add_constant(f"{layer.weight}.part{number}", weight), *bias]
        made.append(part)
        if number:
            last = number == len(sources) - 1
            output = layer.output if last else f"{layer.output}.sum{number}"
            sums.append(onnx.helper.make_node("Add", [total, part.output[0]], [output], f"{layer.name}.sum{number}"))
            total = output
        else:
            total = part.output[0]
    if not sums:
        made[0].output[0] = layer.output
    return [*made, *sums]


def _channels(graph: Graph) -> dict[str, int]:
    """Channels of every tensor of images whose number of them is known."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(graph.model).graph
    found = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shape = value.type.tensor_type.shape.dim
        if len(shape) == 4 and shape[1].HasField("dim_value"):
            found[value.name] = int(shape[1].dim_value)
    return found


def _axis(node: NodeProto) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == "axis")
