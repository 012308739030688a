"""`benchmarks/suite/turns.py`: ratios are those of a round to its own yardstick; and the suite itself, in a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from suite import turns

    return turns


class HandClock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.slowness = 1.0
        self.order: list[str] = []

    def work(self, name: str, ms: float) -> None:
        self.order.append(name)
        self.now_ms += ms * self.slowness

    def read(self) -> tuple[float, float]:
        return self.now_ms, self.now_ms


class HandYard:
    """Product and copy of 2 ms each, so a yard of 2 ms where nothing is slow."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock

    def times(self) -> Any:
        self._clock.work("yard", 0)
        return np.array([[2.0, 2.0]]).repeat(2, axis=0)[..., None].repeat(2, axis=2) * self._clock.slowness


def test_rounds_take_turns_and_a_slow_machine_cancels(turns: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    monkeypatch.setattr(turns, "read_clocks", clock.read)
    subjects = {"a": lambda: clock.work("a", 6.0), "b": lambda: clock.work("b", 10.0)}
    quiet = turns.in_turns(subjects, HandYard(clock), rounds=3, warmup=1)
    assert clock.order == ["yard", "a", "b", "yard", *["a", "yard", "b", "yard"] * 3]
    assert quiet["a"].ratios == pytest.approx([3.0] * 3) and quiet["b"].ratios == pytest.approx([5.0] * 3)
    assert quiet["b"].times_s == pytest.approx([0.010] * 3)
    clock.slowness = 7.0
    slow = turns.in_turns(subjects, HandYard(clock), rounds=3, warmup=1)
    assert slow["a"].times_s == pytest.approx([0.042] * 3) and slow["a"].ratios == pytest.approx(quiet["a"].ratios)


def test_a_short_subject_is_called_often_enough_and_its_time_is_that_of_one_call(
    turns: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    monkeypatch.setattr(turns, "read_clocks", clock.read)
    found = turns.in_turns({"a": lambda: clock.work("a", 0.1)}, HandYard(clock), rounds=2, warmup=1)["a"]
    assert found.calls == 20 and clock.order.count("a") == 1 + 2 * 20
    assert found.times_s == pytest.approx([1e-4] * 2) and found.ratios == pytest.approx([0.05] * 2)


def test_a_subject_may_time_itself(turns: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    monkeypatch.setattr(turns, "read_clocks", clock.read)

    def start() -> float:
        clock.work("a", 50.0)
        return 0.008

    found = turns.in_turns({"a": start}, HandYard(clock), rounds=2, warmup=1)["a"]
    assert found.times_s == [0.008] * 2 and found.ratios == pytest.approx([4.0] * 2)


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "--basetemp",
        str(folder / "tmp"),
    ]
    return subprocess.run(
        [*command, *arguments], cwd=BENCHMARKS.parent, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_suite_runs_and_stores_ratios_for_the_gate(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.json"
    chosen = "test_postprocess and (record or resize) or test_preprocess and 720p"
    done = pytest_in(tmp_path, "benchmarks", "-k", chosen, "--rounds", "4", "--benchmark-json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    stored = {each["name"]: each for each in json.loads(path.read_text("utf-8"))["benchmarks"]}
    assert set(stored) == {
        "test_postprocess[record]",
        "test_postprocess[resize_and_smooth]",
        "test_preprocess[720p-crop]",
        "test_preprocess[720p-stretch]",
    }
    for each in stored.values():
        ratios, times_s = np.array(each["extra_info"]["yardstick_ratio_rounds"]), np.array(each["stats"]["data"])
        assert len(ratios) == len(times_s) == 4
        assert np.isfinite(ratios).all() and (ratios > 0).all() and (times_s > 0).all()
        assert "GEMM" in each["extra_info"]["yardstick"] and each["extra_info"]["threads"] in (1, 2)
    crop, stretch = (stored[f"test_preprocess[720p-{mode}]"] for mode in ("crop", "stretch"))
    assert crop["extra_info"]["yardstick_ratio_rounds"] != stretch["extra_info"]["yardstick_ratio_rounds"]


def test_the_short_form_leaves_the_long_ones_out_and_plain_pytest_all_of_them(tmp_path: Path) -> None:
    done = pytest_in(tmp_path, "--collect-only", "--full", "benchmarks")
    full = [line for line in done.stdout.splitlines() if "::" in line]
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("decode", "preprocess", "engine", "postprocess", "frame", "start"):
        assert any(f"test_{stage}[" in line for line in full)
    for precision in ("fp32", "int8"):
        assert f"benchmarks/test_engine.py::test_engine[wide_resnet50_2-288/{precision}/batch4]" in full
        assert f"benchmarks/test_frame.py::test_frame[wide_resnet50_2-288/{precision}]" in full
    short = pytest_in(tmp_path, "--collect-only", "benchmarks/test_frame.py").stdout
    assert "test_frame[mobilenet_v2-256/int8]" in short and "wide_resnet50_2" not in short
    assert 'testpaths = ["tests"]' in (BENCHMARKS.parent / "pyproject.toml").read_text("utf-8")
