"""The record of a training run: written whole or not at all, read with every fault, and enough to export from."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_ad import training_run
from edge_ad.errors import CheckpointError, OutputError
from edge_ad.training_run import RUN_FILE, BestEpoch, RunRecord, export_values, is_run, read_run, write_run

RECORD = RunRecord(
    schema_version=1,
    status="running",
    family="glass",
    options={"output": "run", "learning_rate": 1e-05, "layers": ["layer1"], "whiten": None, "noise_std": 0.1 + 0.2},
    export={"backbone": "resnet18", "layers": ["layer1"], "imgsz": [64, 96]},
    facts={"dataset": {"name": "teile–groß", "good": 7}, "notes": ["one: two"]},
    checkpoint="ckpt_best_3.pth",
    best=BestEpoch(3, "by labels", 1 / 3, 0.1 + 0.7, None),
    epochs_done=4,
    tools={"python": "3.10", "torch": "2.4"},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    write_run(tmp_path, RECORD)
    assert is_run(tmp_path)
    assert read_run(tmp_path) == RECORD
    assert [entry.name for entry in tmp_path.iterdir()] == [RUN_FILE]
    write_run(tmp_path, replace(RECORD, status="finished", checkpoint=None, best=None))
    assert read_run(tmp_path).status == "finished"


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, RECORD)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"run\.yaml cannot be written: No space left on device"):
        write_run(tmp_path, replace(RECORD, epochs_done=5))
    monkeypatch.undo()
    assert read_run(tmp_path) == RECORD
    assert [entry.name for entry in tmp_path.iterdir()] == [RUN_FILE]
    with pytest.raises(OutputError, match="cannot be written"):
        write_run(tmp_path / "nowhere", RECORD)


def test_no_record(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match=r"no run\.yaml in it"):
            read_run(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("status: running", "status: asleep"), "status: wanted 'running' or 'finished'"),
        (lambda text: text.replace("epochs_done: 4", "epochs_done: many"), "epochs_done: wanted a whole number"),
        (lambda text: text + "colour: red\n", "colour: unknown key"),
        (lambda text: text.replace("family: glass\n", ""), "family: missing"),
        (lambda text: text.replace("schema_version: 1", "schema_version: 2"), "schema version 2 is unknown"),
        (lambda text: text[: len(text) // 2] + "\x00", "run"),
        (lambda text: "[]", "wanted a mapping"),
        (lambda text: text.replace("loss: 0.3", "loss: .nan #"), "finite"),
    ],
    ids=["status", "epochs", "unknown", "missing", "version", "cut", "list", "nan"],
)
def test_a_faulty_record(tmp_path: Path, change: Any, words: str) -> None:
    write_run(tmp_path, RECORD)
    file = tmp_path / RUN_FILE
    file.write_text(change(file.read_text("utf-8")), "utf-8")
    with pytest.raises(CheckpointError) as caught:
        read_run(tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_export_values(tmp_path: Path) -> None:
    write_run(tmp_path, RECORD)
    without = {
        "backbone": "resnet18",
        "layers": ["layer1"],
        "imgsz": [64, 96],
        "family": "glass",
        "checkpoint": tmp_path / "ckpt_best_3.pth",
    }
    assert export_values(tmp_path) == without  # as of a family that has no backbone
    (tmp_path / "backbone.pth").touch()
    assert export_values(tmp_path) == without | {"backbone_weights": tmp_path / "backbone.pth"}


def test_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    write_run(tmp_path, replace(RECORD, checkpoint=None, best=None))
    with pytest.raises(CheckpointError, match="no checkpoint has been written yet"):
        export_values(tmp_path)


@pytest.mark.parametrize("name", ["../x.pth", "/etc/passwd", "a/b.pth", "..", "", ".", "a\\b.pth", "C:\\x.pth"])
def test_a_checkpoint_outside_of_the_run(tmp_path: Path, name: str) -> None:
    """A run that came from elsewhere must not make the export read other files."""
    write_run(tmp_path, replace(RECORD, checkpoint=name))
    with pytest.raises(CheckpointError, match="points outside of the run"):
        export_values(tmp_path)


def test_the_record_loads_no_network() -> None:
    import subprocess
    import sys

    code = "import sys, edge_ad.training_run; sys.exit(any(n in sys.modules for n in ('torch', 'numpy', 'cv2')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert training_run.SCHEMA_VERSION == 1
