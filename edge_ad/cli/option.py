"""Command-line options whose values are checked together, so that all faults are reported at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def text_option(*names: str, metavar: str, help: str) -> Callable[[F], F]:
    """An option that is passed on as text (None when not given) to a checker of all options."""
    return click.option(*names, metavar=metavar, help=help, default=None)
