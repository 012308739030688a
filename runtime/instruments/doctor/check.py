"""What a check finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

State = Literal["ok", "missing", "broken", "note"]
"""`ok`: works. `missing`: not there. `broken`: there, and does not work. `note`: is as it is, or not needed here."""


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: as the user writes it after `--require`.
        state: see `State`.
        found: what is there, or why it does not work; one line.
        remedy: what to do, as the command for this machine where there is one; None where there is nothing to do.
        details: further lines, such as one for each GPU.
    """

    name: str
    state: State
    found: str
    remedy: str | None = None
    details: tuple[str, ...] = ()

    def reworded(self, change: Callable[[str], str]) -> Check:
        """The same with every text changed."""
        remedy = None if self.remedy is None else change(self.remedy)
        return replace(self, found=change(self.found), remedy=remedy, details=tuple(map(change, self.details)))


@dataclass(frozen=True)
class Section:
    """Checks of one subject, under a heading."""

    title: str
    checks: tuple[Check, ...]
