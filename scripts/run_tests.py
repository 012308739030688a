"""Run all tests, each folder of them in a process of its own, two at a time, and add up what came of them.

The tests load PyTorch, OpenVINO, TensorRT-RTX, ONNX Runtime and GStreamer; where one of them brings its process down,
the tests of the other folders are run all the same, and the folder is known. What a folder writes is shown when it has
ended. Extra arguments go to pytest.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NO_TESTS = 5  # pytest's exit code
LIMIT_S = 900  # for the tests of a folder; half of that, for one test, brings what its threads wait for to light
LANES = 2  # folders at a time; each computes with a thread or two, and several of them wait for other processes


def groups(folder: Path) -> Iterator[list[str]]:
    """The test files of a folder, and those of each folder in it."""
    files = sorted(str(path.relative_to(ROOT)) for path in folder.glob("test_*.py"))
    if files:
        yield files
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "support"):
        yield from groups(inner)


def ending(code: int) -> str:
    """How a process ended, in words; empty where its exit code is no complaint."""
    if code in (0, NO_TESTS):
        return ""
    if code > 0:
        return f"exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"killed by {names.get(-code, f'signal {-code}')}"


@dataclass(frozen=True)
class Run:
    """The tests of one folder, and what came of them.

    Attributes:
        folder: below the root.
        fault: what is to be said against it; empty where nothing is.
        outcomes: file in which pytest left them; it does not exist where the process came to no end.
    """

    folder: Path
    seconds: float
    output: str
    fault: str
    outcomes: Path


def run(files: list[str], outcomes: Path, variable: str) -> Run:
    """Run pytest on the files of a folder. Args: variable: tells it where to leave the outcomes."""
    folder, began = Path(files[0]).parent, time.monotonic()
    print(f"--- {folder}: begun", flush=True)
    command = [sys.executable, "-m", "pytest", "-o", f"faulthandler_timeout={LIMIT_S // 2}", *files, *sys.argv[1:]]
    environment = {**os.environ, variable: str(outcomes)}
    output = outcomes.with_suffix(".txt")  # no pipe: what a test has left running would hold it open
    with output.open("wb") as written:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=written, stderr=written, timeout=LIMIT_S, check=False
            )
            fault = ending(done.returncode)
        except subprocess.TimeoutExpired:
            fault = f"no end after {LIMIT_S} s"
    if not (fault or outcomes.exists()):
        fault = "ended without telling what came of its tests"
    return Run(folder, time.monotonic() - began, output.read_text("utf-8", "replace"), fault, outcomes)


def main() -> int:
    ladder = _ladder()
    outcomes = ladder.Outcomes()
    lines: dict[str, str] = {}
    failed, began = [], time.monotonic()
    with TemporaryDirectory(prefix="edge-ad-tests-") as scratch, ThreadPoolExecutor(LANES) as lanes:
        # The largest first, so that both lanes end at about the same time.
        largest_first = sorted(groups(ROOT / "tests"), key=_size_bytes, reverse=True)
        waiting = [
            lanes.submit(run, files, Path(scratch) / f"{number}.json", ladder.OUTCOMES_FILE)
            for number, files in enumerate(largest_first)
        ]
        for ended in as_completed(waiting):
            one = ended.result()
            counts = ladder.in_words(outcomes.add(one.outcomes)) if one.outcomes.exists() else ""
            told = ", ".join(text for text in (counts, one.fault) if text) or "no tests"
            print(f"\n{one.output}\n--- {one.folder}: {told}, {one.seconds:.0f} s\n", flush=True)
            lines[str(one.folder)] = f"{one.seconds:8.0f}  {one.folder}: {told}"
            if one.fault:
                failed.append(f"{one.folder} ({one.fault})")
    in_all = f"{time.monotonic() - began:8.0f}  in all: {ladder.in_words(outcomes.tests) or 'no tests'}"
    print(
        "\n seconds  folder",
        *(lines[name] for name in sorted(lines)),
        in_all,
        f"\n{ladder.TITLE}",
        *outcomes.table(),
        sep="\n",
    )
    for fault in outcomes.faults():
        failed.append(fault)
        print(f"FAILED {fault}")
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall folders passed")
    return 1 if failed else 0


def _size_bytes(files: list[str]) -> int:
    """Of all that a folder holds of Python, which says roughly how long its tests take."""
    return sum(path.stat().st_size for path in (ROOT / files[0]).parent.glob("*.py"))


def _ladder() -> Any:
    spec = importlib.util.spec_from_file_location("ladder", ROOT / "tests" / "support" / "ladder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # before it runs: its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
