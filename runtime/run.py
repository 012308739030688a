"""A whole run: bundle, source and sinks from options, until the source ends or the user stops it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType

from edge_ad.errors import ConfigError
from edge_ad.frame import FrameSource
from edge_ad.geometry import place
from edge_ad.runtime.detector import Detector, open_detector
from edge_ad.runtime.line import Line
from edge_ad.runtime.options import RunOptions
from edge_ad.runtime.sinks import Sink
from edge_ad.runtime.sinks.coverage import CoverageWarning
from edge_ad.runtime.sinks.jsonl import JsonLines
from edge_ad.runtime.sinks.pictures import PICTURES, PictureFiles
from edge_ad.runtime.sinks.progress import ProgressBar
from edge_ad.runtime.sources import open_source
from edge_ad.runtime.telemetry import Telemetry


@dataclass(frozen=True)
class RunResult:
    """How a run went: its figures, and whether the user ended it."""

    telemetry: Telemetry
    interrupted: bool


def run(options: RunOptions, say: Callable[[str], None]) -> RunResult:
    """Judge the frames of a source.

    The engine is loaded and warm before the source opens, and the source before anything is written.

    Args:
        say: receives what the user should know, one line each.

    Raises: EdgeAdError.
    """
    source = open_source(options.source)
    detector = open_detector(
        options.bundle,
        engine=options.engine,
        precision=options.precision,
        threshold=options.threshold,
        engine_cache=options.engine_cache,
    )
    if detector.thresholds.image is None:
        if "masks" in options.save:
            raise ConfigError("run options", ["save: masks need a threshold; give --threshold or export with one"])
        say("note: the bundle has no threshold, so frames get a score but no verdict; give --threshold")
    elif not 0 <= detector.thresholds.image <= 1:
        say(f"warning: scores lie between 0 and 1; threshold {detector.thresholds.image:g} gives one verdict to all")
    telemetry = Telemetry()
    stop = threading.Event()
    with detector:
        how = "from the cache" if detector.from_cache else "compiled"
        provenance = detector.provenance
        say(f"engine {provenance.engine}, {provenance.precision}, {how}; bundle {provenance.bundle[:12]}")
        with _stopping(stop) as interrupted, source, ExitStack() as stack:
            sinks = [stack.enter_context(sink) for sink in _sinks(options, source, detector, stop, say)]
            line = Line(detector, sinks, telemetry, budget_ms=options.budget_ms)
            line.run(source, stop, max_frames=options.max_frames)
    return RunResult(telemetry, interrupted.is_set())


def _sinks(
    options: RunOptions, source: FrameSource, detector: Detector, stop: threading.Event, say: Callable[[str], None]
) -> Iterator[Sink]:
    yield JsonLines(options.output)
    if options.output is not None:
        for kind in options.save:
            suffix, draw = PICTURES[kind]
            yield PictureFiles(options.output / kind, suffix, draw)
    yield CoverageWarning(lambda frame_hw: place(detector.bundle.manifest.preprocess, frame_hw), say)
    if options.show:
        from edge_ad.runtime.sinks.window import Window

        yield Window(stop)
    if options.output is not None and sys.stderr.isatty():
        total = (
            source.length
            if options.max_frames is None
            else min(options.max_frames, source.length or options.max_frames)
        )
        yield ProgressBar(total)


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[threading.Event]:
    """Let Ctrl-C and SIGTERM end the run after the frame in hand; a second Ctrl-C interrupts at once."""
    interrupted = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        if interrupted.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        interrupted.set()
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
