"""The soak itself: one line after another on the same engine, all under watch, until the time is up."""

from __future__ import annotations

import gc
import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from edge_ad.bundle.bundle import Bundle
from edge_ad.engine import Engine
from edge_ad.errors import ConfigError
from edge_ad.image.frame import FrameSource
from edge_ad.image.geometry import place
from edge_ad.runtime.engines import make_engine
from edge_ad.runtime.engines.process.engine import EngineProcess
from edge_ad.runtime.engines.process.keeper import Limits
from edge_ad.runtime.host.process_memory import few_arenas
from edge_ad.runtime.host.results import RECORDS
from edge_ad.runtime.host.stopping import stopping
from edge_ad.runtime.instruments.soak.books import Books
from edge_ad.runtime.instruments.soak.checks import Findings
from edge_ad.runtime.instruments.soak.clock import WrongClock
from edge_ad.runtime.instruments.soak.dice import Dice, Plan
from edge_ad.runtime.instruments.soak.engine import WatchedEngine
from edge_ad.runtime.instruments.soak.faults import FAULTS
from edge_ad.runtime.instruments.soak.options import SoakOptions
from edge_ad.runtime.instruments.soak.process import Growth, Held, children
from edge_ad.runtime.instruments.soak.report import SoakResult, counters_line
from edge_ad.runtime.instruments.soak.round import Round, Watch
from edge_ad.runtime.instruments.soak.sinks import FaultySink, Gallery, Witness
from edge_ad.runtime.instruments.soak.sources import Handed, Plug
from edge_ad.runtime.instruments.soak.storms import Storms
from edge_ad.runtime.instruments.soak.taken import check_databases, check_files
from edge_ad.runtime.instruments.soak.totals import added
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import MakeEngine, open_detector
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling.counters import Snapshot
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.telemetry import Telemetry
from edge_ad.runtime.sinks import Sink
from edge_ad.runtime.sinks.ages import Clocks
from edge_ad.runtime.sinks.jsonl import JsonLines
from edge_ad.runtime.sinks.sqlite import SqliteRecords
from edge_ad.runtime.sources.reconnect import Patience, Reconnecting
from edge_ad.runtime.sources.simulated import LineSpec, SimulatedLine

FAKE_THRESHOLD = 0.7  # of the brightness that fingerprints have: both verdicts appear
LEAST_SIDE = 256  # of a frame; in smaller ones a fingerprint might not survive the resize
LEAST_INPUT = 24  # of the model, pixels
SILENCE_S = 1.0
WATCHDOG_S = 1.5  # longer than any freeze, and the time to some frames more
LIMITS = Limits(answer_s=2.0, first_answer_s=30.0, wait_s=30.0, first_pause_s=0.05, longest_pause_s=0.5, good_s=1.0)
"""Of the engine's process: frames wait for a fresh one, so that each fault costs the batch in hand and no other."""
PATIENCE = Patience(wait_at_start=True, base_s=0.05, cap_s=0.5, good_s=1.0)
DATABASE, KEEP_DAYS = "verdicts.sqlite", 1.0  # no row of a soak is as old as that
SETTLE_S = 5.0  # how long threads may take to end after the last round


