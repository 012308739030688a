"""What is kept for other test processes: found again, made anew whenever the code is another, never half there."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SUPPORT = Path(__file__).with_name("support")


@pytest.fixture(scope="module")
def kept() -> ModuleType:
    spec = importlib.util.spec_from_file_location("edge_ad_tests_kept_alone", SUPPORT / "kept.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Filling:
    """Writes what it was told to, and counts how often."""

    def __init__(self, text: str = "content") -> None:
        self.text, self.calls = text, 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        assert list(folder.iterdir()) == []
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text(self.text)


@pytest.fixture
def processes(kept: ModuleType, tmp_path: Path) -> Callable[[Path | None], Any]:
    """What a test process has of its own: place → an object that keeps things there."""
    made = iter(range(100))

    def start(place: Path | None) -> Any:
        own = tmp_path / f"process{next(made)}"

        def new_folder(name: str) -> Path:
            (own / name).mkdir(parents=True)
            return own / name

        return kept.Kept(place, new_folder)

    return start


def test_another_process_gets_a_copy_of_its_own(processes: Any, tmp_path: Path) -> None:
    fill = Filling()
    first = processes(tmp_path / "cache" / "state").folder("thing", fill)
    (first / "inner" / "file").write_text("changed by a test")
    second = processes(tmp_path / "cache" / "state").folder("thing", fill)
    assert fill.calls == 1
    assert (second / "inner" / "file").read_text() == "content"


def test_for_another_state_of_the_code_it_is_made_anew_and_the_old_one_goes(processes: Any, tmp_path: Path) -> None:
    processes(tmp_path / "cache" / "old").folder("thing", Filling("old"))
    found = processes(tmp_path / "cache" / "new").folder("thing", Filling("new"))
    assert (found / "inner" / "file").read_text() == "new"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["new"]


def test_without_a_place_nothing_is_kept(processes: Any) -> None:
    fill = Filling()
    for count in (1, 2):
        processes(None).folder("thing", fill)
        assert fill.calls == count


def test_what_fails_is_not_kept(processes: Any, tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("the export is broken")

    with pytest.raises(ValueError, match="the export is broken"):
        processes(tmp_path / "cache" / "state").folder("thing", fail)
    fill = Filling()
    found = processes(tmp_path / "cache" / "state").folder("thing", fill)
    assert (fill.calls, [path.name for path in found.iterdir()]) == (1, ["inner"])


def test_where_two_make_it_at_once_either_is_whole(processes: Any, tmp_path: Path) -> None:
    def while_another_does(folder: Path) -> None:
        processes(tmp_path / "cache" / "state").folder("thing", Filling("theirs"))
        Filling("ours")(folder)

    ours = processes(tmp_path / "cache" / "state").folder("thing", while_another_does)
    later = processes(tmp_path / "cache" / "state").folder("thing", Filling("late"))
    assert [(folder / "inner" / "file").read_text() for folder in (ours, later)] == ["ours", "theirs"]
    assert [path.name for path in (tmp_path / "cache" / "state").iterdir()] == ["thing"]


@pytest.fixture
def checkout(kept: ModuleType, tmp_path: Path) -> Path:
    for folder in kept.FOLDERS:
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / "module.py").write_text("VALUE = 1\n")
    return tmp_path


@pytest.mark.parametrize("folder", ["edge_ad", "export", "calibration", "runtime", "tests"])
def test_a_change_of_any_file_is_another_state(kept: ModuleType, checkout: Path, folder: str) -> None:
    before = kept.state_of_code(checkout)
    module = checkout / folder / "deep" / "module.py"
    module.write_text("VALUE = 2\n")
    changed = kept.state_of_code(checkout)
    module.rename(module.with_name("renamed.py"))
    renamed = kept.state_of_code(checkout)
    module.with_name("renamed.py").rename(module)
    module.write_text("VALUE = 1\n")
    assert len({before, changed, renamed}) == 3
    assert kept.state_of_code(checkout) == before


def test_another_package_or_python_is_another_state(
    kept: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [kept.state_of_code(checkout)]
    for version in (1, 2):
        monkeypatch.syspath_prepend(checkout / f"site{version}")
        (checkout / f"site{version}" / f"package-{version}.dist-info").mkdir(parents=True)
        states.append(kept.state_of_code(checkout))
    monkeypatch.undo()
    assert kept.state_of_code(checkout) == states[0]
    monkeypatch.setattr(sys, "version", "3.99")
    states.append(kept.state_of_code(checkout))
    assert len(set(states)) == 4
