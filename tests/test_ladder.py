"""The ladder's report, of one process or of several: where it is required, a rung that cannot run fails the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LADDER = Path(__file__).with_name("support") / "ladder.py"
RUN_TESTS = Path(__file__).parents[1] / "scripts" / "run_tests.py"
RUNGS = 8
SUITE = """
import pytest

@pytest.mark.parametrize("rung", [pytest.param(rung, marks=pytest.mark.rung(rung)) for rung in range({rungs})])
def test_of_a_rung(rung):
    {body}

@pytest.mark.gpu
@pytest.mark.rung(7)
def test_of_a_gpu():
    pytest.skip("needs a GPU: none")
"""


def _run(folder: Path, body: str, *arguments: str, required: str = "1") -> subprocess.CompletedProcess[str]:
    (folder / "suite").mkdir()
    (folder / "suite" / "test_rungs.py").write_text(SUITE.format(body=body, rungs="1, 8"))
    (folder / "conftest.py").write_text(LADDER.read_text("utf-8"))
    return _command(folder, "suite", ["-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments], required)


def _run_folders(folder: Path, bodies: dict[str, str], *arguments: str) -> tuple[int, list[str]]:
    """Exit code of scripts/run_tests.py, and what it prints after the last folder, where the first folder has the tests
    of rungs 1 to 4, and the second those of 4 to 7.
    """
    (folder / "tests" / "support").mkdir(parents=True)
    (folder / "scripts").mkdir()
    (folder / "scripts" / "run_tests.py").write_text(RUN_TESTS.read_text("utf-8"))
    for copy in (folder / "tests" / "support" / "ladder.py", folder / "tests" / "conftest.py"):
        copy.write_text(LADDER.read_text("utf-8"))
    for (name, body), rungs in zip(bodies.items(), ("1, 5", "4, 8"), strict=True):
        (folder / "tests" / name).mkdir()
        (folder / "tests" / name / f"test_{name}.py").write_text(SUITE.format(body=body, rungs=rungs))
    done = _command(folder, "tests", ["scripts/run_tests.py", "-p", "no:cacheprovider", *arguments], "1")
    lines = done.stdout.splitlines()
    return done.returncode, lines[lines.index(" seconds  folder") + 1 :]


def _command(folder: Path, suite: str, command: list[str], required: str) -> subprocess.CompletedProcess[str]:
    settings = f"[tool.pytest.ini_options]\ntestpaths = ['{suite}']\nmarkers = ['gpu: a GPU', 'rung(number): a rung']\n"
    (folder / "pyproject.toml").write_text(settings)
    environment = {**os.environ, "EDGE_AD_REQUIRE_LADDER": required, "PYTEST_ADDOPTS": ""}
    command = [sys.executable, *command]
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


def test_processes_of_their_own_add_up_to_one_ladder(tmp_path: Path) -> None:
    code, lines = _run_folders(tmp_path, {"first": "pass", "second": "pass"})
    assert code == 0, lines
    assert [line.split("  ")[-1] for line in lines[:3]] == [
        "tests/first: 4 passed, 1 skipped",
        "tests/second: 4 passed, 1 skipped",
        "in all: 8 passed, 2 skipped",
    ]
    rungs = [line.rpartition(": ")[2] for line in lines if line.startswith("rung ")]
    assert rungs == ["1 passed"] * 3 + ["2 passed"] + ["1 passed"] * 3 + ["2 skipped"]
    assert lines[-1] == "all folders passed"


@pytest.mark.parametrize(
    ("bodies", "arguments", "says"),
    [
        (("pass", "rung == 6 and pytest.skip('no gcc')"), (), ["rung 6: 1 skipped", "rung 6: none passed"]),
        (("rung == 4 and pytest.skip('no stubs')", "pass"), (), ["rung 4: 1 skipped"]),
        (("pass", "pass"), ("-k", "5 or gpu"), []),
    ],
)
def test_a_rung_that_ran_in_no_process_fails_where_it_is_required(
    tmp_path: Path, bodies: tuple[str, str], arguments: tuple[str, ...], says: list[str]
) -> None:
    code, lines = _run_folders(tmp_path, dict(zip(("first", "second"), bodies, strict=True)), *arguments)
    assert [line for line in lines if line.startswith("FAILED")] == [f"FAILED {say}" for say in says]
    assert code == (1 if says else 0), lines
    assert lines[-1] == (f"failed: {', '.join(says)}" if says else "all folders passed")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("import os; os._exit(0)", "ended without telling what came of its tests"),
    ],
)
def test_a_process_that_fails_or_dies_is_named_with_how(tmp_path: Path, body: str, says: str) -> None:
    code, lines = _run_folders(tmp_path, {"first": body, "second": "pass"})
    assert code == 1
    assert lines[0].startswith("  ") and lines[0].endswith(says)
    assert lines[1].endswith("tests/second: 4 passed, 1 skipped")
    assert lines[-1].startswith(f"failed: tests/first ({says}), rung 1: none passed")
