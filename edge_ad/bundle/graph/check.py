"""The check that stands before every engine: a graph is data, bounded and of a known kind, or no engine sees it.

Engines are libraries in C++ that do what a graph says. They follow indices out of their tensors, read files that it
names, and try to make whatever size it asks for. So each operator is one of which a rule is known, every type,
shape and index is worked out here beforehand, and what memory and work come to is bounded by the size of the file and
of the picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import prod
from pathlib import Path

import numpy as np

from edge_ad.bundle.graph.contract import CheckedGraph, GraphContract, GraphFacts
from edge_ad.bundle.graph.finite import NAN, read_as_bounds, what_is_no_number
from edge_ad.bundle.graph.known import (
    INTEGERS,
    MOST_FOLLOWED,
    Batch,
    Known,
    RuleError,
    Shape,
    followed,
    volume,
    within,
    words,
)
from edge_ad.bundle.graph.model import (
    FLOAT,
    INT32,
    INT64,
    ITEM_BYTES,
    TYPE_NAMES,
    UINT8,
    Model,
    Node,
    Tensor,
    Value,
    read_model,
)
from edge_ad.bundle.graph.operators import KNOWN, RULES
from edge_ad.bundle.graph.wire import InFile, InMemory, Reader, Source
from edge_ad.bundle.specs import TensorSpec
from edge_ad.errors import BundleError, os_reason

IR_VERSIONS = range(7, 11)
OPSETS = range(13, 18)
MOST_INDICES = 1 << 24  # whole numbers of a constant whose least and greatest are looked for
NUMPY_TYPES = {INT32: "<i4", INT64: "<i8"}
MIB = 1 << 20


def checked_graph(data: bytes, contract: GraphContract) -> CheckedGraph:
    """A graph that an engine may see. Raises: BundleError with the node and the reason."""
    examine(InMemory(data), contract)
    return CheckedGraph(data)


def examine_file(path: Path, contract: GraphContract) -> GraphFacts:
    """Look at a graph in a file, a part at a time. Raises: BundleError with the node and the reason."""
    try:
        with path.open("rb") as file:
            return examine(InFile(file.fileno()), contract)
    except OSError as exc:
        raise BundleError(f"cannot be read: {os_reason(exc)}") from exc


def examine(source: Source, contract: GraphContract) -> GraphFacts:
    """Look at a serialised graph; nothing of it is executed. Raises: BundleError with the node and the reason."""
    model, reader = read_model(source)
    return Examination(model, reader, contract, source.size).facts()


class Examination:
    """One look at a graph. Attributes: tensors: what is known of each by name, as far as it has come."""

    def __init__(self, model: Model, reader: Reader, contract: GraphContract, size: int) -> None:
        self._model, self._reader, self._contract = model, reader, contract
        self.tensors: dict[str, Known] = {}
        self._bounds = read_as_bounds(model.nodes, [value.name for value in model.outputs])
        pixels = prod(size or 1 for size in contract.image.shape[:3])
        batch = contract.image.shape[0] or 1
        self._most_bytes = min(64 * MIB + 4096 * pixels + 16 * size, 2048 * MIB * min(batch, 8))
        self._most_work = (1 << 36) + (1 << 25) * pixels

    def facts(self) -> GraphFacts:
        self._check_versions()
        self._take_input()
        for tensor in self._model.initializers:
            if fault := self._number_fault(tensor, tensor.name):
                raise BundleError(f"initializer {tensor.name[:120]!r} {fault}")
            self._add(tensor.name, self._constant(tensor), "initializer")
        peak, work = self._run()
        self._check_claims()
        self._check_outputs()
        operators = Counter(node.operator for node in self._model.nodes)
        weights = sum(tensor.count * ITEM_BYTES[tensor.dtype] for tensor in self._model.initializers)
        return GraphFacts(self._model.opset, dict(sorted(operators.items())), weights, peak, work)

    def _check_versions(self) -> None:
        if self._model.ir_version not in IR_VERSIONS:
            raise BundleError(f"IR version {self._model.ir_version}, wanted {IR_VERSIONS[0]} to {IR_VERSIONS[-1]}")
        if self._model.opset not in OPSETS:
            raise BundleError(f"opset {self._model.opset}, wanted {OPSETS[0]} to {OPSETS[-1]}")
        if self._model.opset != self._contract.opset:
            raise BundleError(f"opset {self._model.opset}, the manifest says {self._contract.opset}")

    def _take_input(self) -> None:
        image = self._contract.image
        if [value.name for value in self._model.inputs] != [image.name]:
            raise BundleError(f"inputs {_names(self._model.inputs)}, wanted {image.name!r} alone")
        self._check_declared("input", self._model.inputs[0], image)
        if any(size is not None and size < 1 for size in image.shape):
            raise BundleError(f"input {image.name!r} is {image.shape}, which no picture is")
        self._add(image.name, Known(UINT8, _shape(image)), "input")

    def _add(self, name: str, tensor: Known, what: str) -> None:
        if not name:
            raise BundleError(f"an {what} has no name")
        if name in self.tensors:
            raise BundleError(f"tensor {name[:120]!r} is made twice")
        self.tensors[name] = tensor

    def _run(self) -> tuple[int, int]:
        """Go through the nodes. Returns: most bytes at a time and work, for one picture."""
        last = {name: index for index, node in enumerate(self._model.nodes) for name in node.inputs}
        last |= {value.name: len(self._model.nodes) for value in self._model.outputs}
        held = peak = work = 0
        names: set[str] = set()
        for index, node in enumerate(self._model.nodes):
            if node.name and node.name in names:
                raise RuleError(node, "another node has the same name")
            names.add(node.name)
            self._check_operator(node)
            made = self._apply(node)
            for name, tensor in made.items():
                self._add(name, tensor, "output of a node")
                held += tensor.bytes_per_picture
            peak, work = max(peak, held), work + self._work(node, made)
            if peak > self._most_bytes:
                needed, most = peak // MIB, self._most_bytes // MIB
                raise RuleError(node, f"with what is before it needs {needed} MiB of memory, {most} MiB are the most")
            if work > self._most_work:
                needed, most = work >> 30, self._most_work >> 30
                raise RuleError(node, f"with what is before it multiplies {needed} × 2³⁰ times, {most} is the most")
            for name in {*node.inputs, *made}:
                if last.get(name, index) == index and self._is_freed(name):
                    held -= self.tensors[name].bytes_per_picture
        return peak, work

    def _check_operator(self, node: Node) -> None:
        declared = self._contract.operators
        if node.operator not in KNOWN:
            raise RuleError(node, f"this operator is not among the {len(KNOWN)} that a graph may hold")
        if declared is not None and node.operator not in declared:
            raise RuleError(node, f"this operator is not among the {len(declared)} that its family says it writes")

    def _is_freed(self, name: str) -> bool:
        """Whether an engine gives the memory back once nobody reads it; what is constant it computes once and keeps."""
        return bool(name) and name != self._contract.image.name and not self.tensors[name].constant

    def _apply(self, node: Node) -> dict[str, Known]:
        inputs: list[Known | None] = []
        for name in node.inputs:
            if name and name not in self.tensors:
                raise RuleError(node, f"reads {name[:120]!r}, which nothing before it makes")
            inputs.append(self.tensors[name] if name else None)
        for value in node.attributes.values():
            if isinstance(value, Tensor) and (fault := self._number_fault(value, *node.outputs[:1])):
                raise RuleError(node, fault)
        if node.operator == "Constant":
            value = node.attributes.get("value")
            if inputs or set(node.attributes) != {"value"} or not isinstance(value, Tensor) or len(node.outputs) != 1:
                raise RuleError(node, "wanted one tensor as its attribute 'value', and nothing else")
            return {node.outputs[0]: self._constant(value)}
        found = RULES[node.operator].apply(node, inputs)
        made = {name: tensor for name, tensor in zip(node.outputs, found, strict=True) if name}
        if len(made) != sum(bool(name) for name in node.outputs):
            raise RuleError(node, "gives two results of one name")
        return made

    def _work(self, node: Node, made: dict[str, Known]) -> int:
        if node.operator == "Constant" or not made:
            return 0
        inputs = [self.tensors[name] for name in node.inputs if name]
        elements = max(volume(tensor.shape)[0] for tensor in (*made.values(), *inputs[:1]))
        return elements * RULES[node.operator].work(node, inputs)

    def _constant(self, tensor: Tensor) -> Known:
        if tensor.raw is None and tensor.dtype in (FLOAT, *INTEGERS) and tensor.count <= MOST_FOLLOWED:
            elements = np.empty(tensor.count, object)
            elements[:] = tensor.numbers
            return followed(tensor.dtype, elements.reshape(tensor.shape))
        span = None
        if tensor.dtype in INTEGERS and tensor.count <= MOST_INDICES:
            array = np.asarray(tensor.numbers)
            if tensor.raw is not None:
                array = np.frombuffer(self._reader.bytes_of(tensor.raw), NUMPY_TYPES[tensor.dtype])
            span = within(tensor.dtype, (int(array.min()), int(array.max())))
        return Known(tensor.dtype, tensor.shape, span=span, constant=True)

    def _number_fault(self, tensor: Tensor, name: str = "") -> str | None:
        """What is wrong with the numbers of a constant, which is read under a name."""
        found = what_is_no_number(tensor, self._reader)
        if found is None or (found != NAN and name in self._bounds):
            return None
        return f"holds {found}, from which engines make different things"

    def _check_claims(self) -> None:
        """What the file says of tensors between is what is worked out, for an engine may believe it."""
        seen: set[str] = set()
        for value in self._model.values:
            if value.name in seen:
                raise BundleError(f"value_info: {value.name[:120]!r} is given twice")
            seen.add(value.name)
            found = self.tensors.get(value.name)
            if found is None:
                raise BundleError(f"value_info: {value.name[:120]!r} is no tensor of the graph")
            if not _agrees(value, found.dtype, found.shape):
                raise BundleError(f"value_info: {value.name[:120]!r} is {found}, the file says otherwise")

    def _check_outputs(self) -> None:
        wanted = self._contract.outputs
        if [value.name for value in self._model.outputs] != [tensor.name for tensor in wanted]:
            names = [tensor.name for tensor in wanted]
            raise BundleError(f"outputs {_names(self._model.outputs)}, the manifest has {names}")
        for value, tensor in zip(self._model.outputs, wanted, strict=True):
            found = self.tensors.get(value.name)
            if found is None:
                raise BundleError(f"output {value.name!r} is made by no node")
            if found.constant:
                raise BundleError(f"output {value.name!r} does not depend on the picture")
            if found.dtype != FLOAT or found.shape != _shape(tensor):
                raise BundleError(f"output {value.name!r} is {found}, the manifest has {words(_shape(tensor))} float32")
            self._check_declared("output", value, tensor)

    def _check_declared(self, what: str, value: Value, wanted: TensorSpec) -> None:
        dtype = UINT8 if wanted.dtype == "uint8" else FLOAT
        if value.dtype != dtype or value.shape is None or not _agrees(value, dtype, _shape(wanted)):
            said = f"{TYPE_NAMES.get(value.dtype or 0, 'no type')} {words(value.shape or ())}"
            raise BundleError(
                f"{what} {value.name!r} is {said}, the manifest has {words(_shape(wanted))} {wanted.dtype}"
            )


def _agrees(value: Value, dtype: int, shape: Shape) -> bool:
    """Whether what a file says of a tensor is true, as far as it says anything."""
    if value.dtype not in (None, dtype):
        return False
    if value.shape is None:
        return True
    return len(value.shape) == len(shape) and all(
        said is None or said == size for said, size in zip(value.shape, shape, strict=True)
    )


def _shape(tensor: TensorSpec) -> Shape:
    return tuple(Batch(1) if size is None else size for size in tensor.shape)


def _names(values: Iterable[Value]) -> list[str]:
    return [value.name[:60] for value in values]
