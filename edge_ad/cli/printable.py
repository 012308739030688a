"""The way of all text to a terminal: what others have named or said steers none, and shows no password.

`printing` stands around every command, so that no part of it can forget this; `console_on` draws tables and bars.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TextIO

import click

from edge_ad.text import visible, visible_lines, without_credentials

if TYPE_CHECKING:
    from rich.console import Console


def say(line: str) -> None:
    """A line on standard error."""
    click.echo(shown(line), err=True)


def shown(line: str) -> str:
    """A message as one line that may be printed or logged."""
    return visible(without_credentials(line))


@contextmanager
def printing() -> Iterator[None]:
    """Let all that is written to `sys.stdout` and `sys.stderr` be text without control characters and passwords."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_guarded, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _guarded(stream: Any) -> Any:
    return None if stream is None else _Safe(stream)  # None where a service has closed it


def console_on(stream: Any) -> Console:
    """What draws tables and bars on a stream; brackets in a text are no markup, and its control characters are shown.

    Args:
        stream: `sys.stdout` or `sys.stderr`, which may be closed.
    """
    from rich.console import Console as Drawn
    from rich.segment import Segment

    class Safe(Drawn):
        def render_str(self, text: str, **more: Any) -> Any:
            return super().render_str(_safe(text), **more)

        def render(self, *args: Any, **more: Any) -> Any:
            for segment in super().render(*args, **more):
                if segment.control:
                    yield segment  # rich's own
                else:
                    yield Segment(_encodable(_safe(segment.text), self.file), segment.style)

    raw = stream.stream if isinstance(stream, _Safe) else stream
    return Safe(file=raw or io.StringIO(), highlight=False, markup=False, emoji=False, soft_wrap=True)


def _safe(text: str) -> str:
    return visible_lines(without_credentials(text))


def _encodable(text: str, stream: IO[str]) -> str:
    encoding = getattr(stream, "encoding", None)  # None of what keeps text as it is
    return text if encoding is None else text.encode(encoding, "backslashreplace").decode(encoding)


class _Safe:
    """Takes any text, and hands on what a terminal may be shown. Attributes: stream: the one behind it."""

    encoding, errors = "utf-8", "backslashreplace"

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.rich_proxied_file = stream  # rich's name for it: consoles write their colours past this

    def write(self, text: str) -> int:
        self.stream.write(_encodable(_safe(text), self.stream))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
