"""`benchmarks/gate.py`: two files of pytest-benchmark, compared by the statistics of `edge-ad bench`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

GATE = Path(__file__).resolve().parents[1] / "benchmarks" / "gate.py"
MACHINE = {"node": "n", "machine": "x86_64", "system": "Linux", "python_version": "3.11.2", "cpu": {"brand_raw": "A"}}


def stored(path: Path, benchmarks: dict[str, dict[str, Any]], machine: dict[str, Any] | None = None) -> str:
    """A file as --benchmark-json makes it, of the keys that the gate reads."""
    listed = [{"fullname": name, "stats": {}, "extra_info": extra} for name, extra in benchmarks.items()]
    path.write_text(json.dumps({"machine_info": machine or MACHINE, "benchmarks": listed}))
    return str(path)


def rounds(seed: int, factor: float = 1.0, count: int = 40) -> dict[str, Any]:
    ratios = 3 * factor * np.exp(np.random.default_rng(seed).normal(0, 0.03, count))
    return {"yardstick_ratio_rounds": ratios.tolist()}


def gate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(GATE), *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_slower_benchmark_is_named_and_a_clean_one_is_not(tmp_path: Path) -> None:
    old = stored(tmp_path / "old", {"decode": rounds(1), "infer": rounds(2), "gone": rounds(3), "plain": {}})
    new = stored(
        tmp_path / "new",
        {"decode": rounds(4), "infer": rounds(5, 1.15), "added": rounds(6), "plain": {}},
        {**MACHINE, "cpu": {"brand_raw": "B"}},
    )
    done = gate(old, new)
    assert done.returncode == 16 and done.stderr == "gate: error: slower by more than 10%: infer\n"
    lines = done.stdout.splitlines()
    assert lines[0].startswith("infer") and lines[0].endswith("slower")
    assert lines[1].startswith("decode") and lines[1].endswith("same")
    assert {line for line in lines if line.startswith("note:")} == {
        "note: only in the old file: gone",
        "note: only in the new file: added",
        "note: without ratios, not compared: plain",
        "note: another processor: A became B; a change may come from that",
    }
    lenient = gate(old, new, "--fail-above", "30%")
    assert lenient.returncode == 0 and lenient.stderr == ""


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "wanted JSON of pytest-benchmark"),
        ("[]", "wanted JSON of pytest-benchmark"),
        ('{"benchmarks": [{"fullname": "a", "extra_info": {"yardstick_ratio_rounds": [1, -1]}}]}', "numbers above 0"),
        ('{"benchmarks": [{"fullname": "a", "extra_info": {"yardstick_ratio_rounds": [true]}}]}', "numbers above 0"),
        ('{"benchmarks": [{"fullname": "a"}]}', "that both files hold, got none"),
    ],
)
def test_a_file_that_cannot_be_compared_is_one_line(tmp_path: Path, content: str, told: str) -> None:
    new = tmp_path / "new"
    new.write_text(content)
    done = gate(stored(tmp_path / "old", {"a": rounds(1)}), str(new))
    assert done.returncode == 3 and told in done.stderr and len(done.stderr.splitlines()) == 1


def test_another_yardstick_is_refused(tmp_path: Path) -> None:
    old = stored(tmp_path / "old", {"a": {**rounds(1), "yardstick": "one"}})
    done = gate(old, stored(tmp_path / "new", {"a": {**rounds(2), "yardstick": "other"}}))
    assert done.returncode == 3 and "another yardstick" in done.stderr
