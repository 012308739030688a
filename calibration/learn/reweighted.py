"""The score that looks at what lies around the nearest entry of a bank, when the bank has grown.

Its graph holds a table of the entries nearest to each entry, itself first. Learned patches are entries like the others:
they get rows of their own, and stand in those of the entries that they are near to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.learn.graph import (
    AFTER,
    BIAS,
    CONSTANT,
    NODE,
    WEIGHT,
    Floats,
    add_constant,
    insert_after,
    make_node,
)
from edge_ad.errors import BundleError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

AXES = f"{CONSTANT}axes"
FOUND, FLAT = f"{NODE}reweight/found", f"{NODE}reweight/flat"


class GrownTable:
    """The table of a bank, and of the bank with more entries.

    Args:
        bank: (M, D) float32, minus its centre.
        table: (M, b) integers: the entries nearest to each, itself first.
    """

    def __init__(self, bank: Floats, table: NDArray[np.integer]) -> None:
        self._bank, self._table = bank.astype(np.float64), table.astype(np.int64)
        self._squares = np.stack(
            [np.square(self._bank - self._bank[column]).sum(1) for column in self._table.T], axis=1
        )
        self._squares[:, 0] = -np.inf

    def with_rows(self, rows: Floats) -> NDArray[np.int32]:
        """(M + K, b): the table of the bank and patches (K, D) behind it; of none, as if one were far from all."""
        count, width = self._table.shape
        if not len(rows):
            return np.concatenate([self._table, np.zeros((1, width), np.int64)]).astype(np.int32)
        new = rows.astype(np.float64)
        every = np.concatenate([self._bank, new])
        squares = np.square(every).sum(1)[:, None] + np.square(new).sum(1) - 2 * every @ new.T  # (M + K, K)
        places = np.broadcast_to(np.arange(count, count + len(new)), (count, len(new)))
        candidates = np.concatenate([self._table, places], axis=1)
        old = _smallest(np.concatenate([self._squares, squares[:count]], axis=1), candidates, width)
        own = squares.T.copy()
        own[np.arange(len(new)), np.arange(count, count + len(new))] = -np.inf
        added = _smallest(own, np.broadcast_to(np.arange(len(every)), own.shape), width)
        return np.concatenate([old, added]).astype(np.int32)


class Reweighting:
    """The part of a graph that looks the table up, see `edge_ad.models.patchcore.fold.Reweight`.

    Args:
        base: the graph.
        product: its convolution of the farthest patch with the first block of the bank.
        bank: (M, D), all blocks.

    Raises: BundleError where the graph is built otherwise.
    """

    def __init__(self, base: ModelProto, product: NodeProto, bank: Floats) -> None:
        from onnx import numpy_helper

        self._farthest = product.input[0]
        constants = {tensor.name: tensor for tensor in base.graph.initializer}
        tables = [name for name in constants if name.endswith(".neighbours")]
        choices = [node for node in base.graph.node if node.op_type == "ArgMin"]
        lookups = [node for node in base.graph.node if node.op_type == "Gather" and node.input[0] in tables]
        if (len(choices), len(lookups)) != (1, 1):
            raise BundleError("the float graph looks up neighbours in a way that is not known; export the bundle again")
        (choice,), (lookup,) = choices, lookups
        self._distances, self._lookup = choice.input[0], lookup.name
        self._name = lookup.input[0] + AFTER
        self._rows = _reader_of_rows(base, lookup)
        self._table = GrownTable(bank, numpy_helper.to_array(constants[lookup.input[0]]))

    def constants_of(self, rows: Floats) -> dict[str, NDArray[Any]]:
        """The table, by the name that the graph reads it under."""
        return {self._name: self._table.with_rows(rows)}

    def wire(self, model: ModelProto) -> None:
        rows, choice = self._rows.input[0], self._distances + AFTER
        add_constant(model, AXES, np.array([2, 3], np.int64))
        for node in model.graph.node:
            if node.op_type == "ArgMin":
                node.input[0] = choice
            if node.name == self._lookup:
                node.input[0] = self._name
            if node.name == self._rows.name:
                node.input[0] = rows + AFTER
        nodes = [
            make_node("Conv", (self._farthest, WEIGHT, BIAS), FOUND),
            make_node("Squeeze", (FOUND, AXES), FLAT),
            make_node("Concat", (self._distances, FLAT), choice, axis=1),
        ]
        insert_after(model, self._distances, nodes)
        computed = any(rows in node.output for node in model.graph.node)
        grown = make_node("Concat", (rows, WEIGHT), rows + AFTER, axis=0)
        insert_after(model, rows if computed else self._distances, [grown])


def _reader_of_rows(base: ModelProto, lookup: NodeProto) -> NodeProto:
    """The node that takes entries of the bank by the places from the table, cast or not."""
    places = lookup.output[0]
    while True:
        reader: NodeProto = next(node for node in base.graph.node if places in node.input)
        if reader.op_type == "Gather":
            return reader
        places = reader.output[0]


def _smallest(squares: NDArray[np.float64], places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    order = np.argsort(squares, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(places, order, axis=1)
