"""How far a pass over images is, shown where somebody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edge_ad.cli.printable import console_on

if TYPE_CHECKING:
    from edge_ad.calibration.evaluation.evaluate import Watch
    from edge_ad.datasets import Sample


def watching(what: str) -> Watch:
    """A function that passes samples on and shows how far they are, where stderr is a terminal."""

    def watch(samples: Iterable[Sample]) -> Iterable[Sample]:
        from rich.progress import track

        console = console_on(sys.stderr)
        return track(samples, what, console=console, transient=True, disable=not console.is_terminal)

    return watch
