"""What ONNX writes into protobuf, as plain values: as much of it as a graph of a bundle may hold.

`schema` says which fields these are; the numbers of types are those of onnx.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from edge_ad.bundle.graph import schema
from edge_ad.bundle.graph.wire import Reader, Source, Span, WireError

FLOAT, UINT8, INT8, INT32, INT64, BOOL, FLOAT16 = 1, 2, 3, 6, 7, 9, 10
ITEM_BYTES = {FLOAT: 4, UINT8: 1, INT8: 1, INT32: 4, INT64: 8, BOOL: 1, FLOAT16: 2}
"""Types that a tensor may have, and the size of one element."""
FORMATS = {FLOAT: "f", INT32: "i", INT64: "q", BOOL: "?"}
SMALL = 64  # elements of a tensor that are read with it
TYPE_NAMES = {
    FLOAT: "float32",
    UINT8: "uint8",
    INT8: "int8",
    INT32: "int32",
    INT64: "int64",
    BOOL: "bool",
    FLOAT16: "float16",
}
ATTRIBUTE_VALUES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}

_TYPED = {FLOAT: "float_data", INT64: "int64_data"} | dict.fromkeys((UINT8, INT8, INT32, BOOL, FLOAT16), "int32_data")


@dataclass(frozen=True)
class Tensor:
    """A constant of the graph.

    Attributes:
        name: empty for one of an attribute.
        dtype: a key of `ITEM_BYTES`.
        raw: where its bytes lie, little endian; None where `numbers` has them.
        numbers: its elements, of a small one or one that is not stored raw; float16 as its bits.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]
    raw: Span | None
    numbers: tuple[float, ...] = ()

    @property
    def count(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Node:
    """One operation. Attributes: attributes: by name; ints and floats as tuples, texts as bytes."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        """How messages name it."""
        name = self.name or (self.outputs[0] if self.outputs else "")
        return f"node {name if len(name) <= 120 else name[:117] + '...'!r} ({self.operator[:60]})"


@dataclass(frozen=True)
class Value:
    """What the file says of a tensor; None for a size that it leaves open, and for a shape that it does not give."""

    name: str
    dtype: int | None
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Model:
    """A graph and what stands around it. Attributes: opset: of ONNX's own operators, the only ones."""

    ir_version: int
    opset: int
    nodes: tuple[Node, ...]
    initializers: tuple[Tensor, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    values: tuple[Value, ...]


def read_model(source: Source) -> tuple[Model, Reader]:
    """Read a serialised model. Returns: it, and the reader that gives the bytes of its tensors. Raises: WireError."""
    reader = Reader(source)
    fields = reader.message(reader.whole, schema.MODEL, "model")
    if "graph" not in fields:
        raise WireError("it holds no graph; this is no ONNX model")
    graph = reader.message(fields["graph"], schema.GRAPH, "graph")
    sets = [reader.message(span, schema.OPERATOR_SET, "opset_import") for span in fields.get("opset_import", [])]
    model = Model(
        ir_version=fields.get("ir_version", 0),
        opset=_opset(sets),
        nodes=tuple(_node(reader, span, index) for index, span in enumerate(graph.get("node", []))),
        initializers=tuple(_tensor(reader, span, "initializer") for span in graph.get("initializer", [])),
        inputs=tuple(_value(reader, span, "input") for span in graph.get("input", [])),
        outputs=tuple(_value(reader, span, "output") for span in graph.get("output", [])),
        values=tuple(_value(reader, span, "value_info") for span in graph.get("value_info", [])),
    )
    return model, reader


def _opset(entries: list[dict[str, Any]]) -> int:
    foreign = [entry.get("domain", "") for entry in entries if entry.get("domain", "") not in ("", "ai.onnx")]
    if foreign:
        raise WireError(f"opset_import: operators of {foreign[0][:60]!r}, a graph of a bundle has those of ONNX alone")
    if len(entries) != 1:
        raise WireError(f"opset_import: wanted one operator set, got {len(entries)}")
    return int(entries[0].get("version", 0))


def _node(reader: Reader, span: Span, index: int) -> Node:
    fields = reader.message(span, schema.NODE, f"node {index}")
    node = Node(
        fields.get("name", ""),
        fields.get("op_type", ""),
        tuple(fields.get("input", ())),
        tuple(fields.get("output", ())),
        {},
    )
    if fields.get("domain", "") not in ("", "ai.onnx"):
        raise WireError(f"{node}: is of {fields['domain'][:60]!r}, a graph of a bundle has ONNX's own operators alone")
    attributes: dict[str, Any] = {}
    label = f"{node}: attribute"
    for entry in fields.get("attribute", []):
        name, value = _attribute(reader, entry, label)
        if name in attributes:
            raise WireError(f"{node}: attribute {name!r} is given twice")
        attributes[name] = value
    return Node(node.name, node.operator, node.inputs, node.outputs, attributes)


def _attribute(reader: Reader, span: Span, label: str) -> tuple[str, Any]:
    fields = reader.message(span, schema.ATTRIBUTE, label)
    name = fields.get("name", "")[:60]
    where = f"{label} {name!r}"
    wanted = ATTRIBUTE_VALUES.get(fields.get("type", 0))
    given = [key for key in ("f", "i", "s", "t", "floats", "ints", "strings") if key in fields]
    if wanted is None or (given and given != [wanted]):
        raise WireError(f"{where}: says type {fields.get('type', 0)} and holds {', '.join(given) or 'nothing'}")
    if wanted in ("floats", "ints", "strings"):
        value = tuple(fields.get(wanted, ()))
        return name, tuple(_short(reader, entry, where) for entry in value) if wanted == "strings" else value
    if wanted not in fields and wanted in ("t", "s"):
        raise WireError(f"{where}: holds nothing")
    if wanted == "t":
        return name, _tensor(reader, fields["t"], where)
    if wanted == "s":
        return name, _short(reader, fields["s"], where)
    return name, fields.get(wanted, 0)


def _short(reader: Reader, span: Span, where: str) -> bytes:
    if span[1] - span[0] > 64:
        raise WireError(f"{where}: text of {span[1] - span[0]} bytes, 64 are the most")
    return reader.bytes_of(span)


def _tensor(reader: Reader, span: Span, what: str) -> Tensor:
    fields = reader.message(span, schema.TENSOR, what)
    name, dtype = fields.get("name", ""), fields.get("data_type", 0)
    where = f"{what} {name[:120]!r}" if name else what
    if fields.get("data_location", 0) != 0:
        raise WireError(f"{where}: {schema.OUTSIDE}")
    if dtype not in ITEM_BYTES:
        raise WireError(f"{where}: type {dtype}, wanted one of {', '.join(TYPE_NAMES.values())}")
    shape = tuple(fields.get("dims", ()))
    if any(size < 0 for size in shape) or (0 in shape and len(shape) != 1):
        raise WireError(f"{where}: shape {shape}, which no tensor has")
    count = prod(shape)
    given = [key for key in ("raw_data", "float_data", "int32_data", "int64_data") if key in fields]
    if given == ["raw_data"]:
        start, stop = fields["raw_data"]
        if stop - start != count * ITEM_BYTES[dtype]:
            raise WireError(f"{where}: {stop - start} bytes for shape {shape} of {TYPE_NAMES[dtype]}")
        if count <= SMALL and dtype in FORMATS:
            return Tensor(
                name, dtype, shape, None, struct.unpack(f"<{count}{FORMATS[dtype]}", reader.bytes_of((start, stop)))
            )
        return Tensor(name, dtype, shape, (start, stop))
    if (given not in ([], [_TYPED[dtype]])) or len(fields.get(_TYPED[dtype], ())) != count:
        raise WireError(f"{where}: {', '.join(given) or 'nothing'} for shape {shape} of {TYPE_NAMES[dtype]}")
    return Tensor(name, dtype, shape, None, tuple(fields.get(_TYPED[dtype], ())))


def _value(reader: Reader, span: Span, what: str) -> Value:
    fields = reader.message(span, schema.VALUE, what)
    name = fields.get("name", "")
    where = f"{what} {name[:120]!r}"
    if "type" not in fields:
        return Value(name, None, None)
    kind = reader.message(fields["type"], schema.TYPE, where)
    if "tensor_type" not in kind:
        return Value(name, None, None)
    tensor = reader.message(kind["tensor_type"], schema.TENSOR_TYPE, where)
    dtype = tensor.get("elem_type", 0)
    if "shape" not in tensor:
        return Value(name, dtype or None, None)
    dims = reader.message(tensor["shape"], schema.SHAPE, where).get("dim", [])
    return Value(name, dtype or None, tuple(_size(reader.message(dim, schema.DIMENSION, where), where) for dim in dims))


def _size(dim: dict[str, Any], where: str) -> int | None:
    if "dim_value" in dim and "dim_param" in dim:
        raise WireError(f"{where}: a size has both a number and a name")
    size: int | None = dim.get("dim_value")
    return size
