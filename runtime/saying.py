"""Telling the user something, where nothing may depend on whether that works."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


def unfailing(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say`, but never raising: a closed pipe or a full disk behind standard error must not cost a verdict."""

    def tell(line: str) -> None:
        try:
            say(line)
        except Exception:
            log.debug("could not be said: %s", line)

    return tell
