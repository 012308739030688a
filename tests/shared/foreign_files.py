"""Files that look as if another user had made them, with root's rights and without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NOBODY = 65534


def made_foreign(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> int:
    """Give files to somebody else; where that takes rights that are missing, become somebody else. Returns: whose."""
    if os.geteuid() == 0:
        for path in paths:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        return NOBODY
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    return owner
