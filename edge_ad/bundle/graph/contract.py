"""What a graph has to be, and what came of the look at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from edge_ad.bundle.manifest import Manifest
from edge_ad.bundle.specs import TensorSpec

CheckedGraph = NewType("CheckedGraph", bytes)
"""A serialised graph that `edge_ad.bundle.graph.check` has let through; engines take nothing else."""


@dataclass(frozen=True)
class GraphContract:
    """What a graph has to be.

    Attributes:
        image, outputs: its tensors, as the manifest has them.
        opset: its operator set, as the manifest has it.
        operators: that there may be; None for all of which a rule is known.
    """

    image: TensorSpec
    outputs: tuple[TensorSpec, ...]
    opset: int
    operators: frozenset[str] | None = None


@dataclass(frozen=True)
class GraphFacts:
    """What a graph came to.

    Attributes:
        opset: its operator set.
        operators: how many nodes there are of each, by name.
        weights_bytes: of its constants.
        peak_bytes: most that its tensors take at a time, beside the constants, for one picture.
        multiplications: about how many for one picture.
    """

    opset: int
    operators: dict[str, int]
    weights_bytes: int
    peak_bytes: int
    multiplications: int

    @property
    def nodes(self) -> int:
        return sum(self.operators.values())


def contract_of(manifest: Manifest) -> GraphContract:
    """What the graphs of a bundle have to be."""
    return GraphContract(manifest.input, manifest.outputs, manifest.opset)
