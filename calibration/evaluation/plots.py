"""The door to Matplotlib."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any


def load_matplotlib() -> Any:
    """Matplotlib with its figures, and without pyplot, which would pick a window system.

    Where HOME cannot be written, its import keeps a list of fonts in a temporary folder, and warns of the time that
    this takes; the page that is written is the same.

    Raises: ModuleNotFoundError without Matplotlib.
    """
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import_module("matplotlib.figure")
        return import_module("matplotlib")
    finally:
        logger.setLevel(before)
