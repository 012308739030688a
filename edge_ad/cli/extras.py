"""Optional packages that a command needs, looked for before any work."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from edge_ad.errors import MissingExtraError


def require_extra(wanted: str, modules: Iterable[str], extra: str) -> None:
    """Raise MissingExtraError unless all modules of an extra are installed; nothing is imported."""
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtraError(wanted, module, extra)
