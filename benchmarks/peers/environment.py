"""anomalib's own virtual environment: made from `anomalib.txt` in a temporary folder, and deleted afterwards."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "anomalib.txt"
NEEDED_BYTES = 12 << 30
"""Its files and what pip unpacks on the way."""
LONGEST_S = 1800


class UnavailableError(Exception):
    """There is no such environment; the message says in one line why."""


@contextmanager
def made_environment() -> Iterator[Path]:
    """Install it (some 7 GB). Yields: its Python. Raises: UnavailableError."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < NEEDED_BYTES:
        raise UnavailableError(
            f"wanted {NEEDED_BYTES >> 30} GB in {tempfile.gettempdir()}, got {free >> 30}; set TMPDIR"
        )
    with tempfile.TemporaryDirectory(prefix="anomalib-") as folder:
        python = Path(folder) / "bin" / "python"
        _run([sys.executable, "-m", "venv", folder])
        _run([str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", "-r", str(REQUIREMENTS)])
        yield python


@contextmanager
def chosen_environment(choice: str, say: Callable[[str], None]) -> Iterator[Path]:
    """What `--anomalib` names: make, none, or the Python of one. Yields: its Python. Raises: UnavailableError."""
    if choice == "none":
        raise UnavailableError("left out by --anomalib none")
    if choice == "make":
        say("making anomalib's environment")
        with made_environment() as python:
            yield python
    else:
        yield existing_environment(Path(choice).absolute())


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise UnavailableError(f"{' '.join(command)}: {exc}") from exc
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UnavailableError(f"{' '.join(command)}: {' / '.join(lines[-2:])}")


def existing_environment(python: Path) -> Path:
    """Check that this Python has anomalib with GLASS. Raises: UnavailableError."""
    _run([str(python), "-c", "import anomalib.models.image.glass"])
    return python
