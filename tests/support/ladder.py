"""The ladder: how far the GPU path is proven without a GPU, rung by rung, at the end of pytest's output.

A test module says `pytestmark = pytest.mark.rung(5)`; tests marked `gpu` are the last rung. EDGE_AD_REQUIRE_LADDER,
which CI sets, lets a whole run fail when on some rung a test was skipped or none passed. CI has no GPU: on the last
rung tests have to be there, and may be skipped.

Where several pytest processes are one run, as in scripts/run_tests.py, each leaves its outcomes in the file that
EDGE_AD_TEST_OUTCOMES names instead, and who started them adds them up.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

RUNGS = {
    1: "exported and quantized graphs against their networks, in detection terms",
    2: "graphs as NVIDIA's parser wants them, by our lint and polygraphy's",
    3: "real engines by NVIDIA's builder (TensorRT-RTX), weights of the type that was asked for",
    4: "every name of TensorRT and CUDA that is used, in NVIDIA's own bindings and stubs",
    5: "kernels compiled for every GPU, without spills",
    6: "kernels executed on the CPU against float64, under sanitizers, with planted faults",
    7: "the runner under pycuda on an emulated driver, from frames to verdicts",
    8: "tests on a GPU (skipped without one; EDGE_AD_REQUIRE_GPU=1 makes that a failure)",
}
NEEDS_GPU = 8
OUTCOMES_FILE = "EDGE_AD_TEST_OUTCOMES"
TITLE = "what is proven of the GPU path"


@dataclass(eq=False)
class Outcomes:
    """What came of the tests, in one process or in several.

    Attributes:
        is_whole: the whole suite is run, so that every rung has to be there.
        tests: how many ended how, in pytest's words.
        rungs: the same of every rung.
    """

    is_whole: bool = True
    tests: Counter[str] = field(default_factory=Counter)
    rungs: dict[int, Counter[str]] = field(default_factory=lambda: {rung: Counter() for rung in RUNGS})

    def add(self, path: Path) -> Counter[str]:
        """Add what another process has left in a file, and tell how its tests ended."""
        left = json.loads(path.read_text("utf-8"))
        self.is_whole &= left["is_whole"]
        self.tests.update(left["tests"])
        for rung, counts in left["rungs"].items():
            self.rungs[int(rung)].update(counts)
        return Counter(left["tests"])

    def leave(self, path: Path) -> None:
        path.write_text(json.dumps({"is_whole": self.is_whole, "tests": self.tests, "rungs": self.rungs}), "utf-8")

    def faults(self) -> list[str]:
        """What keeps the ladder from standing, in words; outcomes that fail the run anyway are not among it."""
        if not (self.is_whole and os.environ.get("EDGE_AD_REQUIRE_LADDER")):
            return []
        faults = []
        for rung, counts in self.rungs.items():
            if rung != NEEDS_GPU and counts["skipped"]:
                faults.append(f"rung {rung}: {counts['skipped']} skipped")
            if not (counts["passed"] or (rung == NEEDS_GPU and counts["skipped"])):
                faults.append(f"rung {rung}: none passed")
        return faults

    def table(self) -> list[str]:
        return [f"rung {rung}: {title}: {in_words(self.rungs[rung]) or 'not run'}" for rung, title in RUNGS.items()]


def in_words(counts: Counter[str]) -> str:
    """Such as `1 failed, 3 passed`; empty where there is nothing to count."""
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()) if count)


class Ladder:
    """Pytest's plugin.

    Args:
        outcomes: of this process, filled in as its tests end.
        file: left there for whoever started this process; without one, they are shown and judged here.
    """

    def __init__(self, outcomes: Outcomes, file: Path | None) -> None:
        self._outcomes = outcomes
        self._file = file

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            mark = item.get_closest_marker("rung")
            if item.get_closest_marker("gpu") is not None:
                item.user_properties.append(("rung", NEEDS_GPU))
            elif mark is not None:
                item.user_properties.append(("rung", int(mark.args[0])))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._outcomes.tests["error" if report.failed else report.outcome] += 1

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        outcome = "error" if report.when != "call" and report.failed else report.outcome
        self._outcomes.tests[outcome] += 1
        rung = dict(report.user_properties).get("rung")
        if isinstance(rung, int):
            self._outcomes.rungs[rung][report.outcome] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._file is not None:
            self._outcomes.leave(self._file)
        elif exitstatus == pytest.ExitCode.OK and self._outcomes.faults():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._file is not None or not any(self._outcomes.rungs.values()):
            return
        terminalreporter.section(TITLE)
        for line in self._outcomes.table():
            terminalreporter.line(line)
        for fault in self._outcomes.faults():
            terminalreporter.line(f"FAILED {fault}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    file = os.environ.pop(OUTCOMES_FILE, None)  # not for a pytest that a test starts
    is_chosen = bool(config.option.keyword or config.option.markexpr)
    if file is None:  # else the folders were named by who adds the outcomes up
        is_chosen |= config.args_source is not config.ArgsSource.TESTPATHS
    outcomes = Outcomes(is_whole=not is_chosen)
    config.pluginmanager.register(Ladder(outcomes, None if file is None else Path(file)), "ladder")
