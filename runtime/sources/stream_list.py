"""Text files that list sources, one on each line: `line3.streams`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge_ad.errors import SourceError, os_reason

SUFFIX = ".streams"
COMMENT = "#"


def is_list(source: object) -> bool:
    """Whether a source is a file that lists others, and not an address or pipeline whose name ends alike."""
    text = str(source)
    return text.lower().endswith(SUFFIX) and "://" not in text


def listed_sources(sources: Iterable[str]) -> tuple[str, ...]:
    """The sources themselves, with every `*.streams` file replaced by what it lists.

    Empty lines and lines that begin with `#` do not count; a `#` further on belongs to an address.

    Raises: SourceError for a file that cannot be read or lists nothing.
    """
    listed: list[str] = []
    for source in sources:
        if is_list(source):
            listed += _lines(Path(source))
        else:
            listed.append(source)
    return tuple(listed)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text("utf-8")
    except OSError as exc:
        raise SourceError(f"list of sources {path}: cannot be read: {os_reason(exc)}") from exc
    except UnicodeDecodeError as exc:
        raise SourceError(f"list of sources {path}: is no UTF-8 text; write one source on each line") from exc
    lines = [line.strip() for line in text.splitlines()]
    sources = [line for line in lines if line and not line.startswith(COMMENT)]
    if not sources:
        raise SourceError(f"list of sources {path}: lists none; write one source on each line")
    return sources
