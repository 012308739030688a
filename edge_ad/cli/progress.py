"""How far a pass over images is, shown where somebody watches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_ad.calibration.evaluation.evaluate import Watch
    from edge_ad.datasets import Sample


def watching(what: str) -> Watch:
    """A function that passes samples on and shows how far they are, where stderr is a terminal."""

    def watch(samples: Iterable[Sample]) -> Iterable[Sample]:
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        return track(samples, what, console=console, transient=True, disable=not console.is_terminal)

    return watch
