"""Golden files that somebody plants are read by the tests of their family, and one that is wrong fails them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from golden_files import OWN, VARIABLE, files_with

TESTS = Path(__file__).resolve().parent
MODULES = (
    "test_golden_forward.py",
    "training/test_golden_train_step.py",
    "simplenet/test_golden.py",
    "draem/test_golden.py",
    "diffusionad/test_golden.py",
)
PLANTED = (
    # what is planted, where, and the array that one that is wrong differs in
    ("forward_resnet18_64", "", "patch_probability"),
    ("forward_resnet18_64", "glass", "patch_probability"),
    ("train_step_no_mining", "", "losses"),
    ("train_step_no_mining", "glass", "losses"),
    ("simplenet/resnet18_96", "simplenet", "patch_map"),
    ("draem/forward_w8_96x128", "draem", "probability"),
    ("diffusionad/forward_c32_96x128", "diffusionad", "map"),
)


def plant(folder: Path) -> None:
    """Copies under other names: of one the same arrays, of the other one that is off by a hundredth."""
    for number, (source, inside, key) in enumerate(PLANTED):
        (folder / inside).mkdir(parents=True, exist_ok=True)
        with np.load(OWN / f"{source}.npz") as file:
            arrays = dict(file)
        name = f"{Path(source).name}_in_{inside or 'root'}.npz"
        np.savez(folder / inside / f"sound_{name}", **arrays, planted=number)
        np.savez(folder / inside / f"wrong_{name}", **{**arrays, key: arrays[key] + 0.01}, planted=number)


def outcomes(folder: Path, tmp_path: Path) -> Iterator[tuple[str, bool]]:
    """Of all tests that are about a planted file: module and name, and whether it passed."""
    named = " or ".join(f"{word}_{Path(source).name}" for source, _, _ in PLANTED for word in ("sound", "wrong"))
    slow = "notices or contract_outputs or test_fold or test_training_steps"  # one test a file is enough
    modules, report = [str(TESTS / module) for module in MODULES], tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", str(report), *modules]
    command += ["-k", f"({named}) and not ({slow})"]
    done = subprocess.run(
        command, cwd=TESTS, env={**os.environ, VARIABLE: str(folder)}, capture_output=True, timeout=600
    )
    assert done.returncode in (0, 1), done.stdout.decode()
    for case in ElementTree.parse(report).iter("testcase"):
        yield f"{case.get('classname')}::{case.get('name')}", case.find("failure") is None


def test_planted_files_are_read_and_held_against_ours(tmp_path: Path) -> None:
    plant(tmp_path / "further")
    found = dict(outcomes(tmp_path / "further", tmp_path))
    for source, inside, _ in PLANTED:
        name = f"{Path(source).name}_in_{inside or 'root'}"
        sound = {test: passed for test, passed in found.items() if f"sound_{name}" in test}
        wrong = {test: passed for test, passed in found.items() if f"wrong_{name}" in test}
        assert sound and all(sound.values()), (name, sound)
        assert wrong and not all(wrong.values()), (name, wrong)


def test_a_file_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "draem").mkdir()
    np.savez(tmp_path / "draem" / "of_any_name.npz", **{"losses": np.zeros(1), "after.x": np.zeros(1)})
    np.savez(tmp_path / "draem" / "by_name_alone.npz", losses=np.zeros(1))
    np.savez(tmp_path / "of_another_family.npz", **{"losses": np.zeros(1), "after.x": np.ones(1)})
    ours = files_with("draem", "losses", "after.")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert files_with("draem", "losses", "after.") == [*ours, tmp_path / "draem" / "of_any_name.npz"]
    assert tmp_path / "of_another_family.npz" in files_with("glass", "losses", "after.")


def test_the_same_file_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = files_with("simplenet", "patch_map")
    (tmp_path / "simplenet").mkdir()
    (tmp_path / "simplenet" / "copy.npz").write_bytes(ours[0].read_bytes())
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert files_with("simplenet", "patch_map") == ours


def test_a_folder_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(AssertionError, match=r"EDGE_AD_GOLDEN: .*nowhere is no folder"):
        files_with("draem", "losses")
