"""Every failure a user can cause or meet, as one tree.

::

    EdgeAdError                  1   anything below
    ├── ConfigError              3   an option or a configuration file is wrong
    ├── CheckpointError          4   a checkpoint or weights file cannot be used
    ├── BundleError              5   a bundle is damaged, foreign or too new
    ├── ExportError              6   the exported graph is not what was asked for
    ├── SourceError              7   a camera, file, folder or stream gives no frame
    ├── ImageError               8   a picture cannot be decoded or has the wrong form
    ├── EngineError              9   an inference engine fails
    ├── MissingExtraError       10   an optional dependency is not installed
    ├── OutputError             11   a result cannot be written
    ├── TrainingError           12   training cannot go on
    ├── GateError               13   a quantized, compared, taught or self-tested model is outside of its tolerances
    ├── DeadlineError           14   a run missed more deadlines than it may, or a self-test its budget
    ├── InvariantError          15   a soak found the line to lose, double or mix up what it should not
    ├── RegressionError         16   a bundle or benchmark became slower than it may
    ├── LostRecordsError        17   a run judged frames whose records are lost
    └── UnavailableError        18   what a command needs is not there now, and may be the next time

The number is the exit code of the command line; 2 is a command line that cannot be parsed, 70 a defect in
edge-ad itself and 130 an interrupted run. A message says what was wanted, what was got and what to do, on one
line. 2, 3, 5 and 10 do not mend themselves: whoever starts a command again and again may give up.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class EdgeAdError(Exception):
    """Base of all errors that edge-ad raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(EdgeAdError):
    """An option or a configuration file is wrong; `faults` holds one line for each fault found."""

    exit_code = 3
    most_shown: ClassVar[int] = 30
    """Faults that the message repeats; a hostile file can hold any number of them."""

    def __init__(self, where: str, faults: list[str]) -> None:
        self.where = where
        self.faults = tuple(faults)
        more = len(faults) - self.most_shown
        shown = [*faults[: self.most_shown], *([f"and {more} more"] if more > 0 else [])]
        super().__init__(f"{where}: " + "; ".join(shown))


class CheckpointError(EdgeAdError):
    """A checkpoint or weights file is missing, damaged or of another architecture."""

    exit_code = 4


class BundleError(EdgeAdError):
    """A bundle is missing, damaged, foreign or written by a newer edge-ad."""

    exit_code = 5


class ExportError(EdgeAdError):
    """The exported graph breaks the contract or differs from the network it came from."""

    exit_code = 6


class SourceError(EdgeAdError):
    """A source of frames cannot be opened or holds nothing to judge."""

    exit_code = 7


class ImageError(EdgeAdError):
    """A picture cannot be decoded, or an array is not an image of the expected form."""

    exit_code = 8


class EngineError(EdgeAdError):
    """An inference engine cannot be loaded or fails on a batch."""

    exit_code = 9


class MissingExtraError(EdgeAdError):
    """An optional dependency is absent; the message names the command that installs it."""

    exit_code = 10

    def __init__(self, wanted: str, module: str, extra: str) -> None:
        super().__init__(
            f"{wanted} needs the package {module!r}, which is not installed: pip install 'edge-ad[{extra}]'"
        )


class OutputError(EdgeAdError):
    """A result cannot be written where it was asked for."""

    exit_code = 11


class TrainingError(EdgeAdError):
    """Training diverged or has nothing to learn from; the last good checkpoint is still there."""

    exit_code = 12


class GateError(EdgeAdError):
    """A quantized, compared or taught model is outside of its tolerances; nothing takes the place of the one before."""

    exit_code = 13


class DeadlineError(EdgeAdError):
    """More of a run's frames went without a verdict in time than the user allows."""

    exit_code = 14


class InvariantError(EdgeAdError):
    """A line under injected faults broke one of the promises that hold under all circumstances."""

    exit_code = 15


class RegressionError(EdgeAdError):
    """A bundle or a benchmark became slower than its baseline allows."""

    exit_code = 16


class LostRecordsError(EdgeAdError):
    """Frames were captured whose records a sink should have kept and has lost; all others are as they should be."""

    exit_code = 17


class UnavailableError(EdgeAdError):
    """What a command needs is not there now, and may be the next time: a port, a share, room on a disk."""

    exit_code = 18


class BundleUnavailableError(UnavailableError, BundleError):
    """A bundle cannot be read now: it is absent, or its disk or share does not answer."""


class OutputUnavailableError(UnavailableError, OutputError):
    """A result cannot be written now: the disk is full or does not answer, or another process has the folder."""


_PASSING = (
    "EAGAIN EBUSY EDQUOT EHOSTDOWN EHOSTUNREACH EINTR EIO EMFILE ENETDOWN ENETUNREACH ENFILE ENODEV ENOMEDIUM ENOMEM"
    " ENOSPC ENOTCONN ENXIO EREMOTEIO ESHUTDOWN ESTALE ETIMEDOUT ECONNREFUSED ECONNRESET ECONNABORTED ENOLINK"
)
_PASSING_NUMBERS = frozenset(getattr(errno, name) for name in _PASSING.split() if hasattr(errno, name))


def may_pass(exc: OSError) -> bool:
    """Whether what failed may work later without anybody's doing: a full or hanging disk, a share that is away."""
    return exc.errno in _PASSING_NUMBERS


def one_line(exc: BaseException) -> str:
    """First line of what a foreign exception says, or its type when it says nothing."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[0] if lines else type(exc).__name__


def library_lines(exc: BaseException) -> list[str]:
    """Lines of what a library of C++ says about a file, at least one, with all escaped that no terminal should print.

    Such a library quotes names and bytes of the file as they are. Where these are no text, its binding to Python fails
    with UnicodeDecodeError in place of the library's exception, which holds what was said.
    """
    said = exc.object.decode("utf-8", "backslashreplace") if isinstance(exc, UnicodeDecodeError) else str(exc)
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [type(exc).__name__]
    return ["".join(char if char.isprintable() else ascii(char)[1:-1] for char in line) for line in lines]


def os_reason(exc: OSError) -> str:
    """What the operating system says about a failed call, without the path that the message already names."""
    return exc.strerror or one_line(exc)
