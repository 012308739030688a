"""Text that standard output can show."""

from __future__ import annotations

import sys


def printable(text: str) -> str:
    """The text with `?` for what the terminal cannot show: a bundle or a camera may have any name."""
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "replace").decode(encoding)
