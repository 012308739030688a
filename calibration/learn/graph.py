"""Patches that a float graph has learned, as constants and nodes beside its own, and the graph without them.

All that is added is called `/learned/...` and `learned...`; what it replaces goes on under its old name with an ending.
So a graph can be given back what it was: without what was learned it is the same, byte for byte.

* `learned.weight` (K, D, 1, 1) and `learned.bias` (K,): the learned patches minus a centre, and their squared norms, as
  the weights of a convolution whose smallest output is the nearest of them
* the tensor that it reads, (N, D, h, w), holds 2·(centre − x) for every patch x of the picture
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import BundleError, one_line

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from edge_ad.bundle.graph.contract import CheckedGraph

Floats = NDArray[np.float32]

NODE, CONSTANT = "/learned/", "learned."
WEIGHT, BIAS = "learned.weight", "learned.bias"
AFTER, BEFORE = ".learned", ".unlearned"
"""Endings: of a tensor that has a learned one in its place, where it is read; of one that gave its name away."""
FAR = np.float32(1e20)
"""Squared norm of a patch that is nearest to nothing: a graph that has learned none yet."""


class Place(ABC):
    """Where a graph takes in what it learns.

    Attributes:
        patches: the tensor (N, D, h, w) that tells patches apart, see above.
        radius: of a learned patch, beyond which nothing changes; None where entries of a bank have no such limit.
    """

    patches: str
    radius: float | None = None

    @abstractmethod
    def wire(self, model: ModelProto) -> None:
        """Add everything to a graph without learned patches but the constants that hang on them."""

    def constants_of(self, rows: Floats) -> dict[str, NDArray[Any]]:
        """Constants by name that hang on the learned patches (K, D); of none, one that is nearest to nothing."""
        if not len(rows):
            return {WEIGHT: np.zeros((1, rows.shape[1], 1, 1), np.float32), BIAS: np.full(1, FAR)}
        squares = np.square(rows, dtype=np.float64).sum(1)
        return {WEIGHT: rows[:, :, None, None], BIAS: squares.astype(np.float32)}


def parsed(data: CheckedGraph) -> ModelProto:
    """Raises: BundleError for what is no graph."""
    import onnx

    try:
        return onnx.load_model_from_string(data)
    except Exception as exc:
        raise BundleError(f"the float graph cannot be read as ONNX: {one_line(exc)}; export the bundle again") from exc


def split(model: ModelProto) -> tuple[ModelProto, dict[str, Floats]]:
    """A graph without what it has learned, and the constants that this is: none where it is as it was exported."""
    from onnx import ModelProto, numpy_helper

    learned = {
        tensor.name: np.array(numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
        if _is_learned(tensor.name)
    }
    base = ModelProto()
    base.CopyFrom(model)
    _keep(base.graph.initializer, (part for part in base.graph.initializer if not _is_learned(part.name)))
    _keep(base.graph.node, (node for node in base.graph.node if not node.name.startswith(NODE)))
    for node in base.graph.node:
        for names, ending in ((node.input, AFTER), (node.output, BEFORE)):
            for index, name in enumerate(names):
                names[index] = name.removesuffix(ending)
    return base, learned


def joined(base: ModelProto, place: Place, rows: Floats) -> bytes:
    """The graph that knows learned patches (K, D); without any, the graph as it was."""
    if not len(rows):
        return serialized(base)
    model = wired(base, place)
    for name, value in place.constants_of(rows).items():
        add_constant(model, name, value)
    return serialized(model)


def wired(base: ModelProto, place: Place) -> ModelProto:
    """A copy of a graph with the nodes of `place`, which miss the constants that hang on what is learned."""
    from onnx import ModelProto

    model = ModelProto()
    model.CopyFrom(base)
    place.wire(model)
    return model


def rows_of(constants: Mapping[str, Floats], none: Floats) -> Floats:
    """The learned patches (K, D) among the constants of `split`. Args: none: (0, D), where there are none."""
    return constants[WEIGHT][:, :, 0, 0] if WEIGHT in constants else none


def serialized(model: ModelProto) -> bytes:
    data: bytes = model.SerializeToString()
    return data


def add_constant(model: ModelProto, name: str, value: Any) -> str:
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name


def make_node(operator: str, inputs: Iterable[str], output: str, **attributes: Any) -> NodeProto:
    """A node that is called after its output, which begins with `NODE`, or is given the name of another's."""
    from onnx import helper

    name = output if output.startswith(NODE) else f"{NODE}{output}"
    return helper.make_node(operator, list(inputs), [output], name=name, **attributes)


def insert_after(model: ModelProto, tensor: str, nodes: Iterable[NodeProto]) -> None:
    """Put nodes behind the one that computes `tensor`."""
    position = next(index for index, node in enumerate(model.graph.node) if tensor in node.output)
    for offset, node in enumerate(nodes, start=1):
        model.graph.node.insert(position + offset, node)


def _is_learned(constant: str) -> bool:
    return constant.startswith(CONSTANT) or constant.endswith(AFTER)


def _keep(field: Any, kept: Iterable[Any]) -> None:
    parts = [type(part).FromString(part.SerializeToString()) for part in kept]
    del field[:]
    field.extend(parts)
