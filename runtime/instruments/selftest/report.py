"""What a self-test found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_ad.runtime.instruments.selftest.agreement import Difference, Limits
from edge_ad.runtime.instruments.selftest.kernels import OperatorDifference, PreprocessDifference
from edge_ad.runtime.instruments.selftest.latency import Percentiles
from edge_ad.runtime.instruments.selftest.machine import without_home
from edge_ad.runtime.instruments.selftest.memory import MemoryFigures
from edge_ad.validation import plain


@dataclass(frozen=True)
class EngineRow:
    """One engine at one batch against the reference; without figures where it failed."""

    engine: str
    batch: int
    limits: Limits
    difference: Difference | None
    faults: tuple[str, ...]


@dataclass(frozen=True)
class OperatorRow:
    """Maps of one engine against the operator in float64. Where the graph makes them, this is for information."""

    engine: str
    difference: OperatorDifference
    judged: bool
    faults: tuple[str, ...]


@dataclass(frozen=True)
class PreprocessRow:
    """Model inputs of the device against the CPU's; without figures where it failed."""

    difference: PreprocessDifference | None
    faults: tuple[str, ...]


@dataclass(frozen=True)
class LatencyRow:
    """Milliseconds of one way, from a frame in memory to maps and score in memory; the medians of its two parts."""

    way: str
    total: Percentiles
    preprocess_p50: float
    infer_p50: float
    passed: bool


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        about: machine, bundle, engines, in words.
        engine: which was tested.
        reference: what it was compared with, in words.
        images: which pictures, in words.
        threshold, threshold_of: where masks and verdicts are compared.
        engines, operators, preprocess: how far what was computed is off.
        against_fp32: the engine against the bundle's float32 model; None where it is that model, or is not there.
        against_fp32_faults: what of that is outside of what a quantized model may differ by.
        latency: of the ways that went through, those that need less first.
        frames: that were timed of each way.
        clocks: of the GPU before and after the timing.
        fastest: the way that is fastest of those that passed, by `RULE`; None where there is nothing to choose.
        recorded: what became of that.
        memory: figures.
        missing: what could not be tried, and why.
        notes: what else a reader should know.
        budget_ms: see `SelftestOptions`.
        over_budget: in words, when the way that would be taken is too slow.
        failures: everything that is wrong, in words; empty where the test has passed.
        record_error: why what was found could not be kept.
    """

    about: Mapping[str, str]
    engine: str
    reference: str
    images: str
    threshold: float
    threshold_of: str
    engines: tuple[EngineRow, ...]
    operators: tuple[OperatorRow, ...]
    preprocess: PreprocessRow | None
    against_fp32: Difference | None
    against_fp32_faults: tuple[str, ...]
    latency: tuple[LatencyRow, ...]
    frames: int
    clocks: tuple[str, ...]
    fastest: str | None
    recorded: str
    memory: MemoryFigures
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    budget_ms: float | None = None
    over_budget: str | None = None
    failures: tuple[str, ...] = ()
    record_error: str | None = None

    @property
    def verdict(self) -> str:
        """`PASSED`, with what was not checked; or `FAILED: ` and what, with the first fault of each."""
        failures = [*self.failures, *filter(None, (self.over_budget,))]
        if failures:
            first = {failure.split(": ")[0]: failure for failure in reversed(failures)}
            return f"FAILED: {'; '.join(reversed(first.values()))}"
        return "PASSED" + (f"; not checked: {', '.join(self.missing)}" if self.missing else "")


def report_json(report: Report) -> dict[str, Any]:
    """The report as plain values, without the name of the user's home folder."""
    content = {"verdict": report.verdict, **plain(report)}
    return dict(without_home(content))
