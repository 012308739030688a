"""A file that outgrows 300 lines is two things; tests may be longer, where they are many of one thing."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 300


def too_long(folder: Path) -> dict[str, int]:
    """Lines of every Python file that has too many."""
    files = list(folder.rglob("*.py"))
    assert files
    lengths = {path.relative_to(folder).as_posix(): len(path.read_text("utf-8").splitlines()) for path in files}
    return {name: lines for name, lines in lengths.items() if lines > LONGEST}


@pytest.mark.parametrize("room", ["edge_ad", "export", "calibration", "runtime", "benchmarks", "scripts"])
def test_no_file_is_two_things(room: str) -> None:
    assert too_long(ROOT / room) == {}


def test_a_file_that_is_too_long_is_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "short.py").write_text("pass\n" * LONGEST)
    (tmp_path / "deep" / "long.py").write_text("pass\n" * (LONGEST + 1))
    assert too_long(tmp_path) == {"deep/long.py": LONGEST + 1}
