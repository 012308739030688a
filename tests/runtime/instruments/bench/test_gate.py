"""The gate on made-up runs, the baseline file, and what may not be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ad.errors import ConfigError, RegressionError
from edge_ad.runtime.instruments.bench.baseline import (
    KIND,
    SCHEMA_VERSION,
    Baseline,
    Subject,
    baseline_bytes,
    check_same_subject,
    machine_notes,
    read_baseline,
)
from edge_ad.runtime.instruments.bench.gate import Side, judge
from edge_ad.runtime.instruments.bench.machine import describe_machine
from edge_ad.runtime.instruments.bench.measure import STAGES, Measurement

LIMIT = 0.1
SHARES = {"preprocess": 0.28, "infer": 0.7, "postprocess": 0.02, "total": 1.0}


def side(
    seed: int,
    *,
    slower: dict[str, float] | None = None,
    others: float | None = 0.02,
    processor: bool = True,
    noise: float = 0.04,
) -> Side:
    """A run of 60 rounds; `slower` gives factors for stages by both clocks."""
    rng = np.random.default_rng(seed)
    factors = slower or {}

    def ratios() -> dict[str, list[float]]:
        return {
            stage: list(8 * share * factors.get(stage, 1.0) * np.exp(rng.normal(0, noise, 60)))
            for stage, share in SHARES.items()
        }

    return Side(ratios(), ratios() if processor else None, others)


def test_a_clean_run_passes() -> None:
    report = judge(side(1), side(2), LIMIT)
    assert report.clock == "elapsed" and report.slower == []
    assert {change.finding for change in report.changes.values()} == {"same"}
    report.raise_failure()


def test_a_slow_stage_fails_and_is_named_with_its_figures() -> None:
    report = judge(side(1), side(2, slower={"infer": 1.15}), LIMIT)
    assert report.slower == ["infer"]
    with pytest.raises(RegressionError, match=r"infer \+1\d\.\d % \(interval .*at most \+10%") as caught:
        report.raise_failure()
    assert caught.value.exit_code == 16


def test_the_limit_is_the_users() -> None:
    slow = side(2, slower=dict.fromkeys(STAGES, 1.15))
    assert judge(side(1), slow, 0.3).slower == []
    assert judge(side(1), slow, 0.03).slower == ["preprocess", "infer", "total"]


def test_a_stage_too_small_to_matter_is_left_out_and_said() -> None:
    report = judge(side(1), side(2, slower={"postprocess": 1.5}), LIMIT)
    assert "postprocess" not in report.changes and report.slower == []
    assert "postprocess" in " ".join(report.notes)
    grown = judge(side(1), side(2, slower={"postprocess": 9.0}), LIMIT)
    assert grown.slower == ["postprocess"]


def test_on_a_busy_machine_processor_time_is_compared() -> None:
    quiet, busy = side(1), side(2, others=0.6)
    waits = Side({**busy.elapsed, "infer": [2 * ratio for ratio in busy.elapsed["infer"]]}, busy.processor, 0.6)
    report = judge(quiet, waits, LIMIT)
    assert report.clock == "processor" and report.slower == []
    assert "60% of the processors in this run" in report.notes[0]
    assert judge(busy, quiet, LIMIT).clock == "processor"
    slow = judge(quiet, side(2, others=0.6, slower={"infer": 1.3, "total": 1.21}), LIMIT)
    assert slow.slower == ["total"] and slow.changes["infer"].finding == "unclear"


def test_on_a_busy_machine_without_processor_times_nothing_raises_an_alarm() -> None:
    report = judge(side(1), side(2, others=0.6, processor=False, slower={"infer": 1.5, "total": 1.35}), LIMIT)
    assert report.clock == "elapsed" and report.slower == []
    assert report.changes["infer"].finding == "unclear"
    assert "quiet machine" in report.notes[0] and "neither an alarm nor an all-clear" in report.notes[-1]


def test_a_system_that_does_not_tell_about_others_compares_elapsed_time() -> None:
    report = judge(side(1, others=None), side(2, others=None, slower={"infer": 1.3}), LIMIT)
    assert report.clock == "elapsed" and report.slower == ["infer"]


def test_a_measured_slowdown_of_15_percent_is_caught_and_the_same_again_is_not(
    measured: Callable[..., Measurement],
) -> None:
    """From the clocks to the verdict, on a machine that slows down by half now and then."""

    def run(seed: int, factor: float = 1.0) -> Side:
        rng = np.random.default_rng(seed)
        level = {"left": 0, "factor": 1.0}

        def machine() -> float:
            if level["left"] == 0:
                level.update(left=int(rng.integers(50, 400)), factor=float(rng.choice([1.0, 1.2, 1.5])))
            level["left"] -= 1
            return level["factor"] * float(np.exp(rng.standard_t(3) * 0.03))

        found = measured(duration_s=8, machine=machine, slowness=lambda stage: factor if stage == "infer" else 1.0)
        return Side({stage: found.ratios(stage) for stage in STAGES}, None, None)

    base = run(0)
    assert [judge(base, run(seed), LIMIT).slower for seed in range(1, 11)] == [[]] * 10
    for seed in range(11, 16):
        assert "infer" in judge(base, run(seed, 1.15), LIMIT).slower


@pytest.fixture
def baseline(subject: Subject) -> Baseline:
    made = side(1)
    assert made.processor is not None
    return Baseline(
        SCHEMA_VERSION,
        KIND,
        "0.1.0",
        "2026-01-01 00:00 UTC",
        "bottle.edgead",
        subject,
        {"processor": "A", "processors": "2"},
        0.02,
        dict.fromkeys(STAGES, 1.0),
        {stage: tuple(ratios) for stage, ratios in made.elapsed.items()},
        {stage: tuple(ratios) for stage, ratios in made.processor.items()},
    )


def test_a_baseline_comes_back_as_it_was_written(baseline: Baseline, tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    for written in (baseline, replace(baseline, processor=None, others=None, subject=replace(baseline.subject, dla=1))):
        path.write_bytes(baseline_bytes(written))
        assert read_baseline(path) == written


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(schema_version=2), "schema version 2, this edge-ad reads 1"),
        (lambda d: d.update(kind="something"), "is no baseline"),
        (lambda d: d.update(extra=1), "extra: unknown key"),
        (lambda d: d.pop("subject"), "subject: missing"),
        (lambda d: d["subject"].update(batch="many"), "subject.batch: wanted a whole number"),
        (lambda d: d["elapsed"]["infer"].append(-1.0), "elapsed.infer.60: wanted a number above 0"),
        (lambda d: d["elapsed"]["infer"].append(1.0), "elapsed: wanted the stages preprocess, infer"),
        (lambda d: d["elapsed"].pop("infer"), "elapsed: wanted the stages"),
        (lambda d: d["processor"].update(other=[1.0]), "processor: wanted the stages"),
        (lambda d: d["elapsed"].update(infer=[]), "elapsed.infer: wanted 1 or more entries"),
        (lambda d: d.update(others=float("nan")), "NaN is no number of JSON"),
        (lambda d: d["elapsed"]["infer"].append(float("inf")), "Infinity is no number of JSON"),
    ],
)
def test_a_damaged_baseline_is_refused_with_what_is_wrong(
    baseline: Baseline, tmp_path: Path, change: Callable[[dict[str, Any]], Any], told: str
) -> None:
    content = json.loads(baseline_bytes(baseline))
    change(content)
    path = tmp_path / "base.json"
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(ConfigError) as caught:
        read_baseline(path)
    path.write_text(path.read_text("utf-8").replace("Infinity", "1e999"), "utf-8")
    with pytest.raises(ConfigError):
        read_baseline(path)
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"kind": 1, "kind": 2}', "\xff", "[" * 100_000, "1e999"])
def test_what_is_no_baseline_at_all_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "base.json"
    path.write_text(content, "latin-1")
    with pytest.raises(ConfigError):
        read_baseline(path)
    for other in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(ConfigError, match="--save-baseline writes one"):
            read_baseline(other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bundle_sha256", "b" * 64),
        ("engine", "onnxruntime"),
        ("precision", "int8"),
        ("computed_in", "bf16"),
        ("batch", 2),
        ("frame_hw", (720, 1280)),
        ("picture", "sha256:1"),
        ("device", 1),
        ("dla", 0),
        ("yardstick", "another"),
    ],
)
def test_another_subject_is_refused_by_name(baseline: Baseline, subject: Subject, field: str, value: Any) -> None:
    check_same_subject(baseline, subject, "baseline")
    with pytest.raises(ConfigError, match=f"{field.removesuffix('_hw')}: the baseline has .*not comparable"):
        check_same_subject(baseline, replace(subject, **{field: value}), "baseline")


def test_another_machine_is_a_warning(baseline: Baseline) -> None:
    assert machine_notes(baseline, {"processor": "A", "processors": "2"}) == []
    notes = machine_notes(baseline, {"processor": "B", "openvino": "2026.1"})
    assert [note.split(":")[0] for note in notes] == ["openvino", "processor", "processors"]
    assert "'A', this run with 'B'" in notes[1]


def test_this_machine_has_a_name_and_versions(tmp_path: Path) -> None:
    found = describe_machine()
    assert found["processor"] and int(found["processors"]) >= 1 and found["openvino"][:2] == "20"
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: Some Processor 9\n")
    assert describe_machine(cpuinfo)["processor"] == "Some Processor 9"
    assert describe_machine(tmp_path / "absent")["processor"]
