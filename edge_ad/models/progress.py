"""What the caller of a long job hears of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What the caller of a long job wants to hear; the defaults hear nothing.

    Attributes:
        say: receives a line for each step and each assumption.
        begin: receives the title of a part and how much there is to do.
        step: one more is done; receives what to show beside the bar.
    """

    say: Callable[[str], None] = lambda _: None
    begin: Callable[[str, int], None] = lambda _, __: None
    step: Callable[[str], None] = lambda _: None
