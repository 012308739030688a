"""What was done to pictures that nobody asked for, and which files were passed over: said once, and counted.

A reader deep below a command notices; the command decides where that is said. Where nobody listens, nothing is kept.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

TURNED = "turned upright, as the orientation tag says"
TRANSPARENT = "transparent pixels taken in the colour below their alpha"
CMYK = "CMYK converted to RGB without a colour profile"
FURTHER = "first of several pictures in the file taken (MPO)"
PROFILE = "colour profile other than sRGB not applied"
QUARTER = "16 bits of which a quarter of the range is used at most (14-bit data?)"

MOST_KEPT = 10_000  # paths of each kind
MOST_LINES = 5  # about files that are passed over
_LONGEST_SUFFIX = 12

_listeners: list[_Noticed] = []


class _Noticed:
    """What has been noticed during one command; from any thread."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._paths: dict[str, set[str]] = {}
        self._passed: set[str] = set()
        self._suffixes: Counter[str] = Counter()
        self._lines = self._told = 0

    def note(self, what: str, path: str) -> None:
        with self._lock:
            paths = self._paths.setdefault(what, set())
            is_first = not paths
            if len(paths) < MOST_KEPT:
                paths.add(path)
        if is_first:
            self._say(f"note: {path}: {what}")

    def pass_over(self, paths: Iterable[str]) -> None:
        with self._lock:
            new = [path for path in paths if path not in self._passed]
            new = new[: MOST_KEPT - len(self._passed)]
            if not new:
                return
            self._passed.update(new)
            counts = Counter(map(_suffix, new))
            is_news = self._lines < MOST_LINES and not counts.keys() <= self._suffixes.keys()
            self._suffixes += counts
            if not is_news:
                return
            self._lines += 1
            self._told = len(self._passed)
        self._say(
            f"warning: not taken for pictures, by their endings: {_listed(counts)}; the first is {new[0]}; convert or"
            " rename what should be read"
        )

    def close(self) -> None:
        for what, paths in self._paths.items():
            if len(paths) > 1:
                self._say(f"note: {what}: {_at_least(len(paths))} pictures")
        if self._told != len(self._passed):
            self._say(f"warning: not taken for pictures, in all: {_listed(self._suffixes)}")


@contextmanager
def noticing(say: Callable[[str], None]) -> Iterator[None]:
    """Say what is noticed meanwhile, the first of a kind at once and how many at the end. The innermost listens."""
    noticed = _Noticed(_unfailing(say))
    _listeners.append(noticed)
    try:
        yield
    finally:
        _listeners.remove(noticed)
        noticed.close()


def _unfailing(say: Callable[[str], None]) -> Callable[[str], None]:
    """A full disk behind standard error must not cost a picture."""

    def tell(line: str) -> None:
        with suppress(Exception):
            say(line)

    return tell


def notice(what: str, path: str) -> None:
    """`what`, one of the constants above, was done to the picture at `path`."""
    if _listeners:
        _listeners[-1].note(what, path)


def pass_over(paths: Iterable[str]) -> None:
    """Files that lie among pictures and are not taken for some."""
    if _listeners:
        _listeners[-1].pass_over(paths)


def _suffix(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    if not suffix:
        return "none"
    return suffix if len(suffix) <= _LONGEST_SUFFIX and suffix.isprintable() else "others"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{suffix} ({count})" for suffix, count in counts.most_common(8))


def _at_least(count: int) -> str:
    return f"{count} or more" if count == MOST_KEPT else str(count)
