"""The ladder: how far the GPU path is proven without a GPU, rung by rung, at the end of pytest's output.

A test module says `pytestmark = pytest.mark.rung(5)`; tests marked `gpu` are the last rung. EDGE_AD_REQUIRE_LADDER,
which CI sets, lets a whole run fail when on some rung a test was skipped or none passed. CI has no GPU: on the last
rung tests have to be there, and may be skipped.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

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


@dataclass(eq=False)
class Ladder:
    """Outcomes by rung.

    Attributes:
        is_whole: the whole suite is run, so that every rung has to be there.
    """

    is_whole: bool
    outcomes: dict[int, Counter[str]] = field(default_factory=lambda: {rung: Counter() for rung in RUNGS})

    def faults(self) -> list[str]:
        """What keeps the ladder from standing, in words; outcomes that fail the run anyway are not among it."""
        if not (self.is_whole and os.environ.get("EDGE_AD_REQUIRE_LADDER")):
            return []
        faults = []
        for rung, counts in self.outcomes.items():
            if rung != NEEDS_GPU and counts["skipped"]:
                faults.append(f"rung {rung}: {counts['skipped']} skipped")
            if not (counts["passed"] or (rung == NEEDS_GPU and counts["skipped"])):
                faults.append(f"rung {rung}: none passed")
        return faults

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            mark = item.get_closest_marker("rung")
            if item.get_closest_marker("gpu") is not None:
                item.user_properties.append(("rung", NEEDS_GPU))
            elif mark is not None:
                item.user_properties.append(("rung", int(mark.args[0])))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        rung = dict(report.user_properties).get("rung")
        if not isinstance(rung, int) or (report.when != "call" and report.passed):
            return
        self.outcomes[rung][report.outcome] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and self.faults():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not any(self.outcomes.values()):
            return
        terminalreporter.section("what is proven of the GPU path")
        for rung, title in RUNGS.items():
            counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes[rung].items()))
            terminalreporter.line(f"rung {rung}: {title}: {counts or 'not run'}")
        for fault in self.faults():
            terminalreporter.line(f"FAILED {fault}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.option.keyword or config.option.markexpr or config.args_source is not config.ArgsSource.TESTPATHS
    config.pluginmanager.register(Ladder(is_whole=not chosen), "ladder")
