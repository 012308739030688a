"""What is known of a tensor before anything is computed: its type, its shape, and what its elements can be.

A size is a number, or a multiple of the batch where that is left open. What a graph computes of shapes is followed
element by element, so that no size is ever left to be found out by an engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.graph.model import FLOAT, FLOAT16, INT32, INT64, ITEM_BYTES, TYPE_NAMES, Node
from edge_ad.bundle.graph.schema import MOST_RANK
from edge_ad.errors import BundleError

MOST_FOLLOWED = 64  # elements of a tensor that are known one by one; shapes and positions have fewer
LARGEST = 1 << 40  # of what a graph computes of sizes
INTEGERS = (INT32, INT64)
FLOATS = (FLOAT, FLOAT16)


class RuleError(BundleError):
    """A node that no engine is to see."""

    def __init__(self, node: Node, why: str) -> None:
        super().__init__(f"{node}: {why}")


@dataclass(frozen=True)
class Batch:
    """`times` times the number of pictures, where that is left open."""

    times: int

    def __str__(self) -> str:
        return "N" if self.times == 1 else f"{self.times}N"


Size = int | Batch
Shape = tuple[Size, ...]
Elements = NDArray[np.object_]
"""Elements that are ints, floats, multiples of the batch, or None where one is not known."""


@dataclass(frozen=True)
class Known:
    """A tensor.

    Attributes:
        dtype: a key of `ITEM_BYTES`.
        shape: at least 1 in every direction, but for constants that stand for "not given".
        elements: of a small one, in its shape; None where they are not known.
        span: least and greatest element, of whole numbers; None where they may be anything.
        constant: whether it is the same for every picture, so that an engine computes it while it loads.
    """

    dtype: int
    shape: Shape
    elements: Elements | None = None
    span: tuple[int, int] | None = None
    constant: bool = False

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def bytes_per_picture(self) -> int:
        return ITEM_BYTES[self.dtype] * volume(self.shape)[0]

    def __str__(self) -> str:
        return f"{TYPE_NAMES[self.dtype]} {words(self.shape)}"


def words(shape: Iterable[Size | None]) -> str:
    """A shape in a message."""
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"


def volume(shape: Shape) -> tuple[int, int]:
    """How many elements, without the batch, and how often that is a factor."""
    count, batches = 1, 0
    for size in shape:
        if isinstance(size, Batch):
            count, batches = count * size.times, batches + 1
        else:
            count *= size
    return count, batches


def followed(dtype: int, elements: Any, *, constant: bool = True) -> Known:
    """A small tensor of which every element is looked at."""
    array = np.asarray(elements, dtype=object)
    if dtype in FLOATS:
        array = _each(lambda value: None if isinstance(value, Batch) else value, array)
    numbers = [value for value in array.flat if isinstance(value, int)]
    span = within(dtype, (min(numbers), max(numbers))) if numbers and len(numbers) == array.size else None
    shape = tuple(int(size) for size in array.shape)
    if numbers and dtype == INT32 and within(dtype, (min(numbers), max(numbers))) is None:
        return Known(dtype, shape, constant=constant)
    return Known(dtype, shape, array, span, constant)


def within(dtype: int, span: tuple[int, int] | None) -> tuple[int, int] | None:
    """A span, if it is one of whole numbers that fit the type."""
    if span is None or dtype not in INTEGERS:
        return None
    most = (1 << (31 if dtype == INT32 else 63)) - 1
    return span if -most - 1 <= span[0] and span[1] <= most else None


def _each(function: Any, array: Elements) -> Elements:
    found = np.empty(array.shape, object)
    for index, value in np.ndenumerate(array):
        found[index] = function(value)
    return found


def each(function: Any, *arrays: Elements) -> Elements:
    """A function of the elements of arrays that are broadcast together; an unknown one makes the result unknown."""
    spread = np.broadcast_arrays(*arrays)
    found = np.empty(spread[0].shape, object)
    for index in np.ndindex(found.shape):
        values = [array[index] for array in spread]
        found[index] = None if any(value is None for value in values) else _kept(function(*values))
    return found


def _kept(value: Any) -> Any:
    size = value.times if isinstance(value, Batch) else value
    return None if size is None or abs(size) > LARGEST else value


def plus(a: Any, b: Any) -> Any:
    if isinstance(a, Batch) and isinstance(b, Batch):
        return Batch(a.times + b.times)
    if isinstance(a, Batch) or isinstance(b, Batch):
        return a if b == 0 else b if a == 0 else None
    return a + b


def minus(a: Any, b: Any) -> Any:
    if isinstance(a, Batch) and isinstance(b, Batch):
        return 0 if a == b else None
    return plus(a, Batch(-b.times) if isinstance(b, Batch) else -b) if b != 0 else a


def times(a: Any, b: Any) -> Any:
    if isinstance(a, Batch) and isinstance(b, Batch):
        return None
    if isinstance(a, Batch) or isinstance(b, Batch):
        batch, other = (a, b) if isinstance(a, Batch) else (b, a)
        return Batch(batch.times * other) if other else None
    return a * b


def over(a: Any, b: Any) -> Any:
    """Division of whole numbers that are not negative: of others, engines round in different ways."""
    if isinstance(b, Batch):
        return a.times // b.times if isinstance(a, Batch) and b.times and a.times % b.times == 0 else None
    if b < 1:
        return None
    if isinstance(a, Batch):
        return Batch(a.times // b) if a.times % b == 0 else None
    return a // b if a >= 0 else None


def rest(a: Any, b: Any) -> Any:
    """What division of whole numbers leaves."""
    if isinstance(a, Batch):
        return 0 if isinstance(b, int) and b and a.times % b == 0 else None
    return a % b if isinstance(b, int) and b > 0 and a >= 0 else None


def broadcast(node: Node, shapes: Sequence[Shape]) -> Shape:
    """The common shape of several. Raises: RuleError when there is none."""
    rank = max(len(shape) for shape in shapes)
    found: list[Size] = []
    for axis in range(rank):
        sizes = {shape[axis - rank + len(shape)] for shape in shapes if axis - rank + len(shape) >= 0} - {1}
        if len(sizes) > 1:
            raise RuleError(node, f"shapes {' and '.join(map(words, shapes))} do not go together")
        found.append(sizes.pop() if sizes else 1)
    return checked(node, found)


def checked(node: Node, shape: Iterable[Size | None]) -> Shape:
    """A shape of which nothing is unknown or impossible. Raises: RuleError."""
    found = tuple(shape)
    if len(found) > MOST_RANK:
        raise RuleError(node, f"gives {len(found)} directions, {MOST_RANK} are the most")
    sizes: list[Size] = []
    for size in found:
        number = size.times if isinstance(size, Batch) else size
        if size is None or not isinstance(number, int):
            raise RuleError(node, f"gives a shape that is not known beforehand, {words(found)}")
        if not 1 <= number <= LARGEST:
            raise RuleError(node, f"gives the shape {words(found)}, which no tensor has")
        sizes.append(size)
    if volume(tuple(sizes))[1] > 1:
        raise RuleError(node, f"gives the shape {words(found)}: pictures times pictures")
    return tuple(sizes)


def axis_of(node: Node, axis: int, rank: int) -> int:
    """An axis, counted from the front. Raises: RuleError for one that is not there."""
    if not -rank <= axis < rank:
        raise RuleError(node, f"axis {axis} of {rank}")
    return axis % rank


def axes_of(node: Node, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Different axes, counted from the front. Raises: RuleError."""
    found = tuple(axis_of(node, axis, rank) for axis in axes)
    if len(set(found)) != len(found):
        raise RuleError(node, f"axes {tuple(axes)}, one of them twice")
    return found


