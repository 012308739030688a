"""Run all tests, each folder of them in a process of its own, and add up what came of them.

The tests load PyTorch, OpenVINO, TensorRT-RTX, ONNX Runtime and GStreamer; where one of them brings its process down,
the tests of the other folders are run all the same, and the folder is known. Extra arguments go to pytest.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NO_TESTS = 5  # pytest's exit code


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


def main() -> int:
    ladder = _ladder()
    outcomes = ladder.Outcomes()
    lines, failed, began = [], [], time.monotonic()
    with TemporaryDirectory(prefix="edge-ad-tests-") as scratch:
        for number, files in enumerate(groups(ROOT / "tests")):
            folder, left, started = Path(files[0]).parent, Path(scratch) / f"{number}.json", time.monotonic()
            print(f"\n--- {folder}", flush=True)
            command = [sys.executable, "-m", "pytest", *files, *sys.argv[1:]]
            environment = {**os.environ, ladder.OUTCOMES_FILE: str(left)}
            fault = ending(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode)
            if left.exists():
                counts = ladder.in_words(outcomes.add(left))
            else:
                counts, fault = "", fault or "ended without telling what came of its tests"
            if fault:
                failed.append(f"{folder} ({fault})")
                print(f"\n--- {folder}: {fault}", flush=True)
            told = ", ".join(text for text in (counts, fault) if text)
            lines.append(f"{time.monotonic() - started:8.0f}  {folder}: {told or 'no tests'}")
    in_all = f"{time.monotonic() - began:8.0f}  in all: {ladder.in_words(outcomes.tests) or 'no tests'}"
    print("\n seconds  folder", *lines, in_all, f"\n{ladder.TITLE}", *outcomes.table(), sep="\n")
    for fault in outcomes.faults():
        failed.append(fault)
        print(f"FAILED {fault}")
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall folders passed")
    return 1 if failed else 0


def _ladder() -> Any:
    spec = importlib.util.spec_from_file_location("ladder", ROOT / "tests" / "support" / "ladder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # before it runs: its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
