"""What a plan holds, read from its bytes: without a GPU it cannot be loaded, but it can be looked at."""

from __future__ import annotations

import re
from collections import Counter

CONSTANT = re.compile(rb"const_payload_size=(\d+)[^{}]*\{[^{}]*\}[^\n]*?\btype=(\w+)")


def plan_payload(plan: bytes) -> dict[str, int]:
    """Bytes of constants (weights, biases, scales) in a plan, by element type, the largest first.

    A plan of TensorRT-RTX lists them in its text. A plan of TensorRT has no such text, and the result is empty.
    """
    total: Counter[str] = Counter()
    for size, element in CONSTANT.findall(plan):
        total[element.decode()] += int(size)
    return dict(total.most_common())


def describe_payload(payload: dict[str, int]) -> str:
    """On one line, such as `int8 26.5 MB, float 0.4 MB`."""
    return ", ".join(f"{element} {_size(size)}" for element, size in payload.items())


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"
