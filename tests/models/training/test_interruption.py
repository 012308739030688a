"""Interrupted training goes on to the same end, whatever stopped it and wherever; a full disk loses nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_ad import training_run
from edge_ad.errors import CheckpointError, ConfigError, OutputError
from edge_ad.export.options import export_options
from edge_ad.models.glass.checkpoint import load_glass
from edge_ad.models.patch_head.options import HeadOptions
from edge_ad.models.progress import Progress
from edge_ad.models.training import run_folder
from edge_ad.training_run import RunRecord, is_run, read_run

Train = Callable[..., RunRecord]
Fingerprint = Callable[[Path], dict[str, str]]

SETTINGS: dict[str, dict[str, Any]] = {
    "labels": {},
    "cosine, no labels": {"schedule": "cosine", "eval_every": 0},
    "hypersphere": {"hypothesis": "hypersphere", "whiten": 0.1, "eval_every": 2},
}


@pytest.fixture(params=SETTINGS, scope="module")
def setting(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SETTINGS[request.param]


@pytest.fixture(scope="module")
def unbroken(train: Train, setting: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was left alone."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    train(folder, **setting)
    return folder


def interrupt_at(step: int) -> Progress:
    """Raise KeyboardInterrupt after the training's step `step`, counted from 0."""
    left: Iterator[int] = iter(())

    def begin(title: str, total: int) -> None:
        nonlocal left
        left = iter(range(step)) if title == "training" else iter(range(10_000))

    def one(_: str) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return Progress(begin=begin, step=one)


def assert_sound(run: Path) -> None:
    """Whatever run.yaml names is there and can be loaded."""
    record = read_run(run)
    if record.checkpoint is None:
        assert record.best is None
        return
    assert record.best is not None
    options = HeadOptions(
        backbone="resnet18", backbone_weights=run / "backbone.pth", layers=("layer1", "layer2"), pretrain_embed_dim=48
    )
    load_glass(run / record.checkpoint, options)


def assert_same_end(run: Path, unbroken: Path, fingerprint: Fingerprint) -> None:
    assert fingerprint(run) == fingerprint(unbroken)
    got, wanted = read_run(run), read_run(unbroken)
    same = ("status", "checkpoint", "best", "epochs_done", "export", "facts")
    assert {name: getattr(got, name) for name in same} == {name: getattr(wanted, name) for name in same}
    names = [entry.name for entry in sorted(run.iterdir())]
    assert names == [entry.name for entry in sorted(unbroken.iterdir())]


@pytest.mark.parametrize("step", [1, 5], ids=["in epoch 0", "in epoch 1"])
def test_interrupted_in_the_middle_of_an_epoch(
    train: Train, setting: dict[str, Any], unbroken: Path, tmp_path: Path, fingerprint: Fingerprint, step: int
) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(run, progress=interrupt_at(step), **setting)
    assert (read_run(run).status, read_run(run).epochs_done) == ("running", step // 3)
    assert_sound(run)
    said: list[str] = []
    train(run, resume=True, progress=Progress(say=said.append), **setting)
    assert ("resumed after epoch 0" in said) == (step > 3)
    assert_same_end(run, unbroken, fingerprint)


def test_interrupted_twice(
    train: Train, setting: dict[str, Any], unbroken: Path, tmp_path: Path, fingerprint: Fingerprint
) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(run, progress=interrupt_at(4), **setting)
    with pytest.raises(KeyboardInterrupt):
        train(run, resume=True, progress=interrupt_at(4), **setting)
    assert read_run(run).epochs_done == 2
    train(run, resume=True, **setting)
    assert_same_end(run, unbroken, fingerprint)


KILLED = """
import json, os, signal, sys
from pathlib import Path
from edge_ad.models import model_family
from edge_ad.models.progress import Progress
values, step = json.loads(sys.argv[1]), int(sys.argv[2])
seen = []
def one(text):
    seen.append(text)
    if sum(text.startswith("epoch") for text in seen) == step:
        os.kill(os.getpid(), signal.SIGKILL)
model_family("glass").train(values, "test", Progress(step=one))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed(
    train: Train, values: dict[str, Any], tmp_path: Path, fingerprint: Fingerprint, unbroken_labels: Path
) -> None:
    run = tmp_path / "run"
    told = {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
    arguments = [sys.executable, "-c", KILLED, json.dumps({**told, "output": str(run)}), "5"]
    killed = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_run(run).epochs_done == 1
    assert_sound(run)
    train(run, resume=True)
    assert_same_end(run, unbroken_labels, fingerprint)


@pytest.fixture(scope="module")
def unbroken_labels(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels") / "run"
    train(folder)
    return folder


# A disk that is full at any of the writes


class FailingWrites:
    """Counts what a run writes and fails at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int, failure: BaseException) -> None:
        self.names: list[str] = []
        write = run_folder.write_atomically

        def failing(path: Path, data: bytes) -> None:
            self.names.append(path.name)
            if len(self.names) - 1 == fail_at:
                raise failure
            write(path, data)

        monkeypatch.setattr(run_folder, "write_atomically", failing)
        monkeypatch.setattr(training_run, "write_atomically", failing)


