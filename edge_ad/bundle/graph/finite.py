"""Constants of a graph that are no numbers: engines differ on what follows from them.

ONNX Runtime carries NaN through to the score, which is then refused. In OpenVINO a ReLU makes 0 of it, and the score
looks like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.graph.model import FLOAT, FLOAT16, Node, Tensor
from edge_ad.bundle.graph.wire import Reader

NAN = "NaN"
BITS = {FLOAT: ("<u4", 0x7F80_0000, 0x007F_FFFF), FLOAT16: ("<u2", 0x7C00, 0x03FF)}
"""Of each type: how it is looked at, its exponent, and its mantissa. All of the exponent is set in NaN and infinity."""
CHUNK = 1 << 18  # bytes that are looked at together, which stay in a processor's cache

BOUNDS = frozenset({("Pad", 2), ("Clip", 1), ("Clip", 2)})
"""Operators and the places of inputs that may be infinite: poolings pad with it, and limits that are none have it."""
CARRIERS = frozenset({"Cast", "Identity"})


def what_is_no_number(tensor: Tensor, reader: Reader) -> str | None:
    """`NaN` or `an infinity`, where a constant holds one; None for whole numbers and finite ones."""
    if tensor.dtype not in BITS:
        return None
    kind, exponent, mantissa = BITS[tensor.dtype]
    found = None
    for bits in _chunks(tensor, reader, kind):
        special = bits & np.array(exponent, kind)
        if not len(bits) or int(special.max()) != exponent:
            continue
        if bool(((special == exponent) & ((bits & np.array(mantissa, kind)) != 0)).any()):
            return NAN
        found = "an infinity"
    return found


def _chunks(tensor: Tensor, reader: Reader, kind: str) -> Iterator[NDArray[np.unsignedinteger]]:
    """Elements as the bits that they are stored in."""
    if tensor.raw is None:
        floats = tensor.dtype == FLOAT
        yield np.array(tensor.numbers, "<f4").view(kind) if floats else np.array(tensor.numbers, np.int64).astype(kind)
        return
    start, stop = tensor.raw
    for at in range(start, stop, CHUNK):
        yield np.frombuffer(reader.bytes_of((at, min(at + CHUNK, stop))), kind)


def read_as_bounds(nodes: Sequence[Node], outputs: Iterable[str]) -> frozenset[str]:
    """Names of tensors that are read nowhere but where an infinity may stand. Args: outputs: of the graph."""
    bounds = dict.fromkeys(outputs, False)
    for node in reversed(nodes):
        carried = node.operator in CARRIERS and all(bounds.get(name, False) for name in node.outputs)
        for place, name in enumerate(node.inputs):
            bounds[name] = bounds.get(name, True) and (carried or (node.operator, place) in BOUNDS)
    return frozenset(name for name, only in bounds.items() if only)
