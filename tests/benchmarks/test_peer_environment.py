"""`benchmarks/peers/environment.py`: anomalib's environment is deleted again, and its absence is one line."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

PEERS = Path(__file__).resolve().parents[2] / "benchmarks" / "peers"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The module, with a temporary folder of its own and every disk large enough."""
    monkeypatch.syspath_prepend(str(PEERS))
    import environment

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(environment, "NEEDED_BYTES", 0)
    return environment


def test_it_is_pinned_and_gone_afterwards_also_after_a_fault(
    environment: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(environment, "_run", commands.append)
    with environment.made_environment() as python:
        folder = python.parents[1]
        assert folder.parent == tmp_path and folder.is_dir()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), environment.made_environment():
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    assert commands[0] == [sys.executable, "-m", "venv", str(folder)]
    assert commands[1][-2:] == ["-r", str(PEERS / "anomalib.txt")]
    assert "anomalib==2.7.0" in (PEERS / "anomalib.txt").read_text("utf-8").split()


def test_what_cannot_be_installed_says_why_and_leaves_nothing(
    environment: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fails = [sys.executable, "-c", "import sys; sys.exit('first line\\nno matching distribution')"]
    run = environment._run
    monkeypatch.setattr(environment, "_run", lambda _: run(fails))
    unavailable = environment.UnavailableError
    with pytest.raises(unavailable, match=r"first line / no matching distribution$"), environment.made_environment():
        pass
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(environment, "NEEDED_BYTES", 1 << 62)
    with pytest.raises(unavailable, match="set TMPDIR"), environment.made_environment():
        pass


def test_a_python_without_anomalib_or_none_at_all_is_refused(environment: Any, tmp_path: Path) -> None:
    with pytest.raises(environment.UnavailableError, match="absent"):
        environment.existing_environment(tmp_path / "absent")
    with pytest.raises(environment.UnavailableError, match="anomalib"):
        environment.existing_environment(Path(sys.executable))


def test_the_choice_makes_one_leaves_it_out_or_takes_what_is_there(
    environment: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "_run", lambda _: None)
    said: list[str] = []
    with environment.chosen_environment("make", said.append) as python:
        made = python.parents[1]
        assert made.parent == tmp_path
    assert not made.exists() and said == ["making anomalib's environment"]
    with environment.chosen_environment(sys.executable, said.append) as python:
        assert python == Path(sys.executable)
    with pytest.raises(environment.UnavailableError, match="left out"), environment.chosen_environment("none", print):
        pass
    assert len(said) == 1
