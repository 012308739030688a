"""What is said of an operator: how many inputs it takes, which attributes it may have, and a rule for what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from edge_ad.bundle.graph.known import Known, RuleError
from edge_ad.bundle.graph.model import Node, Tensor

Inputs = Sequence[Known | None]
Rule = Callable[[Node, Inputs], list[Known]]
Work = Callable[[Node, Sequence[Known]], int]

INT, FLOAT, TEXT, INTS, TENSOR = "a whole number", "a number", "a text", "whole numbers", "a tensor"


@dataclass(frozen=True)
class Operator:
    """An operator of ONNX, opset 13 to 17.

    Attributes:
        rule: what it gives, for inputs of which the needed ones are there; raises RuleError.
        inputs: fewest and most; one that may be left out is None where it is.
        attributes: those that it may have, and what they hold.
        outputs: most of them.
        empty: positions of inputs at which a tensor without elements says that there is none.
        work: multiplications for each element of its first output; 1 where nothing is said.
    """

    rule: Rule
    inputs: tuple[int, int]
    attributes: Mapping[str, str] = field(default_factory=dict)
    outputs: int = 1
    empty: frozenset[int] = frozenset()
    work: Work = lambda node, inputs: 1

    def apply(self, node: Node, inputs: Inputs) -> list[Known]:
        """What a node gives, one for each of its outputs. Raises: RuleError for what the rule does not know."""
        least, most = self.inputs
        if not least <= len(inputs) <= most or any(source is None for source in inputs[:least]):
            raise RuleError(node, f"{len(inputs)} inputs, wanted {least}{f' to {most}' if most > least else ''}")
        for position, source in enumerate(inputs):
            if source is not None and 0 in source.shape and position not in self.empty:
                raise RuleError(node, f"input {position} has no elements, {source}")
        if not 1 <= len(node.outputs) <= self.outputs:
            raise RuleError(node, f"{len(node.outputs)} outputs, wanted {self.outputs} at most")
        for name, value in node.attributes.items():
            wanted = self.attributes.get(name)
            if wanted is None:
                raise RuleError(node, f"attribute {name[:60]!r} is unknown")
            if not _is(wanted, value):
                raise RuleError(node, f"attribute {name!r}: wanted {wanted}, got {str(value)[:60]}")
        found = self.rule(node, inputs)
        if len(found) < len(node.outputs):
            raise RuleError(node, f"{len(node.outputs)} outputs, it gives {len(found)}")
        return found[: len(node.outputs)]


def _is(wanted: str, value: Any) -> bool:
    match wanted:
        case "a whole number":
            return isinstance(value, int)
        case "a number":
            return isinstance(value, float) and isfinite(value)
        case "a text":
            return isinstance(value, bytes)
        case "a tensor":
            return isinstance(value, Tensor)
    return isinstance(value, tuple) and all(isinstance(entry, int) for entry in value)


def flag(node: Node, name: str, default: int) -> bool:
    """An attribute that is 0 or 1. Raises: RuleError."""
    value = node.attributes.get(name, default)
    if value not in (0, 1):
        raise RuleError(node, f"attribute {name!r}: wanted 0 or 1, got {value}")
    return bool(value)


def one_of(node: Node, name: str, allowed: Sequence[bytes]) -> bytes:
    """An attribute that says a way; the first is the default. Raises: RuleError."""
    value: bytes = node.attributes.get(name, allowed[0])
    if value not in allowed:
        words = ", ".join(way.decode() for way in allowed)
        raise RuleError(node, f"attribute {name!r}: wanted one of {words}, got {ascii(value)[1:60]}")
    return value


def bounded(node: Node, name: str, default: Sequence[int], least: int, most: int) -> tuple[int, ...]:
    """An attribute that is a list as long as its default. Raises: RuleError for other lengths and numbers."""
    values = tuple(node.attributes.get(name, default))
    if len(values) != len(default) or not all(least <= value <= most for value in values):
        shown = str(values)[:60]
        raise RuleError(node, f"attribute {name!r}: wanted {len(default)} numbers from {least} to {most}, got {shown}")
    return values
