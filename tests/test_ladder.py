"""The ladder's report: every rung is named, and where it is required, one that cannot run fails the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LADDER = Path(__file__).with_name("support") / "ladder.py"
RUNGS = 8
SUITE = """
import pytest

@pytest.mark.parametrize("rung", [pytest.param(rung, marks=pytest.mark.rung(rung)) for rung in range(1, 8)])
def test_of_a_rung(rung):
    {body}

@pytest.mark.gpu
@pytest.mark.rung(7)
def test_of_a_gpu():
    pytest.skip("needs a GPU: none")
"""


def _run(folder: Path, body: str, *arguments: str, required: str = "1") -> subprocess.CompletedProcess[str]:
    (folder / "suite").mkdir()
    (folder / "suite" / "test_rungs.py").write_text(SUITE.format(body=body))
    (folder / "conftest.py").write_text(LADDER.read_text("utf-8"))
    settings = "[tool.pytest.ini_options]\ntestpaths = ['suite']\nmarkers = ['gpu: a GPU', 'rung(number): of a rung']\n"
    (folder / "pyproject.toml").write_text(settings)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "EDGE_AD_REQUIRE_LADDER": required, "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_every_rung_is_named_with_what_came_of_it(tmp_path: Path) -> None:
    done = _run(tmp_path, "pass")
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("rung ")]
    assert [line.split(":")[0] for line in lines] == [f"rung {rung}" for rung in range(1, RUNGS + 1)]
    assert all(line.endswith(": 1 passed") for line in lines[:-1])
    assert lines[-1].endswith(": 1 skipped")


@pytest.mark.parametrize(
    ("body", "arguments", "says"),
    [
        ("rung == 5 and pytest.skip('no nvcc')", (), ["rung 5: 1 skipped", "rung 5: none passed"]),
        ("pass", ("--deselect", "suite/test_rungs.py::test_of_a_rung[3]"), ["rung 3: none passed"]),
        ("pass", ("--deselect", "suite/test_rungs.py::test_of_a_gpu"), ["rung 8: none passed"]),
    ],
)
def test_a_rung_that_did_not_run_fails_where_it_is_required(
    tmp_path: Path, body: str, arguments: tuple[str, ...], says: list[str]
) -> None:
    done = _run(tmp_path, body, *arguments)
    assert done.returncode == 1, done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("FAILED")] == [f"FAILED {say}" for say in says]


@pytest.mark.parametrize(("arguments", "required"), [((), ""), (("-k", "5"), "1"), (("suite",), "1")])
def test_elsewhere_and_of_a_part_of_the_suite_it_only_reports(
    tmp_path: Path, arguments: tuple[str, ...], required: str
) -> None:
    done = _run(tmp_path, "rung == 5 and pytest.skip('no nvcc')", *arguments, required=required)
    assert done.returncode == 0, done.stdout
    assert "rung 5: kernels compiled for every GPU, without spills: 1 skipped" in done.stdout
