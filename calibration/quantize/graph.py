"""An ONNX graph whose convolutions can be read and changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import ExportError, one_line

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Floats = NDArray[np.float64]

CHANGED = frozenset({"Conv", "Add"})
"""Operators whose constants the passes change; no other node may read the same ones."""
CHANNEL_AXES = (1, -3)  # of a concatenation of images
BARRIERS = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "MatMul"})
"""Operators that OpenVINO does not take a pair through; through any other it may get to a concatenation."""
SEARCHES = frozenset({"ReduceMin", "TopK"})
"""Operators that take the nearest of the distances that a convolution gives."""


@dataclass(frozen=True)
class Convolution:
    """A convolution with constant weights.

    Attributes:
        name: of its node, unique in the graph.
        source, output: tensors that it reads and writes.
        weight: name of its weights (out, in / groups, rows, columns).
        bias: name of its bias (out,), None where it has none.
        groups, strides, pads, dilations: as ONNX defines them; pads are top, left, bottom, right.
    """

    name: str
    source: str
    output: str
    weight: str
    bias: str | None
    groups: int
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]

    @property
    def is_padded(self) -> bool:
        return any(self.pads)


class Graph:
    """A model in ONNX, with its constants by name; every convolution and addition has its own.

    Args:
        model: is taken over and changed.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._inline_constants()
        self._name_nodes()
        self._separate_parameters()
        self.producers: dict[str, NodeProto] = {out: node for node in model.graph.node for out in node.output}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self.consumers[name].append(node)
        self.outputs = frozenset(value.name for value in model.graph.output)

    @classmethod
    def parse(cls, data: bytes) -> Graph:
        """Read a serialised model. Raises: ExportError when it is none."""
        import onnx

        try:
            return cls(onnx.load_model_from_string(data))
        except Exception as exc:
            raise ExportError(
                f"the float graph cannot be read as ONNX: {one_line(exc)}; export the bundle again"
            ) from exc

    def copy(self) -> Graph:
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return Graph(model)

    def serialized(self) -> bytes:
        data: bytes = self.model.SerializeToString()
        return data

    def is_constant(self, name: str) -> bool:
        return name in self._tensors

    def constant(self, name: str) -> Floats:
        """A constant in float64."""
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self._tensors[name]), dtype=np.float64)

    def is_float(self, name: str) -> bool:
        """Whether a constant is float32; sizes, axes and positions are not."""
        from onnx import TensorProto

        return bool(self._tensors[name].data_type == TensorProto.FLOAT)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a constant."""
        return tuple(self._tensors[name].dims)

    def replace(self, name: str, value: NDArray[np.floating[Any]]) -> None:
        """Give a constant another value of the same shape, kept as float32."""
        from onnx import numpy_helper

        self._tensors[name].CopyFrom(numpy_helper.from_array(np.asarray(value, np.float32), name))

    @property
    def convolutions(self) -> list[Convolution]:
        """Convolutions with constant weights and padding over images, in the order of computation."""
        return [self._convolution(node) for node in self.model.graph.node if self._is_convolution(node)]

    @property
    def layers(self) -> list[Convolution]:
        """Convolutions that may be quantized: all but those whose result reaches an output without a further one.

        What follows the last convolution is a logit, its sigmoid and the smoothing: one channel, hardly any work, and
        every rounding in it would show in the score. A search is not meant by that: the products with a whole bank, of
        which the smallest counts. What reads a concatenation of channels stays float too, see
        `edge_ad.calibration.quantize.parts`.
        """
        tail = self._reached_backwards(self.outputs, frozenset({"Conv"}))
        candidates = [layer for layer in self.convolutions if layer.output not in tail or self._is_search(layer)]
        return [layer for layer in candidates if not self._reads_concatenation(layer)]

    def add_to_bias(self, layer: Convolution, difference: Floats) -> None:
        """Add (out,) to the bias of a convolution, which gets one where it has none."""
        node = next(node for node in self.model.graph.node if node.name == layer.name)
        bias = node.input[2] if len(node.input) > 2 else ""
        if bias:
            self.replace(bias, self.constant(bias) + difference)
        else:
            node.input[2:] = [self.add_constant(f"{layer.name}.bias", difference)]

    def add_constant(self, name: str, value: Floats, dtype: type[np.floating[Any]] = np.float32) -> str:
        """Add a constant. Returns: its name, which is the given one where that is not taken."""
        from onnx import numpy_helper

        return self._add_tensor(numpy_helper.from_array(np.asarray(value, dtype)), self._free_name(name))

    def drop_unused_constants(self) -> None:
        used = {name for node in self.model.graph.node for name in node.input} | self.outputs
        for tensor in [tensor for tensor in self.model.graph.initializer if tensor.name not in used]:
            self.model.graph.initializer.remove(tensor)
            del self._tensors[tensor.name]

    def _is_search(self, layer: Convolution) -> bool:
        """Whether its result, with those of other parts of it, is looked through for the smallest alone."""
        waiting, found = [layer.output], False
        while waiting:
            name = waiting.pop()
            for reader in self.consumers[name]:
                if reader.op_type == "Add":
                    waiting += reader.output
                elif reader.op_type not in SEARCHES:
                    return False
                found = True
            if name in self.outputs:
                return False
        return found

    def _reads_concatenation(self, layer: Convolution) -> bool:
        makers = [self.producers.get(name) for name in self._reached_backwards([layer.source], BARRIERS)]
        return any(
            node is not None
            and node.op_type == "Concat"
            and any(attribute.name == "axis" and attribute.i in CHANNEL_AXES for attribute in node.attribute)
            for node in makers
        )

    def _reached_backwards(self, names: Iterable[str], barriers: Collection[str]) -> set[str]:
        """Tensors from which one of `names` is computed without one of the `barriers` on the way."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            node = self.producers.get(name)
            if node is not None and node.op_type not in barriers:
                waiting += node.input
        return found

    def _is_convolution(self, node: NodeProto) -> bool:
        """Not one that pads by itself: how much depends on the size of the image."""
        if node.op_type != "Conv" or node.input[1] not in self._tensors:
            return False
        pads_itself = any(a.name == "auto_pad" and a.s not in (b"NOTSET", b"VALID") for a in node.attribute)
        return len(self.shape(node.input[1])) == 4 and not pads_itself

    def _convolution(self, node: NodeProto) -> Convolution:
        from onnx import helper

        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
        return Convolution(
            name=node.name,
            source=node.input[0],
            output=node.output[0],
            weight=node.input[1],
            bias=node.input[2] if len(node.input) > 2 and node.input[2] else None,
            groups=given.get("group", 1),
            strides=_pair(given.get("strides", (1, 1))),
            pads=(top, left, bottom, right),
            dilations=_pair(given.get("dilations", (1, 1))),
        )

    def _inline_constants(self) -> None:
        """Exporters write equal constants once and name the others by an Identity; here each stands for itself."""
        for node in list(self.model.graph.node):
            if node.op_type == "Identity" and node.input[0] in self._tensors:
                self._add_tensor(self._tensors[node.input[0]], node.output[0])
            elif node.op_type == "Constant" and node.attribute[0].name == "value":
                self._add_tensor(node.attribute[0].t, node.output[0])
            else:
                continue
            self.model.graph.node.remove(node)

    def _name_nodes(self) -> None:
        given = {node.name for node in self.model.graph.node}
        taken = {""}
        for index, node in enumerate(self.model.graph.node):
            if node.name in taken:
                node.name = _unlike(f"{node.name or node.op_type}_{index}", given | taken)
            taken.add(node.name)

    def _separate_parameters(self) -> None:
        readers: dict[str, set[str]] = defaultdict(set)
        for node in self.model.graph.node:
            for index, name in enumerate(node.input):
                if name not in self._tensors:
                    continue
                kinds = readers[name]
                if kinds and (node.op_type in CHANGED or kinds & CHANGED):
                    node.input[index] = self._add_tensor(self._tensors[name], self._free_name(f"{node.name}.{index}"))
                kinds.add(node.op_type)

    def _add_tensor(self, value: TensorProto, name: str) -> str:
        tensor = self.model.graph.initializer.add()
        tensor.CopyFrom(value)
        tensor.name = name
        self._tensors[name] = tensor
        return name

    def _free_name(self, name: str) -> str:
        nodes = self.model.graph.node
        return _unlike(
            name, self._tensors.keys() | {tensor for node in nodes for tensor in (*node.input, *node.output)}
        )


def _unlike(name: str, taken: Collection[str]) -> str:
    """The name, with as many underscores behind it as it takes to be new."""
    while name in taken:
        name += "_"
    return name


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)
