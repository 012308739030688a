"""A whole run: bundle, sources and sinks from settings, until the sources end or the user stops it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType, TracebackType
from typing import TextIO

from edge_ad.errors import SourceError
from edge_ad.runtime.detector import Detector, open_detector
from edge_ad.runtime.lanes import make_lanes, open_sources
from edge_ad.runtime.line import Line
from edge_ad.runtime.reload import Hangups, ThresholdReload, configured
from edge_ad.runtime.results import ResultFolder
from edge_ad.runtime.scheduling.lane import Lane
from edge_ad.runtime.settings import LineSettings
from edge_ad.runtime.sinks import Sink
from edge_ad.runtime.sinks.coverage import CoverageWarning
from edge_ad.runtime.sinks.jsonl import JsonLines
from edge_ad.runtime.sinks.pictures import PICTURES, PictureFiles
from edge_ad.runtime.sinks.progress import ProgressBar
from edge_ad.runtime.station import Station, Work
from edge_ad.runtime.telemetry import Telemetry


@dataclass(frozen=True)
class RunResult:
    """How a run went: its figures, whether the user ended it, and what broke off the source."""

    telemetry: Telemetry
    interrupted: bool
    failure: SourceError | None = None


def run(
    settings: LineSettings, say: Callable[[str], None], *, reread: Callable[[], LineSettings] | None = None
) -> RunResult:
    """Judge the frames of all cameras.

    The engine is loaded and warm before the sources open, and the sources before anything is written.

    Args:
        say: receives what the user should know, one line each.
        reread: gives the settings as they are now, when their thresholds are to be read again; then SIGHUP asks for
            that. Without it they are those of the start, and only the bundle is read again, when HTTP asks for it.

    Raises: EdgeAdError.
    """
    station, stop = Station(), threading.Event()
    with ExitStack() as door:
        hangups = None if reread is None else door.enter_context(Hangups())
        if settings.http is not None:
            from edge_ad.runtime.http.door import open_door

            host, port = door.enter_context(open_door(settings.http, station)).address
            say(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
        detector = open_detector(
            settings.bundle,
            engine=settings.engine,
            precision=settings.precision,
            engine_cache=settings.engine_cache,
            device=settings.device or 0,
            dla=settings.dla,
            batch=settings.batch,
        )
        sources = open_sources(settings)
        lanes = make_lanes(settings, sources, configured(settings, detector.thresholds))
        telemetry = Telemetry()
        failure: SourceError | None = None
        with detector, _stopping(stop) as interrupted, ExitStack() as stack:
            for source in sources:
                stack.enter_context(source)
            if settings.output is not None:
                stack.enter_context(ResultFolder(settings.output))
            sinks = list(_sinks(settings, lanes, detector, stop, say))
            line = Line(detector, lanes, sinks, telemetry, say=say)
            for sink in reversed(sinks):  # the file of records is made last: it means that the run has begun
                sink.__enter__()
                stack.push(partial(_close, sink, line))
            for remark in _remarks(settings, lanes, detector):
                say(remark)
            reload = ThresholdReload(
                settings, reread or (lambda: settings), detector.bundle, detector.precision, line.thresholds, say
            )
            if hangups is not None:
                stack.enter_context(hangups.answered_by(reload))
            station.open(Work(line, telemetry, detector.provenance, reload))
            try:
                line.run(stop)
            except SourceError as exc:
                failure = exc
            finally:
                station.close()
    if not stop.is_set() and failure is None:
        _warn_of_short_sources(lanes, telemetry, say)
    return RunResult(telemetry, interrupted.is_set(), failure)


def _warn_of_short_sources(lanes: Sequence[Lane], telemetry: Telemetry, say: Callable[[str], None]) -> None:
    for lane, counts in zip(lanes, telemetry.counters.snapshot().lanes, strict=True):
        given, length = counts.captured + counts.left_out, lane.source.length or 0
        if given < length and (lane.max_frames is None or counts.captured < lane.max_frames):
            say(f"warning: {lane.name} ended after {given} of {length} frames; is it damaged?")


def _close(
    sink: Sink,
    line: Line,
    exc_type: type[BaseException] | None,
    exc: BaseException | None,
    traceback: TracebackType | None,
) -> None:
    if sink not in line.hung:
        sink.__exit__(exc_type, exc, traceback)


def _remarks(settings: LineSettings, lanes: Sequence[Lane], detector: Detector) -> Iterator[str]:
    """What the user should know before the first frame."""
    provenance = detector.provenance
    how = "from the cache" if detector.from_cache else "compiled"
    yield f"engine {provenance.engine}, {provenance.precision}, {how}; bundle {provenance.bundle[:12]}"
    record = detector.bundle.manifest.quantization.get(detector.precision)
    gate = "unproven" if record is None else record.gate
    if detector.precision != "fp32" and gate != "passed":
        yield (
            f"warning: the gate of the {detector.precision} model is {gate}: it may be far from the float model;"
            " 'edge-ad calibrate' proves one, --precision fp32 does without"
        )
    for score, lane in {_score(lane, detector): lane for lane in reversed(lanes)}.items():
        whose = "" if len(lanes) == 1 else f"{lane.name}: "
        if score is None:
            yield f"note: {whose}the bundle has no threshold, so frames get a score but no verdict; give --threshold"
            if "masks" in settings.sinks.save:
                yield "warning: no masks are saved without a threshold"
        elif not 0 <= score <= 1:
            yield (f"warning: {whose}scores lie between 0 and 1; threshold {score:g} gives one verdict to all frames")


def _score(lane: Lane, detector: Detector) -> float | None:
    return (lane.thresholds or detector.thresholds).image


def _sinks(
    settings: LineSettings,
    lanes: Sequence[Lane],
    detector: Detector,
    stop: threading.Event,
    say: Callable[[str], None],
) -> Iterator[Sink]:
    yield JsonLines(settings.output)
    if settings.output is not None:
        is_blind = all(_score(lane, detector) is None for lane in lanes)
        for kind in set(settings.sinks.save) - ({"masks"} if is_blind else set()):
            suffix, draw = PICTURES[kind]
            yield PictureFiles(settings.output / kind, suffix, draw)
    yield CoverageWarning(detector.bundle.manifest.preprocess, say, {lane.name: lane.roi for lane in lanes})
    if settings.sinks.show:
        from edge_ad.runtime.sinks.window import Window

        yield Window(stop)
    if _on_terminal(sys.stderr) and (settings.output is not None or not _on_terminal(sys.stdout)):
        counts = [min(lane.max_frames or sys.maxsize, lane.source.length or sys.maxsize) for lane in lanes]
        total = sum(counts) if sys.maxsize not in counts else None
        yield ProgressBar(total)


def _on_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()  # None where a service closed it


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
