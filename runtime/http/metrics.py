"""The figures of a run for Prometheus: a snapshot of counters that are kept anyway, put into text on request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from edge_ad.errors import MissingExtraError
from edge_ad.record.verdict import STATUSES
from edge_ad.runtime.line.run_view import RunView, Work
from edge_ad.runtime.line.scheduling.counters import LaneCounts, Snapshot
from edge_ad.runtime.line.telemetry import BOUNDS_MS
from edge_ad.runtime.sinks.counts import SinkCounts
from edge_ad.text import visible

KEEP_S = 0.25
"""For how long a text is given again: whoever asks more often than that must not take time from the line."""

_TRIGGERS = ("accepted", "answered", "missed", "refused")
_SINK_OUTCOMES = ("taken", "delivered", "lost", "dropped", "gone", "expired")


class Metrics:
    """Text in Prometheus' format, from a registry of its own. Raises: MissingExtraError."""

    def __init__(self, run_view: RunView, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        try:
            import prometheus_client
        except ImportError as exc:
            raise MissingExtraError("/metrics", "prometheus_client", "http") from exc
        self._run_view = run_view
        self._clock_s = clock_s
        self._content_type = str(prometheus_client.CONTENT_TYPE_LATEST)
        self._registry = prometheus_client.CollectorRegistry()
        self._registry.register(self)
        prometheus_client.ProcessCollector(registry=self._registry)
        self._generate = prometheus_client.generate_latest
        self._lock = threading.Lock()
        self._text = b""
        self._made_s: float | None = None

    def __call__(self) -> tuple[bytes, str]:
        """The text and its content type."""
        with self._lock:
            now_s = self._clock_s()
            if self._made_s is None or now_s - self._made_s >= KEEP_S:
                self._text, self._made_s = self._generate(self._registry), now_s
            return self._text, self._content_type

    def collect(self) -> Iterator[Any]:
        """The families of metrics, as prometheus_client asks for them."""
        work = self._run_view.work
        healthy = {(): float(not self._run_view.ill())}
        yield gauge("edge_ad_ready", "1 when all is ready, else 0.", (), {(): float(not self._run_view.unready())})
        yield gauge("edge_ad_healthy", "1 while all that a record needs is alive, else 0.", (), healthy)
        if work is not None:
            counts = work.telemetry.counters.snapshot()
            yield from _frames(counts)
            yield from _states(work)
            yield from _sinks(counts, work)
            yield from _stages(work)
            yield _build(work)

    def describe(self) -> Iterator[Any]:
        """Nothing: the registry then does not call `collect` before there is a line."""
        return iter(())


def gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Any:
    """A family of gauges by the values of their labels."""
    from prometheus_client.core import GaugeMetricFamily

    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Any:
    """A family of counters by the values of their labels; the text appends `_total` to `name`."""
    from prometheus_client.core import CounterMetricFamily

    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def _filled(family: Any, values: Mapping[Any, float]) -> Any:
    """A name may hold what is no UTF-8, or steers a terminal; two that look alike then are told apart by a number."""
    seen: Counter[tuple[str, ...]] = Counter()
    for key, value in values.items():
        labels = shown = tuple(map(visible, key))
        while seen[labels]:
            seen[shown] += 1
            labels = (f"{shown[0]} ({seen[shown]})", *shown[1:])
        seen[labels] += 1
        family.add_metric(labels, value)
    return family


def _of_lanes(lanes: tuple[LaneCounts, ...], value: Callable[[LaneCounts], float]) -> dict[tuple[str, ...], float]:
    return {(lane.name,): value(lane) for lane in lanes}


def _frames(counts: Snapshot) -> Iterator[Any]:
    lanes, camera = counts.lanes, ("camera",)
    statuses = {(lane.name, status): float(lane.statuses.get(status, 0)) for lane in lanes for status in STATUSES}
    yield counter("edge_ad_frames", "Captured frames that have a record, by status.", (*camera, "status"), statuses)
    verdicts = {
        (lane.name, label): float(lane.verdicts.get(label, 0)) for lane in lanes for label in ("normal", "anomalous")
    }
    yield counter("edge_ad_verdicts", "Judged frames by verdict.", (*camera, "verdict"), verdicts)
    for name, text, value in (
        ("captured", "Frames captured.", lambda lane: lane.captured),
        ("left_out", "Frames that the source gave and that were not captured, on purpose.", lambda lane: lane.left_out),
        ("overtaken", "Skipped frames that a newer one replaced.", lambda lane: lane.overtaken),
    ):
        yield counter(f"edge_ad_frames_{name}", text, camera, _of_lanes(lanes, value))
    in_flight = _of_lanes(lanes, lambda lane: lane.in_flight)
    yield gauge("edge_ad_frames_in_flight", "Captured frames without a verdict yet.", camera, in_flight)
    miss_rates = _of_lanes(lanes, lambda lane: lane.miss_rate)
    yield gauge("edge_ad_miss_rate", "Share of the captured frames that were late or skipped.", camera, miss_rates)
    silences = _of_lanes(lanes, lambda lane: lane.no_frame)
    yield counter("edge_ad_source_silences", "Times that a source was reported as silent.", camera, silences)
    outages = _of_lanes(lanes, lambda lane: lane.disconnected)
    yield counter("edge_ad_source_outages", "Times that a source was lost, or absent at the start.", camera, outages)
    triggers = {(lane.name, one): float(getattr(lane.triggers, one)) for lane in lanes for one in _TRIGGERS}
    yield counter("edge_ad_triggers", "Software triggers by what became of them.", (*camera, "outcome"), triggers)
    waiting = _of_lanes(lanes, lambda lane: lane.triggers.waiting)
    yield gauge("edge_ad_triggers_waiting", "Software triggers that wait for a frame.", camera, waiting)


def _states(work: Work) -> Iterator[Any]:
    in_use = work.line.thresholds.snapshot()
    scores = {(name,): use.thresholds.image for name, use in in_use.items()}
    known = {key: score for key, score in scores.items() if score is not None}
    yield gauge("edge_ad_threshold", "Score from which on a frame is anomalous.", ("camera",), known)
    reloads = {("done",): float(work.reload.done), ("failed",): float(work.reload.failed)}
    yield counter("edge_ad_threshold_reloads", "Times that thresholds were read again.", ("outcome",), reloads)
    restarts = {(): float(work.telemetry.counters.snapshot().engine_restarts)}
    text = "Times that a fresh process of the engine has taken over from one that failed."
    yield counter("edge_ad_engine_restarts", text, (), restarts)
    status = work.line.status
    if status is not None:
        up_now = {(): float(status.computing() is None)}
        yield gauge("edge_ad_engine_up", "1 when the engine computes, else 0.", (), up_now)
        up = {(name,): float(fault is None) for name, fault in status.delivering().items()}
        yield gauge("edge_ad_source_up", "1 when a source gives frames, else 0.", ("camera",), up)
        ages = {(name,): age_s for name, age_s in status.oldest_frame_s().items()}
        yield gauge("edge_ad_oldest_frame_seconds", "Age of the oldest frame without a record.", ("camera",), ages)


def _sinks(counts: Snapshot, work: Work) -> Iterator[Any]:
    sinks = dict(zip(_distinct([sink.name for sink in counts.sinks]), counts.sinks, strict=True))
    outcomes = {(name, one): float(getattr(sink, one)) for name, sink in sinks.items() for one in _SINK_OUTCOMES}
    for name, sink in sinks.items():
        outcomes[name, "delivered"] += sink.gone  # a counter never goes down
    yield counter("edge_ad_sink_records", "Records by what became of them.", ("sink", "outcome"), outcomes)

    def by_sink(value: Callable[[SinkCounts], int]) -> dict[tuple[str, ...], float]:
        return {(name,): float(value(sink)) for name, sink in sinks.items()}

    yield counter("edge_ad_sink_failures", "Writes that failed.", ("sink",), by_sink(lambda sink: sink.failures))
    yield gauge("edge_ad_sink_waiting", "Records that wait for a sink.", ("sink",), by_sink(lambda sink: sink.waiting))
    status = work.line.status
    if status is not None:
        stuck = {(name,): age_s for name, age_s in zip(sinks, status.outputs.stuck_s(), strict=False)}
        yield gauge("edge_ad_sink_stuck_seconds", "For how long a sink has taken nothing.", ("sink",), stuck)


def _stages(work: Work) -> Iterator[Any]:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily("edge_ad_stage_seconds", "What the stages of a frame took.", labels=("stage",))
    bounds = [*(f"{bound / 1e3:g}" for bound in BOUNDS_MS), "+Inf"]
    for stage, histogram in work.telemetry.histograms().items():
        total, buckets = 0, []
        for bound, count in zip(bounds, histogram.counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric((stage,), buckets, histogram.sum_ms / 1e3)
    yield family


def _build(work: Work) -> Any:
    who = work.provenance
    labels = ("version", "bundle", "engine", "precision")
    key = (version("edge-ad"), who.bundle, who.engine, who.precision)
    return gauge("edge_ad_build_info", "What judges; always 1.", labels, {key: 1.0})


def _distinct(names: list[str]) -> list[str]:
    """Names that are told apart by a number where they are the same."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result
