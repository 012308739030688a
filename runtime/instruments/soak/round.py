"""One line from its start to its end, watched from beside it, and what is to be true of it afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_ad.errors import one_line
from edge_ad.runtime.instruments.soak.books import Books
from edge_ad.runtime.instruments.soak.checks import Findings
from edge_ad.runtime.instruments.soak.sinks import FaultySink, Witness
from edge_ad.runtime.line import line as line_module
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling import output
from edge_ad.runtime.line.scheduling.counters import Snapshot
from edge_ad.runtime.line.telemetry import Telemetry

TICK_S = 0.1
STOP_SLACK_S = 3.0  # for a machine that has something else to do
FAIR = 1.1  # most served camera to least served one, of those that wanted more
HEAD_START = 5  # frames that the first camera may get before the last one has begun
FEW = 100  # served frames of a camera below which chance decides


@dataclass(frozen=True)
class Watch:
    """What looks at a line while it runs.

    Attributes:
        books, findings: of the round, of the soak.
        tick: called several times a second with the counters.
        spent: ends the round early.
        interrupted: set by the user, who ends the round, too.
        is_calm: whether a camera, by number, met no fault in this round.
        pulled: how often a camera, by number, was pulled out in this round.
    """

    books: Books
    findings: Findings
    tick: Callable[[Snapshot], None]
    spent: threading.Event
    interrupted: threading.Event
    is_calm: Callable[[int], bool]
    pulled: Callable[[int], int]


class Round:
    """A line that runs once.

    Args:
        line: new, with the witness and then the other sinks.
        telemetry: the line's.
        budget_ms: the longest of its lanes.
    """

    def __init__(
        self,
        line: Line,
        telemetry: Telemetry,
        witness: Witness,
        sinks: Sequence[FaultySink],
        watch: Watch,
        *,
        budget_ms: float | None,
    ) -> None:
        self._line = line
        self._telemetry = telemetry
        self._witness = witness
        self._sinks = sinks
        self._watch = watch
        self._budget_s = (budget_ms or 0) / 1e3
        self._stop = threading.Event()
        self._over = threading.Event()
        self._stopped_s: float | None = None
        self._failure: BaseException | None = None

    def run(self, seconds: float) -> Snapshot:
        """Run it for so long, and check it. Returns: the counts at its end. Raises: what `tick` raises."""
        watcher = threading.Thread(target=self._look, args=(time.monotonic() + seconds,), name="soak-watch")
        watcher.start()
        try:
            self._line.run(self._stop)
        except KeyboardInterrupt:  # the second Ctrl-C
            self._watch.interrupted.set()
        except Exception as exc:
            self._watch.findings.add("goes on", f"the line ended with {type(exc).__name__}: {one_line(exc)}")
        finally:
            ended_s = time.monotonic()
            self._over.set()
            watcher.join()
        if self._failure is not None:
            raise self._failure
        self._check_stop(ended_s)
        counts = self._telemetry.counters.snapshot()
        self._watch.books.close({lane.name: lane.captured for lane in counts.lanes})
        self._check_account(counts, is_over=True)
        self._check_outages(counts)
        self._check_sinks(counts)
        self._check_fairness(counts)
        return counts

    def _look(self, until_s: float) -> None:
        try:
            self._watch_until(until_s)
        except BaseException as exc:  # nobody reads what is said any more, say
            self._failure = exc
            self._stop.set()

    def _watch_until(self, until_s: float) -> None:
        while not self._over.wait(TICK_S):
            counts = self._telemetry.counters.snapshot()
            self._check_account(counts, is_over=False)
            self._watch.tick(counts)
            is_over = time.monotonic() >= until_s or self._watch.spent.is_set() or self._watch.interrupted.is_set()
            if is_over and self._stopped_s is None:
                for sink in self._sinks:
                    sink.stays.set()
                self._over.wait(TICK_S)  # for every sink to notice what was taken away until now
                self._stopped_s = time.monotonic()
                self._stop.set()

    def _check_stop(self, ended_s: float) -> None:
        limit_s = 2 * line_module.STOP_S + self._budget_s + output.FLUSH_S + STOP_SLACK_S
        if self._stopped_s is not None and ended_s - self._stopped_s > limit_s:
            took_s = ended_s - self._stopped_s
            self._watch.findings.add("goes on", f"the line took {took_s:.1f} s to stop, wanted {limit_s:.1f} s at most")

    def _check_account(self, counts: Snapshot, *, is_over: bool) -> None:
        findings, books = self._watch.findings, self._watch.books
        for lane in counts.lanes:
            settled, in_flight = sum(lane.statuses.values()), lane.in_flight
            if lane.captured != settled + in_flight or in_flight < 0 or (is_over and in_flight):
                when = "at the end" if is_over else "meanwhile"
                findings.add("account", f"{lane.name} {when}: {lane.captured} captured, {settled} settled")
            # What is counted now was handed over before; what has a record now is settled by now.
            if lane.captured > books.given(lane.name):
                findings.add("account", f"{lane.name}: more frames captured than handed over")
            counted, found = dict(lane.statuses), dict(books.statuses(lane.name))
            if is_over and counted != found:
                findings.add("account", f"{lane.name}: counted {counted}, records {found}")

    def _check_outages(self, counts: Snapshot) -> None:
        """Every loss and every silence that was counted has its event, and every time that a camera was pulled out."""
        findings, books = self._watch.findings, self._watch.books
        for number, lane in enumerate(counts.lanes):
            told = books.told(lane.name)
            if (told["disconnected"], told["no_frame"]) != (lane.disconnected, lane.no_frame):
                findings.add("outages", f"{lane.name}: counted {lane.disconnected} and {lane.no_frame}, told {told}")
            pulled, lost = self._watch.pulled(number), told["lost"]
            if not pulled - 1 <= lost <= pulled:  # the last time may have been when the line ended
                findings.add("outages", f"{lane.name}: pulled out {pulled} times, told of {lost}")

    def _check_sinks(self, counts: Snapshot) -> None:
        findings, records = self._watch.findings, sum(lane.captured for lane in counts.lanes)
        events = self._watch.books.events
        witness, *others = counts.sinks
        if not witness.taken == witness.delivered == records + events or self._witness.taken != witness.taken:
            got = f"{self._witness.taken} records and events, {events} of them events"
            findings.add("sinks", f"Witness: {got}; wanted {records} records; counted {witness}")
        for sink, counted in zip(self._sinks, others, strict=True):
            wanted = records + (events if hasattr(sink, "event") else 0)
            ended = counted.delivered + counted.lost + counted.dropped + counted.waiting
            if counted.taken != wanted or counted.taken != ended or min(counted.lost, counted.dropped) < 0:
                findings.add("sinks", f"{sink.name}: {wanted} records and events; counted {counted}")
            if counted.delivered + counted.gone != sink.done:
                findings.add("sinks", f"{sink.name}: {sink.done} writes done; counted {counted}")
            if sink.keeps_records and counted.dropped:
                findings.add("sinks", f"{sink.name}: {counted.dropped} records dropped that it should keep")
            if counted.waiting and sink not in self._line.hung:
                findings.add("sinks", f"{sink.name}: {counted.waiting} records still wait at the end")

    def _check_fairness(self, counts: Snapshot) -> None:
        """Of cameras without faults, none that missed frames was served less than another."""
        calm = [lane for number, lane in enumerate(counts.lanes) if self._watch.is_calm(number)]
        served = {lane.name: self._watch.books.judged(lane.name) for lane in calm}
        for lane in calm:
            most = max(served, key=lambda name: served[name])
            wants = lane.statuses.get("skipped", 0) > 0.05 * lane.captured
            if wants and served[most] >= FEW and served[most] > FAIR * served[lane.name] + HEAD_START:
                got = f"{lane.name} was served {served[lane.name]} times and wanted more"
                self._watch.findings.add("fairness", f"{got}, {most} {served[most]} times")
