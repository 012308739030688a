"""The file that says what is fastest on this machine, while that is in question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge_ad.runtime.engines.tensorrt.choices import Choices, read_choices, write_choices
from edge_ad.runtime.engines.tensorrt.fingerprint import PlanNeed


class Record:
    """What `edge-ad run` reads.

    What it says is not believed while it is tested: a process that a broken kernel ends must not leave a file behind
    that lets a line use that kernel.

    Args:
        folder: of the engines.
        need: what the model needs.

    Attributes:
        before: what it said at first; None where nothing was found before.
    """

    def __init__(self, folder: Path, need: PlanNeed) -> None:
        self._folder = folder
        self._need = need
        self.before = read_choices(folder, need)

    def suspend(self) -> None:
        """Let it say the defaults, unless it does. Raises: OutputError."""
        if self.before is not None and not same(self.before, Choices()):
            write_choices(self._folder, self._need, Choices())

    def restore(self) -> None:
        """Let it say again what it said, when nothing came of the test. Raises: OutputError."""
        if self.before is not None and not same(self.before, Choices()):
            write_choices(self._folder, self._need, self.before)

    def keep(self, choices: Choices) -> Path:
        """Let it say what was found. Returns: the file. Raises: OutputError."""
        return write_choices(self._folder, self._need, choices)


def same(one: Choices, other: Choices) -> bool:
    """Whether both do the same, whatever was measured."""
    return replace(one, medians_ms={}) == replace(other, medians_ms={})
