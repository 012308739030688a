"""Two thousand mutated bundles whose hashes fit: each is refused or judged, with no crash, hang or traceback.

`tests/support/fuzz_bundles.py` does the same by hand for as many as are wanted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))
from fuzz_bundles import PLANTED, PLANTED_CASE, Job, fuzz

COUNT = 2000


def test_mutated_manifests_and_graphs_are_refused_or_judged(micro_bundle: Path) -> None:
    outcome = fuzz(Job(micro_bundle, seed=16, count=COUNT))
    assert outcome.faults == []
    assert outcome.counts.total() == COUNT
    assert outcome.counts["refused, then BundleError"] > COUNT / 2
    assert outcome.counts["clean, judged"] > COUNT / 50  # the mutations are not all so coarse that nothing is left


@pytest.mark.parametrize(("fault", "seen"), [("crash", "crash"), ("hang", "hang"), ("traceback", "traceback")])
def test_a_planted_fault_is_seen_and_the_other_cases_go_on(micro_bundle: Path, fault: str, seen: str) -> None:
    assert fault in PLANTED
    outcome = fuzz(Job(micro_bundle, count=8, processes=1, plant=fault, hang_s=10))
    assert outcome.counts[seen] == 1 and outcome.counts.total() == 8
    assert [fault.split(":")[0] for fault in outcome.faults] == [f"case {PLANTED_CASE} of seed 0"]
