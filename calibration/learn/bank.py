"""Learning where a graph searches a bank: what is learned becomes further entries of it.

The distance of a patch to the nearest of all entries is exact, as if they had been in the bank from the start. See
`edge_ad.models.patchcore.bank` for what the graph holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.learn.graph import AFTER, BIAS, NODE, WEIGHT, Floats, Place, insert_after, make_node
from edge_ad.calibration.learn.reweighted import Reweighting
from edge_ad.errors import BundleError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

FOUND, ALL = f"{NODE}found", f"{NODE}all"


class BankPlace(Place):
    """The search of a bank in a graph.

    Attributes:
        depth: numbers of an entry.

    Args:
        base: without learned patches.
        bank: name of the module that searches, as the family has it.

    Raises: BundleError where the graph holds no such search.
    """

    def __init__(self, base: ModelProto, bank: str) -> None:
        from onnx import numpy_helper

        weights = f"logits.{bank}.blocks."
        readers: dict[str, list[NodeProto]] = {}
        for node in base.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        products = [node for node in base.graph.node if node.op_type == "Conv" and node.input[1].startswith(weights)]
        searches = [(node, reader) for node in products for reader in readers[node.output[0]] if _reduces(reader)]
        if not searches:
            raise BundleError("the float graph searches no bank; export the bundle again")
        blocks = {
            tensor.name: np.array(numpy_helper.to_array(tensor))[:, :, 0, 0]
            for tensor in base.graph.initializer
            if tensor.name.startswith(weights) and tensor.name.endswith(".weight")
        }
        entries = np.concatenate([blocks[product.input[1]] for product, _ in searches])
        self.depth = entries.shape[1]
        self.patches, self._least = searches[0][0].input[0], searches[0][1]
        searched = {product.name for product, _ in searches}
        others = [node for node in products if node.name not in searched]
        self._reweighting = Reweighting(base, others[0], entries) if others else None
        if len(searches) > 1:
            (joint,) = readers[self._least.output[0]]
            (self._least,) = readers[joint.output[0]]

    def wire(self, model: ModelProto) -> None:
        from onnx import NodeProto

        least, learned = self._least.output[0], self._least.output[0] + AFTER
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                if name == least:
                    node.input[index] = learned
        again = NodeProto()
        again.CopyFrom(self._least)
        again.name = f"{NODE}least"
        again.input[0] = ALL
        again.output[0] = learned
        if len(again.output) > 1:
            again.output[1] = f"{NODE}places"
        nodes = (
            make_node("Conv", (self.patches, WEIGHT, BIAS), FOUND),
            make_node("Concat", (least, FOUND), ALL, axis=1),
            again,
        )
        insert_after(model, least, nodes)
        if self._reweighting is not None:
            self._reweighting.wire(model)

    def constants_of(self, rows: Floats) -> dict[str, NDArray[Any]]:
        own = super().constants_of(rows)
        return own if self._reweighting is None else own | self._reweighting.constants_of(rows)


def _reduces(node: NodeProto) -> bool:
    return node.op_type in ("ReduceMin", "TopK")
