"""Another user of the same machine, as far as caches go."""

from __future__ import annotations

from pathlib import Path

import pytest


def become(patch: pytest.MonkeyPatch, home: Path) -> None:
    """State and caches are those of a user with that home, whatever key the one who runs the tests has."""
    patch.setenv("XDG_STATE_HOME", str(home / "state"))
    patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
