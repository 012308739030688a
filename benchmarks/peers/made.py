"""What a family's module is told, and what it makes of it, so that one command compares any of them with anomalib."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from environment import UnavailableError
from exports import Exports
from measure import Say

from edge_ad.bundle.specs import Precision

FLOAT, INT8 = "edge-ad, fp32", "edge-ad, int8"
"""The peers that are compared with anomalib: their maps and scores are made as anomalib makes them."""


@dataclass(frozen=True)
class Wanted:
    """Attributes:
    data: in the layout of MVTec AD.
    folder: for everything that is made.
    python: of anomalib's environment, or why there is none.
    frames: sizes that anomalib is to export for, by name.
    coreset: share of the patches in a bank.
    say: tells what is being done.
    """

    data: Path
    folder: Path
    python: Path | UnavailableError
    frames: Mapping[str, tuple[int, int]]
    coreset: str
    say: Say

    def available(self) -> Path:
        """anomalib's Python. Raises: UnavailableError."""
        if isinstance(self.python, UnavailableError):
            raise self.python
        return self.python


@dataclass(frozen=True)
class Made:
    """The same weights on both sides.

    Attributes:
        bundles: of edge-ad by the name of a peer, `FLOAT` and `INT8` among them; and which of its models is meant.
        exports: of anomalib, by the names of the sizes, or why there are none.
        trained: whether the weights are, so that scores tell defects.
        what: that is compared, for the table's title.
    """

    bundles: Mapping[str, tuple[Path, Precision]]
    exports: Exports | UnavailableError
    trained: bool
    what: str
