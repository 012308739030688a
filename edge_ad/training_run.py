"""The record of a training run: what it was told, what came of it, and what exporting it takes.

::

    RUN/
        run.yaml                 what `RunRecord` describes
        ckpt_best_<epoch>.pth    the chosen weights, in the official format of the family
        backbone.pth             weights of the backbone that they belong to, where there is one
        teacher.pth              weights of the teacher that they were learned from, where there is one
        state.pt                 everything needed to go on after an interruption
        metrics.csv              one line for each epoch
        tensorboard/             the same for TensorBoard
        samples/                 pictures of what was synthesised
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from edge_ad.disk.storage import write_atomically
from edge_ad.errors import CheckpointError, ConfigError, OutputError, os_reason
from edge_ad.validation import build, dump_yaml, plain, read_yaml, strict

RUN_FILE = "run.yaml"
BACKBONE_FILE = "backbone.pth"
TEACHER_FILE = "teacher.pth"
STATE_FILE = "state.pt"
SCHEMA_VERSION = 1

BY_LABELS = "image AUROC + pixel AUROC on the labelled test pictures"
"""Rule of a run whose epoch was chosen by labels: on the same pictures its figures are too good."""


@strict
@dataclass(frozen=True)
class BestEpoch:
    """The epoch whose weights were kept.

    Attributes:
        epoch: counted from 0.
        rule: how it was chosen.
        image_auroc, pixel_auroc: on the labelled pictures that chose it; None where there were none.
        loss: mean training loss of the epoch; None where a family fits in one pass.
    """

    epoch: int
    rule: str
    loss: float | None
    image_auroc: float | None = None
    pixel_auroc: float | None = None


@strict
@dataclass(frozen=True)
class RunRecord:
    """Content of run.yaml.

    Attributes:
        status: `running` until the last epoch is done; an interrupted run stays so and can be resumed.
        family: model family.
        options: what the run was told, as plain values.
        export: options of `edge-ad export` for the checkpoint.
        checkpoint: file of the chosen weights; None before the first is written.
        best: where it comes from.
        epochs_done: epochs that are complete.
        facts: what was found out before training: pictures, textures, hypothesis, origin of the backbone's weights.
        tools: versions of what trained.
    """

    schema_version: int
    status: Literal["running", "finished"]
    family: str
    options: dict[str, Any]
    export: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    best: BestEpoch | None = None
    epochs_done: int = 0
    tools: dict[str, str] = field(default_factory=dict)


def is_run(path: Path) -> bool:
    """Whether a folder is a training run."""
    return (path / RUN_FILE).is_file()


def read_run(path: Path) -> RunRecord:
    """The record of the run in a folder. Raises: CheckpointError when there is none, or it is of another version."""
    if not is_run(path):
        raise CheckpointError(f"run {path}: no {RUN_FILE} in it; 'edge-ad train' writes one")
    try:
        record = build(RunRecord, read_yaml(path / RUN_FILE), f"run {path}")
    except ConfigError as exc:
        raise CheckpointError(str(exc)) from exc
    if record.schema_version != SCHEMA_VERSION:
        raise CheckpointError(
            f"run {path}: schema version {record.schema_version} is unknown, this edge-ad reads {SCHEMA_VERSION}"
        )
    return record


def write_run(path: Path, record: RunRecord) -> None:
    """Put the record into the run's folder in one step. Raises: OutputError; the old record is still there."""
    try:
        write_atomically(path / RUN_FILE, dump_yaml(plain(record)).encode())
    except OSError as exc:
        raise OutputError(f"run {path}: {RUN_FILE} cannot be written: {os_reason(exc)}") from exc


def export_values(path: Path) -> dict[str, Any]:
    """Options of `edge-ad export`, by field name, for the run in a folder.

    Raises: CheckpointError when the run has no checkpoint yet, or its record points outside of the folder.
    """
    record = read_run(path)
    if record.checkpoint is None:
        raise CheckpointError(f"run {path}: no checkpoint has been written yet; let 'edge-ad train' finish an epoch")
    name = PurePosixPath(record.checkpoint)
    if len(name.parts) != 1 or name.name in ("", "..") or "\\" in record.checkpoint:
        raise CheckpointError(f"run {path}: checkpoint {record.checkpoint!r} points outside of the run")
    files = {"checkpoint": path / record.checkpoint}
    if (path / BACKBONE_FILE).is_file():
        files["backbone_weights"] = path / BACKBONE_FILE
    return {**record.export, "family": record.family, **files}