class Soak:
    """A simulated line under faults; runs once.

    Args:
        say: receives counters as they go, one line of text each.
        line: makes the line.
        protect: makes the source that the line reads, from what opens a camera with its faults anew.
        more_sinks: makes others besides those of the soak; each is put behind faults, and counted.

    Raises: BundleError; ConfigError for a bundle whose model sees too little.
    """

    def __init__(
        self,
        options: SoakOptions,
        say: Callable[[str], None] = lambda _: None,
        *,
        line: Callable[..., Line] = Line,
        protect: Callable[[Callable[[], FrameSource]], FrameSource] | None = None,
        more_sinks: Callable[[], Sequence[Sink]] = tuple,
    ) -> None:
        self.findings = Findings()
        self._options = options
        self._say = say
        self._line = line
        self._protect = protect or self._reconnecting
        self._more_sinks = more_sinks
        self._plan = Plan(
            {
                name: FAULTS[name]
                for name in options.faults
                if options.engine_process == "on" or not FAULTS[name].of_process
            },
            seed=options.seed,
            rate=options.fault_rate,
            limit=options.max_faults,
        )
        self._sink_dice: list[Dice] = []
        self._clock = WrongClock()
        self._process_dice = Dice("process", "process", self._plan)
        self._storms = Storms(self.findings)
        self._growth = Growth()
        self._said_s = time.monotonic()
        self._bundle = Bundle.read(options.bundle)
        height, width = self._bundle.manifest.preprocess.size_hw
        if min(height, width) < LEAST_INPUT:
            wanted = f"a model input of {LEAST_INPUT} pixels at least, in which the number of a picture can be read"
            raise ConfigError("bundle", [f"wanted {wanted}, got {height}x{width}"])
        scale = max(1, LEAST_SIDE / min(height, width))
        self._frame_hw = round(height * scale), round(width * scale)
        self._geometry = place(self._bundle.manifest.preprocess, self._frame_hw)
        self._plugs = [self._plug(lane) for lane in range(options.cameras)]

    def run(self) -> SoakResult:
        """Run it. Raises: EdgeAdError when it cannot begin."""
        few_arenas()
        totals, rounds, before = Snapshot(), 0, len(children())
        with ExitStack() as stack:
            interrupted = stack.enter_context(stopping(threading.Event()))
            stack.enter_context(self._storms)
            detector = stack.enter_context(self._detector(stack))
            began, began_s = Held.now(), time.monotonic()
            left_s = self._options.seconds
            interrupted.at_once = False
            while left_s > 0 and not self._plan.spent.is_set() and not interrupted.is_set():
                counts = self._round(detector, min(self._options.round_s, left_s), totals, began_s, interrupted)
                totals = added(totals, counts)
                rounds += 1
                left_s = began_s + self._options.seconds - time.monotonic()
            self._check_engine(detector, totals, rounds)
            self._storms.check(is_over=True)
            ended = _settled(began)
        self._check_end(began, ended)
        left = len(children()) - before
        if left > 0:
            self.findings.add("left over", f"{left} processes when all was closed")
        faults = dict(self._plan.counts)
        return SoakResult(self.findings, totals, faults, rounds, self._growth.mib, began, ended, interrupted.is_set())

    def _detector(self, stack: ExitStack) -> Detector:
        options = self._options
        threshold = options.threshold
        if threshold is None and options.engine == "fake":
            threshold = FAKE_THRESHOLD

        make: MakeEngine = make_engine
        if options.engine_process == "on":
            make = stack.enter_context(EngineProcess(options.engine, LIMITS)).engine

        def watched(engine: Engine) -> Engine:
            dice = Dice("engine", "engine", self._plan)
            self._engine = WatchedEngine(engine, self._geometry, dice, Books(self.findings, None))
            return self._engine

        return open_detector(
            self._bundle,
            engine=options.engine,
            precision=options.precision,
            threshold=threshold,
            engine_cache=options.engine_cache,
            batch=options.batch,
            make=make,
            around_engine=watched,
        )

    def _round(
        self, detector: Detector, seconds: float, before: Snapshot, began_s: float, interrupted: threading.Event
    ) -> Snapshot:
        """One line from start to end. Returns: its counts."""
        books, telemetry = Books(self.findings, detector.thresholds.image), Telemetry()
        self._engine.books = books
        struck = [plug.dice.struck for plug in self._plugs]
        pulled = [plug.pulled for plug in self._plugs]
        watch = Watch(
            books,
            self.findings,
            tick=lambda counts: self._tick(added(before, counts), began_s),
            spent=self._plan.spent,
            interrupted=interrupted,
            is_calm=lambda lane: self._plugs[lane].dice.struck == struck[lane],
            pulled=lambda lane: self._plugs[lane].pulled - pulled[lane],
        )
        with tempfile.TemporaryDirectory(prefix="edge-ad-soak-") as folder, ExitStack() as stack:
            handed = [
                stack.enter_context(Handed(self._protect(plug.open_anew), plug.name, books)) for plug in self._plugs
            ]
            lanes = [
                Lane(source, source.name, budget_ms=self._options.budget_ms, silence_s=SILENCE_S) for source in handed
            ]
            witness = Witness(books)
            top, clocks = Path(folder), Clocks(self._clock.now_s, time.monotonic)
            database = SqliteRecords(top / "files" / DATABASE, "soak", keep_days=KEEP_DAYS, clocks=clocks)
            sinks = self._sinks([JsonLines(top / "files"), Gallery(self.findings), database, *self._more_sinks()])
            line = self._line(detector, lanes, [witness, *sinks], telemetry)
            for sink in sinks:
                sink.__enter__()
                stack.push(lambda *exc_info, sink=sink: None if sink in line.hung else sink.__exit__(*exc_info))
            line_round = Round(line, telemetry, witness, sinks, watch, budget_ms=self._options.budget_ms)
            try:
                counts = line_round.run(seconds)
            finally:
                for sink in sinks:
                    sink.closed.set()  # one that still hangs comes back
                for plug in self._plugs:
                    plug.release()
            of_records, of_database = counts.sinks[1], counts.sinks[3]
            check_files(top, RECORDS, of_records.delivered, self.findings)
            check_databases(top, DATABASE, of_database.delivered, of_database.expired, self.findings)
        return counts

    def _tick(self, totals: Snapshot, began_s: float) -> None:
        self._storms.check()
        fault = self._process_dice.draw() if self._storms.possible else None
        if fault is not None:
            fault.strike(self._storms, self._process_dice.random)
        held, now_s = Held.now(), time.monotonic()
        if held.memory_mib is not None:
            self._growth.add(held.memory_mib)
        if now_s - self._said_s >= self._options.every_s:
            self._said_s = now_s
            self._say(counters_line(totals, self._plan.counts.total(), held, now_s - began_s))

    def _plug(self, lane: int) -> Plug:
        height, width = self._frame_hw
        spec = LineSpec(fps=self._options.fps, width=width, height=height, seed=self._options.seed + lane)
        dice = Dice(f"camera {lane}", "source", self._plan)
        return Plug(lambda: SimulatedLine(spec, f"camera {lane}"), lane, dice, itertools.count(), self._clock)

    def _reconnecting(self, open_anew: Callable[[], FrameSource]) -> FrameSource:
        """What protects a line from its cameras in earnest, with less patience."""
        watchdog_s = WATCHDOG_S + 3 / self._options.fps
        return Reconnecting(open_anew, replace(PATIENCE, watchdog_s=watchdog_s))

    def _sinks(self, inner: Sequence[Sink]) -> list[FaultySink]:
        for number, sink in enumerate(inner[len(self._sink_dice) :], len(self._sink_dice)):
            self._sink_dice.append(Dice(f"sink {number} {type(sink).__name__}", "sink", self._plan))
        return [FaultySink(sink, dice, self._clock) for sink, dice in zip(inner, self._sink_dice, strict=True)]

    def _check_engine(self, detector: Detector, totals: Snapshot, rounds: int) -> None:
        """Every strike has cost one batch at most, and one process has taken over for each."""
        until_s = time.monotonic() + LIMITS.wait_s
        while detector.health.fault is not None and time.monotonic() < until_s:
            time.sleep(0.05)
        strikes, health = self._engine.strikes, detector.health
        if health.fault is not None or health.restarts != strikes:
            got = f"{health.restarts} fresh processes for {strikes} faults; {health.fault or 'it computes'}"
            self.findings.add("engine", got)
        if self._engine.unanswered > strikes:
            self.findings.add("engine", f"{self._engine.unanswered} batches without an answer, {strikes} faults")
        if not strikes - rounds <= totals.engine_restarts <= strikes:  # one may come between two lines
            self.findings.add("engine", f"{totals.engine_restarts} restarts counted, {strikes} faults")

    def _check_end(self, began: Held, ended: Held) -> None:
        growth_mib = self._growth.mib
        if growth_mib is not None and growth_mib > self._options.memory_mib:
            self.findings.add("memory", f"grew by {growth_mib:.1f} MiB, wanted {self._options.memory_mib:g} at most")
        if _has_more(ended, began):
            self.findings.add("left over", f"at the start {began}; at the end {ended}")


def _has_more(ended: Held, began: Held) -> bool:
    more_files = (ended.files or 0) > (began.files or 0)
    return ended.threads > began.threads or more_files or ended.processes > began.processes


def _settled(began: Held) -> Held:
    """What the process holds once the last threads have ended, or after `SETTLE_S`."""
    until_s = time.monotonic() + SETTLE_S
    gc.collect()  # clients of the network keep sockets until then
    while True:
        held = Held.now()
        if not _has_more(held, began) or time.monotonic() > until_s:
            return held
        time.sleep(0.05)
