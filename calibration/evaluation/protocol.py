"""The comparison study's protocol: one half of the test images chooses the threshold, the other half reports.

Each kind of defect, and the good images, are halved on their own. Which half an image belongs to depends on the seed
and on its name alone, not on the order of the files, the machine or the other images' pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

Half = Literal["validation", "test"]


def halves(defect_of: Mapping[str, str], seed: int) -> dict[str, Half]:
    """Split images into two halves.

    Where a kind has an odd number of images, its odd one goes to the half that the odd one of the kind before did not
    go to, the test half first; so many kinds of one image each do not all end up in one half.

    Args:
        defect_of: kind of defect (or `good`) by the name of the image.
        seed: another number gives another split.

    Returns: the half by the name of the image, in the order given.
    """
    kinds: dict[str, list[str]] = {}
    for name, defect in defect_of.items():
        kinds.setdefault(defect, []).append(name)
    half_of: dict[str, Half] = {}
    extra = 0
    for defect in sorted(kinds):
        shuffled = sorted(kinds[defect], key=lambda name: _draw(seed, name))
        count = (len(shuffled) + (extra if len(shuffled) % 2 else 0)) // 2
        extra = 1 - extra if len(shuffled) % 2 else extra
        half_of.update((name, "validation") for name in shuffled[:count])
        half_of.update((name, "test") for name in shuffled[count:])
    return {name: half_of[name] for name in defect_of}


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\n".encode() + name.encode("utf-8", "surrogateescape")).digest()
