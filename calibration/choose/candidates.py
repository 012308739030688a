"""Configurations that are tried, in the order in which they are believed in: a further one is a line here.

The first was best, or as good as the best, on products that had no part in making it: see docs/quality.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_ad.models import DEFAULT_FAMILY


@dataclass(frozen=True)
class Candidate:
    """A configuration.

    Attributes:
        name: what the user calls it by.
        says: what it is, in words.
        family: model family.
        options: of its training, by name, beside the preset `fast`.
        cost: about how many times as long as the first one it takes to train and try.
        draws: whether its training lays textures over pictures.
        wants_tiles: whether it makes sense only where pictures are so large or long that tiles show more.
    """

    name: str
    says: str
    family: str
    options: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 1.0
    wants_tiles: bool = False
    draws: bool = False


CANDIDATES = (
    Candidate("bank", "bank of good patches", "patchcore"),
    Candidate(
        "bank-coarse",
        "the same of deeper layers, in a quarter as many patches",
        "patchcore",
        {"layers": ["features.10", "features.13"]},
        0.6,
    ),
    Candidate("bank-large", "bank of good patches at 384 pixels", "patchcore", {"imgsz": 384}, 3.0),
    Candidate("bank-tiles", "bank of good patches in tiles", "patchcore", {"tiles": "auto"}, 4.0, True),
    Candidate("head", "discriminator on patches, whose cost grows with no bank", DEFAULT_FAMILY, {}, 6.0, draws=True),
)


def options_of(candidate: Candidate, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of its training. Args: given: what the user said, of which it leaves textures that it has no use for."""
    told = {name: value for name, value in given.items() if candidate.draws or name != "textures"}
    return {"preset": "fast", **candidate.options, **told}


def candidates_for(family: str | None, tiled: bool) -> tuple[Candidate, ...]:
    """Those that make sense.

    Args:
        family: that the user wants; None for any.
        tiled: whether tiles would show more of the pictures.
    """
    return tuple(
        candidate
        for candidate in CANDIDATES
        if family in (None, candidate.family) and (tiled or not candidate.wants_tiles)
    )
