"""The runtime's detectors as judges, for commands that decide on data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ad.cli.printable import say
from edge_ad.cli.progress import watching

if TYPE_CHECKING:
    from edge_ad.bundle.bundle import Bundle
    from edge_ad.bundle.specs import Precision
    from edge_ad.calibration.evaluation.evaluate import Judge
    from edge_ad.calibration.tools import Tools


def judging_tools(bundle: Bundle, engine: str, engine_cache: Path | None, precision: Precision) -> Tools:
    """Judges of the float model of a bundle, and of graphs of `precision` that it does not hold."""
    from edge_ad.calibration.tools import Tools
    from edge_ad.runtime.judge.loader import open_detector, open_graph

    @contextmanager
    def open_float() -> Iterator[Judge]:
        with open_detector(bundle, engine=engine, precision="fp32", engine_cache=engine_cache) as detector:
            yield detector.judge

    @contextmanager
    def open_other(graph: bytes) -> Iterator[Judge]:
        with open_graph(bundle, graph, precision, engine=engine) as detector:
            yield detector.judge

    return Tools(open_float, open_other, watching, say)
