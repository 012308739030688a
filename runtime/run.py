"""A whole run: bundle, sources and sinks from options, until the sources end or the user stops it."""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType, TracebackType
from typing import TextIO

from edge_ad.bundle import Bundle
from edge_ad.errors import SourceError
from edge_ad.frame import FrameSource
from edge_ad.geometry import place
from edge_ad.runtime.detector import Detector, open_detector
from edge_ad.runtime.line import Line
from edge_ad.runtime.options import RunOptions
from edge_ad.runtime.results import ResultFolder
from edge_ad.runtime.saying import unfailing
from edge_ad.runtime.scheduling.lane import Lane
from edge_ad.runtime.sinks import Sink
from edge_ad.runtime.sinks.coverage import CoverageWarning
from edge_ad.runtime.sinks.making import SinkContext, make_sinks
from edge_ad.runtime.sinks.progress import ProgressBar
from edge_ad.runtime.sources import open_source
from edge_ad.runtime.telemetry import Telemetry


@dataclass(frozen=True)
class RunResult:
    """How a run went: its figures, whether the user ended it, and what broke off the source."""

    telemetry: Telemetry
    interrupted: bool
    failure: SourceError | None = None


def run(options: RunOptions, say: Callable[[str], None]) -> RunResult:
    """Judge the frames of all sources.

    The engine is loaded and warm before the sources open, and the sources before anything is written.

    Args:
        say: receives what the user should know, one line each.

    Raises: EdgeAdError.
    """
    say = unfailing(say)
    bundle = Bundle.read(options.bundle)
    if options.blur_check == "off":
        bundle = bundle.with_usability(replace(bundle.usability, sharpness_min=None))
    detector = open_detector(
        bundle,
        engine=options.engine,
        precision=options.precision,
        threshold=options.threshold,
        engine_cache=options.engine_cache,
        device=options.device,
        dla=options.dla,
        batch=options.batch,
    )
    sources = [open_source(uri, options.source_settings) for uri in options.sources]
    telemetry = Telemetry()
    stop = threading.Event()
    failure: SourceError | None = None
    with detector, _stopping(stop) as interrupted, ExitStack() as stack:
        for source in sources:
            stack.enter_context(source)
        lanes = _lanes(options, sources)
        if options.output is not None:
            stack.enter_context(ResultFolder(options.output))
        sinks = list(_sinks(options, sources, detector, stop, say))
        line = Line(detector, lanes, sinks, telemetry, say=say)
        for sink in reversed(sinks):  # the file of records is made last: it means that the run has begun
            sink.__enter__()
            stack.push(partial(_close, sink, line))
        for remark in _remarks(options, detector):
            say(remark)
        interrupted.at_once = False
        try:
            line.run(stop)
        except SourceError as exc:
            failure = exc
    for lane, counts in zip(lanes, telemetry.counters.snapshot().lanes, strict=True):
        expected = min(-(-(lane.source.length or 0) // lane.vid_stride), options.max_frames or sys.maxsize)
        if counts.captured < expected and not stop.is_set() and failure is None:
            say(f"warning: {lane.name} ended after {counts.captured} of {expected} frames; is it damaged?")
    return RunResult(telemetry, interrupted.is_set(), failure)


def _lanes(options: RunOptions, sources: Sequence[FrameSource]) -> list[Lane]:
    lanes: list[Lane] = []
    seen: Counter[str] = Counter()
    for source in sources:
        seen[source.name] += 1
        count = seen[source.name]  # what tells two apart may be a secret, which names leave out
        lane = Lane(
            source,
            source.name if count == 1 else f"{source.name} ({count})",
            buffer=options.buffer,
            budget_ms=options.budget_ms,
            vid_stride=options.vid_stride,
            max_fps=options.max_fps,
            max_frames=options.max_frames,
            silence_s=options.silence_s,
        )
        lanes.append(lane)
    return lanes


def _close(
    sink: Sink,
    line: Line,
    exc_type: type[BaseException] | None,
    exc: BaseException | None,
    traceback: TracebackType | None,
) -> None:
    if sink not in line.hung:
        sink.__exit__(exc_type, exc, traceback)


def _remarks(options: RunOptions, detector: Detector) -> Iterator[str]:
    """What the user should know before the first frame."""
    provenance, threshold = detector.provenance, detector.thresholds.image
    how = "from the cache" if detector.from_cache else "compiled"
    yield f"engine {provenance.engine}, {provenance.precision}, {how}; bundle {provenance.bundle[:12]}"
    record = detector.bundle.manifest.quantization.get(detector.precision)
    gate = "unproven" if record is None else record.gate
    if detector.precision != "fp32" and gate != "passed":
        yield (
            f"warning: the gate of the {detector.precision} model is {gate}: it may be far from the float model;"
            " 'edge-ad calibrate' proves one, --precision fp32 does without"
        )
    if threshold is None:
        yield "note: the bundle has no threshold, so frames get a score but no verdict; give --threshold"
        pictures = options.sink_settings.pictures
        if "masks" in pictures.save:
            yield "warning: no masks are saved without a threshold"
        if pictures.save and pictures.which == "rejects":
            yield "warning: no pictures of rejects are saved without a threshold"
    elif not 0 <= threshold <= 1:
        yield f"warning: scores lie between 0 and 1; threshold {threshold:g} gives one verdict to all frames"


def _sinks(
    options: RunOptions,
    sources: Sequence[FrameSource],
    detector: Detector,
    stop: threading.Event,
    say: Callable[[str], None],
) -> Iterator[Sink]:
    context = SinkContext(
        options.output, detector.thresholds.image is not None, [source.name for source in sources], say
    )
    yield from make_sinks(options.sink_settings, context)
    yield CoverageWarning(lambda frame_hw: place(detector.bundle.manifest.preprocess, frame_hw), say)
    if options.show:
        from edge_ad.runtime.sinks.window import Window

        yield Window(stop)
    if _on_terminal(sys.stderr) and (options.output is not None or not _on_terminal(sys.stdout)):
        most = options.max_frames or sys.maxsize
        counts = [min(most, source.length or most) for source in sources]
        total = sum(counts) if sys.maxsize not in counts else None
        yield ProgressBar(total)


def _on_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()  # None where a service closed it


class _Interruption(threading.Event):
    """Set by Ctrl-C and SIGTERM; `at_once` while nothing was captured, since a source may take minutes to open."""

    at_once = True


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[_Interruption]:
    """Let Ctrl-C and SIGTERM end the run after the frame in hand; a second Ctrl-C interrupts at once."""
    interrupted = _Interruption()

    def ask(number: int, _: FrameType | None) -> None:
        if interrupted.at_once or (interrupted.is_set() and number == signal.SIGINT):
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
