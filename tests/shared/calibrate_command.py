"""`edge-ad calibrate` run in this process, and what it left."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edge_ad.cli.main import main

Capture = pytest.CaptureFixture[str]


def content_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def fails(code: int, arguments: list[str], capsys: Capture) -> str:
    """One line of error at the end, nothing on standard output, no traceback. Returns: that line."""
    capsys.readouterr()
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    line = captured.err.splitlines()[-1]
    assert line.startswith("edge-ad: error: ")
    return line


def refused_at_once(code: int, arguments: list[str], capsys: Capture) -> str:
    """The same, with nothing said before and nothing left behind."""
    before = content_of(Path())
    line = fails(code, arguments, capsys)
    assert content_of(Path()) == before
    return line


def report_of(bundle: Path) -> Any:
    return json.loads((bundle / "report.json").read_bytes(), parse_constant=lambda name: pytest.fail(name))


def with_threshold(bundle: Path, data: Path, output: str) -> Path:
    """Best F1 on the test images."""
    assert main(["threshold", str(bundle), str(data), "--rule", "best-f1", "-o", output]) == 0
    return Path(output)
