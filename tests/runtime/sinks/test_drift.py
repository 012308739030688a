"""The drift alarm: as many false alarms as it says and no more, and real shifts found soon."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict, record_schema
from edge_ad.runtime.sinks.drift import DriftAlarm, DriftRule
from edge_ad.runtime.sinks.drift_test import critical_distance, ks_distance, ks_tail

BUNDLE = {"bundle": "ab" * 32, "precision": "fp32"}


class Watched:
    """A drift alarm, its events, and the frame at which each came."""

    def __init__(self, rule: DriftRule, path: Path | None = None) -> None:
        self.events: list[tuple[int, Mapping[str, Any]]] = []
        self.said: list[str] = []
        self.frames = 0
        self.sink = DriftAlarm(rule, path, self.said.append)
        self.sink.raise_events(lambda entry: self.events.append((self.frames, entry)))
        self.sink.__enter__()

    def feed(self, scores: Any, source: str = "camera:0", entry: Mapping[str, Any] = BUNDLE) -> None:
        for score in scores:
            self.frames += 1
            frame = Frame(self.frames, source, datetime.now(timezone.utc), self.frames, None)
            self.sink.write(frame, Verdict("ok", score=float(score)), {**entry, "source": source})

    def states(self) -> list[str]:
        return [str(entry["state"]) for _, entry in self.events]


@settings(max_examples=40, derandomize=True, deadline=None)
@given(m=st.integers(2, 120), n=st.integers(2, 60), seed=st.integers(0, 10_000), ties=st.booleans())
def test_the_test_is_that_of_scipy(m: int, n: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    reference, scores = rng.random(m), rng.random(n) + 0.2
    if ties:
        reference, scores = reference.round(1), scores.round(1)
    distance = ks_distance(np.sort(reference), scores)
    wanted = stats.ks_2samp(reference, scores, method="exact")
    assert distance == pytest.approx(wanted.statistic, abs=1e-12)
    assert ks_tail(m, n, distance) == pytest.approx(wanted.pvalue, abs=1e-9)


@pytest.mark.parametrize(("m", "n", "rate"), [(100, 50, 0.01), (37, 20, 0.05), (1000, 200, 2e-4), (20, 10, 1e-9)])
def test_the_critical_distance_is_the_smallest_that_keeps_the_rate(m: int, n: int, rate: float) -> None:
    critical = critical_distance(m, n, rate)
    step = 1 / np.lcm(m, n)
    if critical <= 1:
        assert ks_tail(m, n, critical) <= rate < ks_tail(m, n, critical - step)
    else:
        assert rate < ks_tail(m, n, 1.0)  # so few scores are never that sure


@pytest.mark.parametrize("draw", ["random", "normal", "exponential", "rounded"])
def test_false_alarms_are_as_rare_as_promised(draw: str) -> None:
    """Of 600 references with 5 blocks each, a share of `block / frames_per_false_alarm` may alarm: 5 %, or 150."""
    rng = np.random.default_rng(7)
    make = (lambda size: rng.random(size).round(2)) if draw == "rounded" else getattr(rng, draw)
    rule = DriftRule(reference=100, block=50, frames_per_false_alarm=1000)
    alarms = 0
    for _ in range(600):
        reference = np.sort(make(size=100))
        alarms += sum(ks_distance(reference, make(size=50)) >= rule.alarm_distance - 1e-9 for _ in range(5))
    # References are shared by five blocks, so the count varies more than a binomial one; four of its deviations are 60.
    assert alarms <= 150 + 60
    assert alarms >= (30 if draw == "rounded" else 90)  # and the promise is not kept by never looking


def test_no_alarm_comes_without_drift_and_one_comes_soon_with_it() -> None:
    rng = np.random.default_rng(3)
    rule = DriftRule(reference=400, block=100, frames_per_false_alarm=1e6)
    watched = Watched(rule)
    watched.feed(rng.beta(2, 8, 20_000))
    assert watched.events == []
    before = watched.frames
    watched.feed(rng.beta(2, 8, 400) + 0.1)  # the standard deviation is 0.12
    (alarm,) = watched.events
    assert alarm[0] - before <= 200
    assert alarm[1]["distance"] >= alarm[1]["critical_distance"]
    assert alarm[1]["median"] - alarm[1]["reference_median"] == pytest.approx(0.1, abs=0.04)
    assert "have drifted" in watched.said[0]
    watched.feed(rng.beta(2, 8, 600))
    assert watched.states() == ["alarm", "cleared"]
    for _, entry in watched.events:
        jsonschema.validate(entry, record_schema(), format_checker=jsonschema.FormatChecker())


@settings(max_examples=12, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.sampled_from([-2.0, -1.0, 1.0, 3.0]), sources=st.integers(1, 3))
def test_shifts_either_way_are_found_within_two_blocks_of_their_source(seed: int, shift: float, sources: int) -> None:
    rng = np.random.default_rng(seed)
    watched = Watched(DriftRule(reference=200, block=80, frames_per_false_alarm=1e6))
    for source in range(sources):
        watched.feed(rng.normal(size=200), source=f"camera:{source}")
    watched.feed(rng.normal(size=240) + shift, source="camera:0")
    for source in range(1, sources):
        watched.feed(rng.normal(size=80), source=f"camera:{source}")
    assert [(entry["source"], entry["state"]) for _, entry in watched.events] == [("camera:0", "alarm")]
    assert watched.events[0][0] <= sources * 200 + 160


def test_a_wider_spread_and_more_defects_are_drift_too() -> None:
    rng = np.random.default_rng(0)
    for drifted in (rng.normal(size=400) * 4, np.where(rng.random(400) < 0.4, 5.0, rng.normal(size=400))):
        watched = Watched(DriftRule(reference=400, block=200))
        watched.feed(rng.normal(size=400))
        watched.feed(drifted)
        assert watched.states() == ["alarm"]


def test_an_alarm_near_its_edge_does_not_flicker() -> None:
    """Blocks that alternate between too far and nearly too far raise one alarm, not many."""
    rule = DriftRule(reference=200, block=100, frames_per_false_alarm=1e5)
    watched = Watched(rule)
    watched.feed((np.arange(200) + 0.5) / 200)
    grid = (np.arange(100) + 0.5) / 100
    far, near = grid * (1 - rule.alarm_distance - 0.02), grid * (1 - rule.alarm_distance + 0.02)
    for _ in range(6):
        watched.feed(far)
        watched.feed(near)
    assert rule.clear_distance < rule.alarm_distance - 0.02
    assert watched.states() == ["alarm"]
    watched.feed([*grid, *near, *grid])  # one that is calm is not enough
    assert watched.states() == ["alarm"]
    watched.feed(grid)
    assert watched.states() == ["alarm", "cleared"]


def test_the_reference_of_an_earlier_run_is_used_for_the_same_model(tmp_path: Path) -> None:
    """A line that has drifted and is started again must not learn that as normal."""
    rng = np.random.default_rng(0)
    rule, path = DriftRule(reference=200, block=100), tmp_path / "new" / "drift.json"
    Watched(rule, path).feed(rng.normal(size=250))
    again = Watched(rule, path)
    again.feed(rng.normal(size=100) + 3)
    assert again.states() == ["alarm"]
    other = Watched(rule, path)
    other.feed(rng.normal(size=400) + 3, entry={**BUNDLE, "bundle": "cd" * 32})
    assert other.events == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"a": 1}',
        '{"a": {"b": ["x"]}}',
        '{"a": {"b": [[1], [2]]}}',
        f'{{"a": {{"b": [{10**400}]}}}}',
        "\0",
        "[" * 9999,
    ],
    ids=lambda text: text[:30],
)
def test_a_damaged_file_of_references_is_said_and_learned_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "drift.json"
    path.write_text(text)
    watched = Watched(DriftRule(reference=50, block=20), path)
    assert "learned anew" in watched.said[0]
    watched.feed(np.random.default_rng(0).normal(size=60))
    assert path.read_text().startswith('{"ab')


def test_frames_without_a_score_do_not_count(tmp_path: Path) -> None:
    watched = Watched(DriftRule(reference=20, block=10, every=3, frames_per_false_alarm=1000))
    watched.feed([float("nan"), float("inf")])
    frame = Frame(0, "camera:0", datetime.now(timezone.utc), 0, None)
    watched.sink.write(frame, Verdict("skipped", reason="late"), BUNDLE)
    watched.feed(np.arange(60))
    watched.feed(np.arange(27) + 1000.0)
    assert watched.events == []
    watched.feed([1000.0] * 3)
    assert watched.states() == ["alarm"]  # of every third frame: 20 for the reference, then 10
