"""What a driver needs to know of one kernel launch."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARED_LIMIT_BYTES = 48 * 1024  # per block on every GPU, without asking for more
GRID_LIMIT = 65535  # blocks downwards, and images
ALIGNMENT_BYTES = 16


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        kernel: name of the entry point.
        grid, block: blocks, and threads of a block: x, y, z.
        shared_bytes: dynamic shared memory of a block.
        format: types of the arguments as the module `struct` and pycuda's `Function.prepare` write them.
        values: the arguments: addresses and structs.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    format: str
    values: tuple[int | bytes, ...]

    @property
    def argument_buffer(self) -> bytes:
        """The arguments as the driver takes them, in native alignment."""
        return struct.pack(f"@{self.format}", *self.values)


class Tables:
    """Arrays that a kernel reads, one behind the other, so that they are one allocation and one copy.

    Attributes:
        data: all of them, (n,) uint8.
    """

    def __init__(self, **arrays: NDArray[Any]) -> None:
        self._offsets: dict[str, int] = {}
        parts: list[bytes] = []
        end = 0
        for name, array in arrays.items():
            self._offsets[name] = end
            content = np.ascontiguousarray(array).tobytes()
            parts.append(content + bytes(-len(content) % ALIGNMENT_BYTES))
            end += len(parts[-1])
        self.data: NDArray[np.uint8] = np.frombuffer(b"".join(parts), np.uint8)

    def addresses(self, base: int) -> tuple[int, ...]:
        """Of the arrays, in the order that they were given in, where `data` lies at `base`."""
        return tuple(base + offset for offset in self._offsets.values())


def source(name: str) -> str:
    """Text of a kernel's source: `resize_smooth` or `preprocess`. No header and no option is needed to compile it."""
    return (resources.files(__package__) / f"{name}.cu").read_text(encoding="utf-8")
