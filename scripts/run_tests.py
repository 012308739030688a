"""Run all tests, each folder of them in a process of its own.

The tests load PyTorch, OpenVINO, TensorRT-RTX, ONNX Runtime and GStreamer; one process that has held all of them for a
quarter of an hour has ended with a segmentation fault now and then. Extra arguments go to pytest.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NO_TESTS = 5  # pytest's exit code


def groups(folder: Path) -> Iterator[list[str]]:
    """The test files of a folder, and those of each folder in it."""
    files = sorted(str(path.relative_to(ROOT)) for path in folder.glob("test_*.py"))
    if files:
        yield files
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "support"):
        yield from groups(inner)


def main() -> int:
    failed = []
    for files in groups(ROOT / "tests"):
        print(f"\n--- {Path(files[0]).parent}", flush=True)
        code = subprocess.run([sys.executable, "-m", "pytest", *files, *sys.argv[1:]], cwd=ROOT, check=False).returncode
        if code not in (0, NO_TESTS):
            failed.append(f"{Path(files[0]).parent} (exit code {code})")
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall folders passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
