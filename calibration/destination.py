"""Where a command writes the bundle that it changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_ad.validation import strict


@strict
@dataclass(frozen=True, kw_only=True)
class ChangedBundle:
    """Options of a command that reads a bundle and writes it changed, there or elsewhere.

    Attributes:
        bundle: directory of the bundle.
        output: directory of the bundle to write.
        in_place: replace `bundle` instead.
        force: replace an existing bundle at `output`.
    """

    bundle: Path
    output: Path | None = None
    in_place: bool = False
    force: bool = False

    @property
    def destination(self) -> Path:
        return self.bundle if self.output is None else self.output

    @property
    def replaces(self) -> bool:
        return self.in_place or self.force

    def destination_faults(self) -> Iterator[str]:
        """What is wrong with where it is to be written, a line that begins with the key."""
        if (self.output is None) != self.in_place:
            yield "output: give either --output BUNDLE, or --in-place to replace the bundle itself"