NEVER = 10**6
WRITES = ["run.yaml", "backbone.pth", *(f"{number}.jpg" for number in range(7))]
EPOCH = ["ckpt_best_{}.pth", "run.yaml", "metrics.csv", "state.pt", "run.yaml"]
WRITES += [name.format(epoch) for epoch in range(2) for name in EPOCH] + ["run.yaml"]
TWO_EPOCHS = {"epochs": 2, "select": "last", "eval_every": 0}


@pytest.fixture(scope="module")
def two_epochs(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    train(folder, **TWO_EPOCHS)
    return folder


def test_what_a_run_writes(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: the tests below meet every write there is."""
    writes = FailingWrites(monkeypatch, NEVER, OSError())
    train(tmp_path / "run", **TWO_EPOCHS)
    assert writes.names == WRITES


@pytest.mark.parametrize("number", [0, 1, 2, 9, 10, 11, 12, 14, 15, 17, 19], ids=lambda n: f"{n}-{WRITES[n]}")
def test_a_full_disk(train: Train, two_epochs: Path, tmp_path: Path, fingerprint: Fingerprint, number: int) -> None:
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        FailingWrites(patch, number, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        with pytest.raises(OutputError, match="No space left on device") as caught:
            train(run, **TWO_EPOCHS)
    assert caught.value.exit_code == 11
    assert str(run) in str(caught.value)
    if number == 0:
        assert not is_run(run)
        train(run, **TWO_EPOCHS)
    else:
        assert_sound(run)
        assert (read_run(run).checkpoint is not None) == (number > WRITES.index("run.yaml", 1))
        train(run, resume=True, **TWO_EPOCHS)
    assert_same_end(run, two_epochs, fingerprint)


@pytest.mark.parametrize("number", [10, 13], ids=lambda n: f"{n}-{WRITES[n]}")
def test_interrupted_between_two_writes(
    train: Train, two_epochs: Path, tmp_path: Path, fingerprint: Fingerprint, number: int
) -> None:
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        FailingWrites(patch, number, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(run, **TWO_EPOCHS)
    assert_sound(run)
    train(run, resume=True, **TWO_EPOCHS)
    assert_same_end(run, two_epochs, fingerprint)


@pytest.mark.parametrize("number", [10, 15])
def test_the_best_by_labels_survives_a_full_disk(
    train: Train, unbroken_labels: Path, tmp_path: Path, fingerprint: Fingerprint, number: int
) -> None:
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        FailingWrites(patch, number, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        with pytest.raises(OutputError):
            train(run)
    assert_sound(run)
    train(run, resume=True)
    assert_same_end(run, unbroken_labels, fingerprint)


def test_a_full_disk_for_the_log(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def add_scalar(self, *_: Any) -> None:
            pass

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        close = flush

    monkeypatch.setattr(run_folder, "_summary_writer", lambda *_: Full())
    with pytest.raises(OutputError, match="tensorboard cannot be written: No space left"):
        train(tmp_path / "run")
    assert_sound(tmp_path / "run")


# What resuming refuses


@pytest.fixture(scope="module")
def stopped_once(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run interrupted in epoch 1. Do not change it."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        train(folder, progress=interrupt_at(4))
    return folder


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A run interrupted in epoch 1."""
    return Path(shutil.copytree(stopped_once, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_resume_with_other_options(train: Train, stopped: Path) -> None:
    before = contents(stopped)
    with pytest.raises(ConfigError) as caught:
        train(stopped, resume=True, epochs=5, seed=3, layers="layer2")
    assert len(caught.value.faults) == 4
    for words in ("epochs: the run has 3, now 5", "seed: the run has 0, now 3", "layers: the run has ['layer1'"):
        assert words in str(caught.value)
    assert contents(stopped) == before


def test_resume_with_other_data(train: Train, own_parts: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", data=own_parts, progress=interrupt_at(4))
    (own_parts / "train" / "good" / "3.png").unlink()
    with pytest.raises(ConfigError, match=r"data: begun on .*'good': 7.*, there is now .*'good': 6"):
        train(tmp_path / "run", data=own_parts, resume=True)


def test_resume_of_nothing(train: Train, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no run\.yaml in it"):
        train(tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_resume_and_force(train: Train, stopped: Path) -> None:
    before = contents(stopped)
    with pytest.raises(ConfigError, match="resume, force"):
        train(stopped, resume=True, force=True)
    assert contents(stopped) == before


def test_a_run_that_was_moved(train: Train, stopped: Path, unbroken_labels: Path, fingerprint: Fingerprint) -> None:
    moved = stopped.rename(stopped.with_name("moved"))
    train(moved, resume=True)
    assert fingerprint(moved) == fingerprint(unbroken_labels)


def test_resume_does_not_need_the_weights_again(
    train: Train, values: dict[str, Any], tmp_path: Path, unbroken_labels: Path, fingerprint: Fingerprint
) -> None:
    """They were copied into the run: the file may have gone since."""
    weights = Path(shutil.copy(values["backbone_weights"], tmp_path / "weights.pth"))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", backbone_weights=weights, progress=interrupt_at(4))
    weights.unlink()
    train(tmp_path / "run", backbone_weights=weights, resume=True)
    assert fingerprint(tmp_path / "run") == fingerprint(unbroken_labels)


def test_resume_of_a_finished_run_changes_nothing(train: Train, unbroken_labels: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(unbroken_labels, tmp_path / "run"))
    before = contents(run)
    record = train(run, resume=True)
    assert record.status == "finished"
    assert contents(run) == before


def test_resume_after_early_stopping_changes_nothing(train: Train, tmp_path: Path) -> None:
    options = {"epochs": 30, "patience": 1, "learning_rate": 1e-12, "whiten": 0.1}
    first = train(tmp_path / "run", **options)
    assert first.epochs_done < 30
    before = contents(tmp_path / "run")
    assert train(tmp_path / "run", resume=True, **options) == first
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_a_damaged_state(train: Train, stopped: Path, damage: str) -> None:
    state = stopped / "state.pt"
    if damage == "foreign":
        torch.save({"adaptor": {}}, state)
    else:
        state.write_bytes(state.read_bytes()[: 1000 if damage == "cut" else 0])
    with pytest.raises(CheckpointError, match="training state"):
        train(stopped, resume=True)
    assert_sound(stopped)


def test_an_interrupted_run_can_be_exported(stopped: Path, tmp_path: Path) -> None:
    options = export_options({"checkpoint": stopped, "output": tmp_path / "b"}, "test")
    assert options.checkpoint == stopped / "ckpt_best_0.pth"
