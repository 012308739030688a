"""What computes graphs for decisions on data, and talks to the user; the command line passes it in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from edge_ad.calibration.evaluation.evaluate import Judge, Watch

OpenGraph = Callable[[bytes], AbstractContextManager[Judge]]
"""Opens a judge that computes a graph."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Tools:
    """Judges of one bundle, and a voice.

    Attributes:
        open_float: opens a judge of the bundle's float model.
        open_graph: opens a judge of a graph of the wanted precision.
        watch: makes something that shows how far a pass over images is, from what the pass is for.
        say: receives a line for each step and each warning.
    """

    open_float: Callable[[], AbstractContextManager[Judge]]
    open_graph: OpenGraph
    watch: Callable[[str], Watch]
    say: Say
