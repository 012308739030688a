"""A whole run: bundle, sources and sinks from settings, until the sources end or the user stops it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from types import TracebackType
from typing import TextIO

from edge_ad.bundle.bundle import Bundle
from edge_ad.errors import SourceError
from edge_ad.image.limits import limited_to, max_megapixels
from edge_ad.runtime.engines import make_engine
from edge_ad.runtime.engines.process.engine import EngineProcess
from edge_ad.runtime.engines.process.launch import Launched
from edge_ad.runtime.host.health import ThreadDeaths
from edge_ad.runtime.host.messages import unfailing
from edge_ad.runtime.host.process_memory import few_arenas
from edge_ad.runtime.host.results import ResultFolder
from edge_ad.runtime.host.stopping import stopping
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import MakeEngine, open_detector
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.run_view import RunView, Work
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.scheduling.trigger import Fired
from edge_ad.runtime.line.telemetry import Telemetry
from edge_ad.runtime.sinks import Sink, sink_name
from edge_ad.runtime.sinks.coverage import CoverageWarning
from edge_ad.runtime.sinks.factory import SinkContext, make_sinks
from edge_ad.runtime.sinks.progress import ProgressBar
from edge_ad.runtime.sinks.sizes import SizeChanges
from edge_ad.runtime.station.hints import hints_after, hints_before, threshold_of
from edge_ad.runtime.station.lanes import make_lanes, open_sources
from edge_ad.runtime.station.reload import SighupReload, ThresholdReload, configured
from edge_ad.runtime.station.settings import LineSettings


@dataclass(frozen=True)
class RunResult:
    """How a run went.

    Attributes:
        telemetry: its figures.
        interrupted: whether the user ended it.
        failure: what broke off the source.
        hung: sinks of records in which a write still hung at the end; whether they have its record is not known.
    """

    telemetry: Telemetry
    interrupted: bool
    failure: SourceError | None = None
    hung: tuple[str, ...] = ()


def run(
    settings: LineSettings,
    say: Callable[[str], None],
    *,
    reread: Callable[[], LineSettings] | None = None,
    launched: Launched | None = None,
) -> RunResult:
    """Judge the frames of all cameras.

    The engine is loaded and warm before the sources open, and the sources before anything is written.

    Args:
        say: receives what the user should know, one line each; what it raises is ignored.
        reread: gives the settings as they are now, when their thresholds are to be read again; then SIGHUP asks for
            that. Without it they are those of the start, and only the bundle is read again, when HTTP asks for it. A
            line with such a file runs by itself: its engine gets a process of its own, unless settings say otherwise.
        launched: a process that was started for the engine, if it wants one; ended where it does not.

    Raises: EdgeAdError.
    """
    few_arenas()
    say = unfailing(say)
    run_view, stop = RunView(), threading.Event()
    with ExitStack() as door:
        run_view.watch(door.enter_context(ThreadDeaths()).conditions)
        door.enter_context(limited_to(settings.max_megapixels))
        max_megapixels()  # a faulty one in the environment ends the run here
        make: MakeEngine = make_engine
        if _wants_process(settings, by_itself=reread is not None):
            # At once: its libraries take as long to load as a bundle to be read, or longer.
            make = door.enter_context(EngineProcess(settings.engine, launched=launched)).engine
        elif launched is not None:
            launched.drop()
        sighup = None if reread is None else door.enter_context(SighupReload())
        if settings.http is not None:
            from edge_ad.runtime.http.listen import listening

            host, port = door.enter_context(listening(settings.http, run_view)).address
            place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            say(f"listening on {place}")
            if not settings.http.is_loopback:
                remedy = "take the host 127.0.0.1, and a proxy with TLS in front of it"
                say(f"warning: the token for {place} goes in clear text and can be read on its way; {remedy}")
        detector = _detector(settings, make)
        sources = open_sources(settings)
        lanes = make_lanes(settings, sources, configured(settings, detector.thresholds), detector.bundle)
        telemetry = Telemetry()
        failure: SourceError | None = None
        with detector, stopping(stop) as interrupted, ExitStack() as stack:
            for source in sources:
                stack.enter_context(source)
            if settings.output is not None:
                stack.enter_context(ResultFolder(settings.output, say))
            context = _context(settings, lanes, detector, say)
            sinks = list(_sinks(settings, context, lanes, detector, stop))
            line = Line(detector, lanes, sinks, telemetry, say=say)
            for sink in reversed(sinks):  # the file of records is made last: it means that the run has begun
                sink.__enter__()
                stack.push(partial(_close, sink, line))
            for hint in hints_before(settings, lanes, detector):
                say(hint)
            reload = ThresholdReload(
                settings, reread or (lambda: settings), detector.bundle, detector.precision, line.thresholds, say
            )
            if sighup is not None:
                stack.enter_context(sighup.answered_by(reload))
            _announcements(settings, context, line, run_view, stack)
            run_view.open(Work(line, telemetry, detector.provenance, reload))
            interrupted.at_once = False
            try:
                line.run(stop)
            except SourceError as exc:
                failure = exc
            finally:
                run_view.close()
    if not stop.is_set() and failure is None:
        for hint in hints_after(lanes, telemetry):
            say(hint)
    hung = [sink for sink in line.hung if getattr(sink, "keeps_records", False)]
    return RunResult(telemetry, interrupted.is_set(), failure, tuple(sink_name(sink) for sink in hung))


def _wants_process(settings: LineSettings, *, by_itself: bool) -> bool:
    """Whether the engine is to compute in a process of its own.

    Unless it is told to, TensorRT does not: it has a process take over when the GPU is lost to this one, and what it
    would do on the GPU before, making model inputs of frames, it cannot do from another process.
    """
    if settings.engine_process is not None:
        return settings.engine_process == "on"
    return by_itself and settings.engine != "tensorrt" and os.name == "posix"


def _detector(settings: LineSettings, make: MakeEngine) -> Detector:
    bundle = Bundle.read(settings.bundle)
    if settings.blur_check == "off":
        bundle = bundle.with_usability(replace(bundle.usability, sharpness_min=None))
    return open_detector(
        bundle,
        engine=settings.engine,
        precision=settings.precision,
        engine_cache=settings.engine_cache,
        device=settings.device or 0,
        dla=settings.dla,
        batch=settings.batch,
        make=make,
    )


def _close(
    sink: Sink,
    line: Line,
    exc_type: type[BaseException] | None,
    exc: BaseException | None,
    traceback: TracebackType | None,
) -> None:
    if sink not in line.hung:
        sink.__exit__(exc_type, exc, traceback)


def _context(
    settings: LineSettings, lanes: Sequence[Lane], detector: Detector, say: Callable[[str], None]
) -> SinkContext:
    has_threshold = any(threshold_of(lane, detector) is not None for lane in lanes)
    return SinkContext(settings.output, has_threshold, [lane.name for lane in lanes], say)


def _sinks(
    settings: LineSettings, context: SinkContext, lanes: Sequence[Lane], detector: Detector, stop: threading.Event
) -> Iterator[Sink]:
    yield from make_sinks(settings.sinks, context)
    rois = {lane.name: detector.roi_of(lane.roi, lane.inspector) for lane in lanes}
    yield CoverageWarning(detector.bundle.manifest.preprocess, context.say, rois)
    yield SizeChanges(context.say)
    if settings.show:
        from edge_ad.runtime.sinks.window import Window

        yield Window(stop)
    if _on_terminal(sys.stderr) and (settings.output is not None or not _on_terminal(sys.stdout)):
        counts = [min(lane.max_frames or sys.maxsize, lane.source.length or sys.maxsize) for lane in lanes]
        total = sum(counts) if sys.maxsize not in counts else None
        yield ProgressBar(total)


def _announcements(
    settings: LineSettings, context: SinkContext, line: Line, run_view: RunView, stack: ExitStack
) -> None:
    """Let parts be announced over MQTT, where that is wanted; HTTP has its own way."""
    broker = settings.triggers.mqtt
    if broker is None:
        return
    from edge_ad.runtime.station.mqtt_triggers import MqttTriggers

    def fire(camera: str, part_id: str | None) -> None:
        outcome = line.triggers.fire(camera, part_id or datetime.now(timezone.utc).isoformat())
        if not outcome and outcome is not Fired.FULL:  # which the line says itself
            raise SourceError(f"{camera}: {outcome.value}")

    triggers = MqttTriggers(
        broker, context.sources, fire, run_id=context.run_id, say=context.say, environment=context.environment
    )
    stack.enter_context(triggers)
    run_view.watch(triggers.conditions)


def _on_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()  # None where a service closed it