def not_batch(node: Node, source: Known, axis: int, what: str) -> int:
    """Size of an axis that is not that of the pictures. Raises: RuleError."""
    size = source.shape[axis]
    if isinstance(size, Batch):
        raise RuleError(node, f"{what} axis {axis}, which is that of the pictures")
    return size


def whole_numbers(node: Node, source: Known | None, what: str, most: int = MOST_FOLLOWED) -> list[Any]:
    """Elements of a tensor that says sizes or positions; multiples of the batch among them. Raises: RuleError."""
    if source is None or source.dtype not in INTEGERS or source.rank > 1:
        raise RuleError(node, f"{what}: wanted a list of whole numbers, got {source or 'nothing'}")
    if source.elements is None or source.elements.size > most or any(value is None for value in source.elements.flat):
        raise RuleError(node, f"{what}: not known beforehand")
    return list(source.elements.flat)


def plain_numbers(node: Node, source: Known | None, what: str) -> list[int]:
    """The same, numbers alone. Raises: RuleError."""
    found = whole_numbers(node, source, what)
    if not all(isinstance(value, int) for value in found):
        raise RuleError(node, f"{what}: depends on the number of pictures")
    return found


def is_constant(sources: Iterable[Known | None]) -> bool:
    return all(source is None or source.constant for source in sources)
