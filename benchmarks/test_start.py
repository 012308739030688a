"""From the start of a process to its first verdict with the compiled model cached, and the process's peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SHORT = ["mobilenet_v2-256/fp32"]
FULL = ["mobilenet_v2-256/int8", "wide_resnet50_2-288/fp32", "wide_resnet50_2-288/int8"]
LONGEST_S = 120
START = Path(__file__).parent / "suite" / "start.py"


class Start:
    """Starts a process that judges with one network, and keeps what it said.

    Attributes:
        peaks_rss_mib: most resident memory of each process, after 20 verdicts.
        from_cache: whether it found the compiled model.
    """

    def __init__(self, *arguments: object) -> None:
        self._command = [sys.executable, str(START), *map(str, arguments)]
        self.peaks_rss_mib: list[float] = []
        self.from_cache: list[bool] = []

    def __call__(self) -> float:
        """Start it and wait for its end. Returns: seconds to the first verdict."""
        began_s = time.perf_counter()
        with subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                first = json.loads(process.stdout.readline() or "{}")
                first_s = time.perf_counter() - began_s
                last = json.loads(process.stdout.readline() or "{}")
                assert process.wait(LONGEST_S) == 0 and first["status"] == "ok"
            finally:
                process.kill()
        self.peaks_rss_mib.append(last["peak_rss_mib"])
        self.from_cache.append(first["from_cache"])
        return first_s


@pytest.fixture(scope="module")
def measured(measure: Any, selected: list[str], bundles: Any, engine_cache: Path, pictures: Path) -> Any:
    processes = {}
    for name in selected:
        network, precision = name.split("/")
        processes[name] = Start(bundles(network).path, precision, engine_cache, pictures / "frame.jpg")
    return measure(processes), processes


@pytest.mark.parametrize("subject", [*SHORT, *(pytest.param(name, marks=pytest.mark.full) for name in FULL)])
def test_start(subject: str, measured: Any, stored: Callable[..., None]) -> None:
    rounds, processes = measured
    process = processes[subject]
    assert all(process.from_cache[1:])
    stored(rounds[subject], peak_rss_mib=max(process.peaks_rss_mib))
