"""What TensorRT says while it works, kept instead of printed, and shortened to what a user can act on."""

from __future__ import annotations

import re
from typing import Any

PREFIX = re.compile(r"^.*?Error Code \d+: [\w ]+?(?=[\[(])")
WHERE = re.compile(r"\[[\w./]+:{1,2}[^\]]*\] *|\s*In \w+ at /\S+\)*")
MAX_CHARACTERS = 300


class Messages:
    """Errors and warnings of one build, in the order in which they came.

    Attributes:
        errors, warnings: cleaned lines, none twice.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def logger(self, trt: Any) -> Any:
        """An `ILogger` of the module `trt` that writes here. It has to outlive whatever was made with it."""
        severity_of = trt.ILogger.Severity
        kept = {
            severity_of.INTERNAL_ERROR: self.errors,
            severity_of.ERROR: self.errors,
            severity_of.WARNING: self.warnings,
        }

        class Logger(trt.ILogger):  # type: ignore[misc]  # the class comes with the module
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                lines, line = kept.get(severity), plain(text)
                if lines is not None and line and line not in lines:
                    lines.append(line)

        return Logger()

    @property
    def cause(self) -> str:
        """The first error, of which the others are mostly consequences; the last warning where there is none."""
        lines = self.errors or self.warnings[-1:]
        return lines[0] if lines else "it does not say why"


def plain(text: str) -> str:
    """A message on one line, without the places in NVIDIA's sources."""
    line = " ".join(text.split())
    bare = PREFIX.sub("", line)
    if bare != line:
        bare = bare.removeprefix("(")
    bare = WHERE.sub("", bare).strip()
    if bare.count(")") > bare.count("("):
        bare = bare.removesuffix(")").rstrip()
    return bare if len(bare) <= MAX_CHARACTERS else f"{bare[: MAX_CHARACTERS - 1]}…"
