"""What keeps a graph with explicit Q/DQ from TensorRT 8.6, 10, 11 and TensorRT-RTX, found without any of them.

The rules are those of NVIDIA's ONNX parsers, the strictest release deciding:

* standard operators of opset 13 (the first with scales per channel) to 17 (the last that 8.6 reads);
* int8 with zero point 0 only: uint8, other zero points and int32 biases are refused;
* weights stay float in the file and have a pair of their own, with one scale for each output channel; activations
  have one scale;
* every pair feeds one node, and nothing but a DequantizeLinear reads what a QuantizeLinear writes;
* what follows the last convolution (sigmoid, patch map, anomaly map, score) is computed in float; this rule is our own:
  probabilities near 0 and 1 do not survive 8 bits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import ExportError, one_line

if TYPE_CHECKING:
    import onnx

OPSETS = range(13, 18)
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
OUTPUT_AXIS = {"Conv": 0, "ConvTranspose": 1}
"""Operators with weights in input 1, and the axis of these that counts output channels (of one group)."""
SHOWN = 5


def qdq_faults(model: onnx.ModelProto) -> list[str]:
    """Every reason why a Q/DQ graph would be refused or computed otherwise; empty when there is none.

    Returns: one line for each fault, which names the node. A graph without Q/DQ has no fault of its own.
    """
    graph = _Graph(model)
    faults = list(_opset_faults(model))
    for node in model.graph.node:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            faults += _parameter_faults(graph, node)
            faults += _pair_faults(graph, node)
        if node.op_type in OUTPUT_AXIS:
            faults += _weight_faults(graph, node)
    return faults + list(_tail_faults(graph))


def check_qdq(data: bytes) -> None:
    """Raise ExportError unless a serialised Q/DQ graph is one that every TensorRT from 8.6 on takes."""
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as exc:
        raise ExportError(f"the quantized graph is no ONNX: {one_line(exc)}") from exc
    faults = qdq_faults(model)
    if faults:
        more = f" (and {len(faults) - SHOWN} more)" if len(faults) > SHOWN else ""
        raise ExportError(f"TensorRT would not take the quantized graph: {'; '.join(faults[:SHOWN])}{more}")


class _Graph:
    """A graph that can be walked along its tensors.

    Attributes:
        nodes: all of them, in topological order.
        producer: node that writes a tensor.
        readers: nodes that read a tensor, one entry for each input that does.
        outputs: names of the graph's outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)
        self.outputs = {value.name for value in model.graph.output}
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Value of a tensor that is stored in the file, also behind Identity; None when it is computed."""
        import onnx

        while (node := self.producer.get(name)) is not None and node.op_type == "Identity":
            name = node.input[0]
        if name in self._stored:
            value: NDArray[np.generic] = onnx.numpy_helper.to_array(self._stored[name])
            return value
        if node is not None and node.op_type == "Constant" and node.attribute[0].name == "value":
            value = onnx.numpy_helper.to_array(node.attribute[0].t)
            return value
        return None

    def is_stored(self, name: str) -> bool:
        return self.constant(name) is not None

    def behind(self, starts: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """Nodes that depend on one of `starts`, in topological order, without these."""
        reached = {name for node in starts for name in node.output}
        found = []
        for node in self.nodes:
            if reached.intersection(node.input):
                reached.update(node.output)
                found.append(node)
        return found


def _name(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"


def _axis(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 1)


def _opset_faults(model: onnx.ModelProto) -> Iterator[str]:
    for entry in model.opset_import:
        domain = entry.domain or "ai.onnx"
        if domain != "ai.onnx":
            yield f"operator set {domain} {entry.version}: wanted ai.onnx alone"
        elif entry.version not in OPSETS:
            yield f"operator set ai.onnx {entry.version}: wanted {OPSETS[0]} to {OPSETS[-1]}"


def _parameter_faults(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    """Scale, type and zero point of one QuantizeLinear or DequantizeLinear; said once for a pair that shares them."""
    other = graph.producer.get(node.input[0])
    if other is not None and other.op_type == QUANTIZE and other.input[1:] == node.input[1:]:
        return
    scale = graph.constant(node.input[1])
    if scale is None:
        yield f"{_name(node)}: its scale is computed, wanted one that is stored"
    elif not (np.isfinite(scale.astype(np.float64)).all() and (scale.astype(np.float64) > 0).all()):
        yield f"{_name(node)}: its scale is not positive and finite"
    element, zero = _element(graph, node)
    if element == "int32":
        yield f"{_name(node)}: dequantizes int32, as for a quantized bias; biases have to stay float"
    elif element != "int8":
        yield f"{_name(node)}: its type is {element}, wanted int8"
    elif zero.any():
        yield f"{_name(node)}: zero point {int(zero[zero != 0].flat[0])}, wanted 0"
    if scale is not None and scale.size > 1 and node.op_type == QUANTIZE and not graph.is_stored(node.input[0]):
        yield f"{_name(node)}: an activation with {scale.size} scales, wanted one"


def _element(graph: _Graph, node: onnx.NodeProto) -> tuple[str, NDArray[np.int64]]:
    """Quantized type and zero point of a node: (name as in NumPy, int64 of any shape)."""
    if len(node.input) > 2 and node.input[2]:
        zero = graph.constant(node.input[2])
        if zero is None:
            return "not stored", np.zeros(0, np.int64)
        # Four-bit and float8 zero points have no NumPy integer behind them; their type is the fault.
        return zero.dtype.name, zero.astype(np.int64) if zero.dtype.kind in "iu" else np.zeros(0, np.int64)
    none = np.zeros(0, np.int64)
    if node.op_type == QUANTIZE:
        return "uint8", none  # what the standard says when nothing is said
    stored = graph.constant(node.input[0])
    if stored is not None:
        return stored.dtype.name, none
    producer = graph.producer.get(node.input[0])
    return _element(graph, producer) if producer is not None and producer.op_type == QUANTIZE else ("unknown", none)


def _pair_faults(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    """Whether a node has its other half, and the pair one reader."""
    readers = graph.readers[node.output[0]]
    if node.op_type == QUANTIZE:
        others = [reader for reader in readers if reader.op_type != DEQUANTIZE]
        if others:
            yield f"{_name(node)}: read by {_name(others[0])}, wanted a {DEQUANTIZE} alone"
        elif not readers or node.output[0] in graph.outputs:
            yield f"{_name(node)}: has no {DEQUANTIZE}"
        return
    producer = graph.producer.get(node.input[0])
    if (producer is None or producer.op_type != QUANTIZE) and _element(graph, node)[0] != "int32":
        what = "stored quantized" if graph.is_stored(node.input[0]) else "not quantized"
        yield f"{_name(node)}: its input is {what}, wanted a {QUANTIZE} of float values"
    if len(readers) > 1:
        names = " and ".join(_name(reader) for reader in readers)
        yield f"{_name(node)}: shared by {names}, wanted a pair for each"


def _weight_faults(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    """Whether a convolution's weights, where they are quantized, have a scale for each output channel."""
    dequantize = graph.producer.get(node.input[1])
    if dequantize is None or dequantize.op_type != DEQUANTIZE:
        return
    quantize = graph.producer.get(dequantize.input[0])
    weights = graph.constant(dequantize.input[0] if quantize is None else quantize.input[0])
    scale = graph.constant(dequantize.input[1])
    if weights is None or scale is None:
        return
    axis = OUTPUT_AXIS[node.op_type]
    if scale.size != weights.shape[axis]:
        yield f"{_name(dequantize)}: {scale.size} scales for {weights.shape[axis]} output channels of {_name(node)}"
    elif scale.size > 1 and _axis(dequantize) != axis:
        yield f"{_name(dequantize)}: scales along axis {_axis(dequantize)} of the weights, wanted {axis}"


def _tail_faults(graph: _Graph) -> Iterator[str]:
    """Quantized values behind the last convolutions."""
    convolutions = [node for node in graph.nodes if node.op_type in OUTPUT_AXIS]
    last = [node for node in convolutions if not any(n.op_type in OUTPUT_AXIS for n in graph.behind([node]))]
    tail = graph.behind(last)
    written = {name for node in tail for name in node.output}
    for node in tail:
        if node.op_type == QUANTIZE:
            yield f"{_name(node)}: quantizes what follows the last convolution, which has to stay float"
        elif node.op_type != DEQUANTIZE:
            for name in node.input:
                source = graph.producer.get(name)
                if source is not None and source.op_type == DEQUANTIZE and name not in written:
                    yield f"{_name(source)}: a quantized constant of {_name(node)}, which has to stay float"
