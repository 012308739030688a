"""Learning where a graph has no bank: a small one beside the network, which lowers the map where it knows a patch.

    closeness = max(0, 1 − d² / radius²)            d: distance of a patch to the nearest learned one
    patch map = p − max(0, p − level) · closeness   p: what the network says of the patch

So a patch that looks like a learned one is taken down to `level`, what lies farther than `radius` from all of them
stays bit for bit, and nothing rises. What a patch looks like is told by inner tensors of the network, which its family
names; each is averaged over 3×3 places and brought to the resolution of the first, as PatchCore's features are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_ad.calibration.learn.graph import (
    BEFORE,
    BIAS,
    CONSTANT,
    NODE,
    WEIGHT,
    Floats,
    Place,
    add_constant,
    insert_after,
    make_node,
)
from edge_ad.errors import BundleError
from edge_ad.image.operators import nearest_matrix, resize_matrix

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

PATCH_MAP, CLOSENESS = "patch_map", f"{NODE}closeness"
CENTRE, PER_SQUARE, LEVEL = f"{CONSTANT}centre", f"{CONSTANT}per_square", f"{CONSTANT}level"
AXIS, ONE, TWO = (f"{CONSTANT}{name}" for name in ("axis", "one", "two"))


@dataclass(frozen=True)
class Known:
    """What is chosen with the first lesson and stays.

    Attributes:
        centre: (D,) float32, taken from all patches so that what is rounded stays small.
        radius: of a learned patch.
        level: what the patch map is lowered to.
    """

    centre: Floats
    radius: float
    level: float

    @classmethod
    def of(cls, constants: Mapping[str, Floats]) -> Known | None:
        """From the constants of a graph that has learned before; None where it has not."""
        if PER_SQUARE not in constants:
            return None
        radius = float(constants[PER_SQUARE].item()) ** -0.5
        return cls(constants[CENTRE].reshape(-1), radius, float(constants[LEVEL].item()))


class BesidePlace(Place):
    """A bank beside the network.

    Args:
        base: without learned patches.
        taps: tensors that tell what patches look like, with their shapes (C, h, w).
        patch_hw: of the patch map.
        known: see there.
    """

    patches = f"{NODE}patches"

    def __init__(self, taps: Mapping[str, tuple[int, int, int]], patch_hw: tuple[int, int], known: Known) -> None:
        self.taps, self.patch_hw, self.known = taps, patch_hw, known
        self.radius = known.radius
        self.cells_hw = next(iter(taps.values()))[1:]

    def wire(self, model: ModelProto) -> None:
        known = self.known
        values = {
            PER_SQUARE: np.float32(known.radius**-2),
            LEVEL: np.float32(known.level),
            ONE: np.float32(1),
            TWO: np.float32(2),
            AXIS: np.array([1], np.int64),
        }
        for name, value in values.items():
            add_constant(model, name, value)
        add_constant(model, CENTRE, known.centre[:, None, None])
        raw = PATCH_MAP + BEFORE
        for node in model.graph.node:
            for index, name in enumerate(node.output):
                if name == PATCH_MAP:
                    node.output[index] = raw
        insert_after(model, raw, [*self._patches(model), *self._closeness(model), *_lowered(raw)])

    def _patches(self, model: ModelProto) -> Iterator[NodeProto]:
        """2·(centre − x) of the averaged taps."""
        parts = []
        for number, (tap, (_, rows, columns)) in enumerate(self.taps.items()):
            part = f"{NODE}pooled{number}"
            yield make_node("AveragePool", (tap,), part, kernel_shape=(3, 3), pads=(1, 1, 1, 1), count_include_pad=1)
            if (rows, columns) != self.cells_hw:
                across, along = (
                    add_constant(model, f"{CONSTANT}{name}{number}", matrix.astype(np.float32))
                    for name, matrix in (
                        ("rows", resize_matrix(rows, self.cells_hw[0])),
                        ("columns", resize_matrix(columns, self.cells_hw[1]).T),
                    )
                )
                yield make_node("MatMul", (across, part), f"{part}/rows")
                yield make_node("MatMul", (f"{part}/rows", along), f"{part}/columns")
                part = f"{part}/columns"
            parts.append(part)
        whole = parts[0]
        if len(parts) > 1:
            whole = f"{NODE}whole"
            yield make_node("Concat", parts, whole, axis=1)
        yield make_node("Sub", (CENTRE, whole), f"{NODE}centred")
        yield make_node("Mul", (f"{NODE}centred", TWO), self.patches)

    def _closeness(self, model: ModelProto) -> Iterator[NodeProto]:
        """(N, h, w) at the resolution of the patch map, 1 at a learned patch and 0 from the radius on."""
        yield make_node("Conv", (self.patches, WEIGHT, BIAS), f"{NODE}found")
        yield make_node("ReduceMin", (f"{NODE}found",), f"{NODE}least", axes=(1,), keepdims=0)
        yield make_node("Mul", (f"{NODE}centred", f"{NODE}centred"), f"{NODE}squares")
        yield make_node("ReduceSum", (f"{NODE}squares", AXIS), f"{NODE}norms", keepdims=0)
        yield make_node("Add", (f"{NODE}least", f"{NODE}norms"), f"{NODE}distances")
        yield make_node("Relu", (f"{NODE}distances",), f"{NODE}positive")
        yield make_node("Mul", (f"{NODE}positive", PER_SQUARE), f"{NODE}relative")
        yield make_node("Sub", (ONE, f"{NODE}relative"), f"{NODE}near")
        if self.cells_hw == self.patch_hw:
            yield make_node("Relu", (f"{NODE}near",), CLOSENESS)
        else:
            across, along = (
                add_constant(model, f"{CONSTANT}{name}", matrix.astype(np.float32))
                for name, matrix in (
                    ("cell_rows", nearest_matrix(self.cells_hw[0], self.patch_hw[0])),
                    ("cell_columns", nearest_matrix(self.cells_hw[1], self.patch_hw[1]).T),
                )
            )
            yield make_node("Relu", (f"{NODE}near",), f"{NODE}close")
            yield make_node("MatMul", (across, f"{NODE}close"), f"{NODE}close/rows")
            yield make_node("MatMul", (f"{NODE}close/rows", along), CLOSENESS)


def _lowered(raw: str) -> Iterator[NodeProto]:
    yield make_node("Sub", (raw, LEVEL), f"{NODE}above")
    yield make_node("Relu", (f"{NODE}above",), f"{NODE}excess")
    yield make_node("Mul", (f"{NODE}excess", CLOSENESS), f"{NODE}taken")
    yield make_node("Sub", (raw, f"{NODE}taken"), PATCH_MAP)


def taps_of(base: ModelProto, modules: Sequence[str]) -> list[str]:
    """Tensors that modules of the network hand on to others, in the order of computation.

    Raises: BundleError where there are none.
    """
    prefixes = tuple(f"/logits/{module.replace('.', '/')}/" for module in modules)
    made = [name for node in base.graph.node if node.name.startswith(prefixes) for name in node.output]
    read = {name for node in base.graph.node if not node.name.startswith(prefixes) for name in node.input}
    taps = [name for name in made if name in read]
    if not taps:
        raise BundleError(f"the float graph holds no tensors of {', '.join(modules)}; export the bundle again")
    return taps


def check_follows_patch_map(base: ModelProto) -> None:
    """Raise BundleError where the other outputs are made of more than the patch map."""
    makers = {name: node for node in base.graph.node for name in node.output}
    inputs = {value.name for value in base.graph.input}
    waiting = [value.name for value in base.graph.output if value.name != PATCH_MAP]
    seen = {PATCH_MAP}
    while waiting:
        name = waiting.pop()
        if name in inputs:
            raise BundleError("its anomaly map or score is made of more than its patch map, so nothing can be learned")
        if name not in seen and name in makers:
            seen.add(name)
            waiting += makers[name].input
