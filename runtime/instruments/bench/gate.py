"""The verdict on a run: each stage against the baseline, by the clock that the machine's state allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edge_ad.errors import RegressionError
from edge_ad.runtime.instruments.bench.busy import CALM
from edge_ad.runtime.instruments.bench.clock import Clock
from edge_ad.runtime.instruments.bench.measure import STAGES
from edge_ad.runtime.instruments.bench.statistics import BUSY_MARGIN, MARGIN, Change, compare

SMALL = 0.1
"""Share of a frame below which a stage is too small to be looked at on its own; the total has it in it."""

Ratios = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Attributes:
        elapsed: one ratio of each round for every stage of `STAGES`.
        processor: the same by processor time; None where that means nothing.
        others: share of the processors that other programs had; None where unknown.
    """

    elapsed: Ratios
    processor: Ratios | None
    others: float | None

    @property
    def is_calm(self) -> bool:
        return self.others is None or self.others <= CALM


@dataclass(frozen=True)
class GateReport:
    """What the comparison of a run with its baseline found.

    Attributes:
        limit: share by which a stage may be slower.
        clock: which times were compared.
        changes: of every stage that was looked at, in the order of `STAGES`.
        notes: what a reader should know.
    """

    limit: float
    clock: Clock
    changes: dict[str, Change]
    notes: tuple[str, ...]

    @property
    def slower(self) -> list[str]:
        return [stage for stage, change in self.changes.items() if change.finding == "slower"]

    def raise_failure(self) -> None:
        """Raises: RegressionError where a stage raised the alarm."""
        if self.slower:
            told = ", ".join(f"{stage} {percent(self.changes[stage])}" for stage in self.slower)
            raise RegressionError(
                f"slower than the baseline: {told}; wanted at most {self.limit:+.0%}; see what changed, or save a new"
                " baseline where it is meant"
            )


def percent(change: Change) -> str:
    """Such as `+14.8 % (interval +12.1 to +16.0 %)`."""
    shown = [f"{(value - 1) * 100:+.1f}" for value in (change.ratio, change.low, change.high)]
    return f"{shown[0]} % (interval {shown[1]} to {shown[2]} %)"


def judge(old: Side, new: Side, limit: float) -> GateReport:
    """Compare a run with its baseline.

    On a busy machine elapsed times tell of the other programs, so processor time is compared instead, where the engine
    works on the processor: waiting does not show in it. Single stages differ too much between such runs, so only the
    total raises the alarm. Where there is no processor time to compare, a slowdown on a busy machine is `unclear`.
    """
    notes = []
    clock: Clock = "elapsed"
    before, after = old.elapsed, new.elapsed
    is_calm = old.is_calm and new.is_calm
    if not is_calm:
        if old.processor is not None and new.processor is not None:
            clock, before, after = "processor", old.processor, new.processor
            rest = (
                "so processor times are compared, where longer waits do not show, and only the total raises the alarm"
            )
        else:
            rest = "so elapsed times say little and no alarm is raised; repeat it on a quiet machine"
        notes.append(f"other programs had {_busy(old, new)}, {rest}")
    looked_at = [
        stage for stage in STAGES if stage == "total" or max(_share(before, stage), _share(after, stage)) >= SMALL
    ]
    margin = MARGIN if is_calm else BUSY_MARGIN
    changes = {
        stage: compare(before[stage], after[stage], limit=limit, comparisons=len(looked_at), margin=margin)
        for stage in looked_at
    }
    if not is_calm:
        trusted = ("total",) if clock == "processor" else ()
        changes = {
            stage: replace(change, finding="unclear") if change.finding == "slower" and stage not in trusted else change
            for stage, change in changes.items()
        }
    left_out = [stage for stage in STAGES if stage not in looked_at]
    if left_out:
        notes.append(f"under {SMALL:.0%} of a frame and looked at only within the total: {', '.join(left_out)}")
    if any(change.finding == "unclear" for change in changes.values()):
        notes.append("unclear is neither an alarm nor an all-clear: give a longer --duration, or a quieter machine")
    return GateReport(limit, clock, changes, tuple(notes))


def _busy(old: Side, new: Side) -> str:
    sides = ((old, "the baseline's run"), (new, "this run"))
    return " and ".join(
        f"{side.others:.0%} of the processors in {name}"
        for side, name in sides
        if side.others is not None and not side.is_calm
    )


def _share(ratios: Ratios, stage: str) -> float:
    totals = sorted(ratios["total"])
    times = sorted(ratios[stage])
    return times[len(times) // 2] / totals[len(totals) // 2]
