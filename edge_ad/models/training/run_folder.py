"""The folder of a run while it is trained: checkpoints, state, logs and sample pictures, each written in one step."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from edge_ad.datasets import Dataset
from edge_ad.disk.storage import write_atomically
from edge_ad.errors import CheckpointError, ConfigError, MissingExtraError, OutputError, os_reason
from edge_ad.image.frame import ImageArray
from edge_ad.models.training.epochs import EpochFigures
from edge_ad.models.training.options import TrainOptions
from edge_ad.models.weights import read_tensors
from edge_ad.training_run import BACKBONE_FILE, STATE_FILE, TEACHER_FILE, BestEpoch, RunRecord, write_run
from edge_ad.validation import plain

METRICS_FILE = "metrics.csv"
TENSORBOARD_FOLDER = "tensorboard"
SAMPLES_FOLDER = "samples"
CHECKPOINTS = "ckpt_best_*.pth"


@runtime_checkable
class LearnsFiles(Protocol):
    """A trainer that changes weights which a run keeps beside its checkpoint, and which belong to it."""

    def files(self) -> Mapping[str, Any]:
        """Those of now, by the file that keeps them."""
        ...


def files_of(trainer: object) -> Mapping[str, Any]:
    """What a trainer learns beside its checkpoint; most learn nothing there."""
    return trainer.files() if isinstance(trainer, LearnsFiles) else {}


class RunFolder:
    """Writes a run. Whatever fails, what was there before is still there.

    Attributes:
        record: what run.yaml holds.
    """

    def __init__(self, path: Path, record: RunRecord) -> None:
        self.path, self.record = path, record
        self._rows: list[dict[str, Any]] = []
        self._board: Any = None

    def begin(self, frozen: Mapping[str, Any]) -> None:
        """Start a new run in place of an earlier one: the record first, which makes the folder a run, then weights.

        Args:
            frozen: weights that training does not change, by file name.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise OutputError(f"run {self.path}: cannot be made: {os_reason(exc)}") from exc
        self._update(checkpoint=None, best=None, epochs_done=0)
        _remove_results(self.path)
        for name, state in frozen.items():
            self._write(name, _saved(state))

    def keep(self, parts: Mapping[str, Any], best: BestEpoch, beside: Mapping[str, Any]) -> None:
        """Make weights the run's checkpoint; the earlier one goes when the record names this one.

        Args:
            parts: content of the checkpoint, in the official format of the family.
            beside: weights that belong to it, by the file that keeps them.
        """
        for file, state in beside.items():
            self._write(file, _saved(state))
        name = f"ckpt_best_{best.epoch}.pth"
        self._write(name, _saved(dict(parts)))
        self._update(checkpoint=name, best=best)
        for earlier in self.path.glob(CHECKPOINTS):  # a killed run may have left more than one
            if earlier.name != name:
                earlier.unlink(missing_ok=True)

    def save_state(self, figures: EpochFigures, state: dict[str, Any]) -> None:
        """After an epoch: the log, and all that it takes to go on from here."""
        self._rows.append(figures.row)
        self._write(METRICS_FILE, _csv_text(self._rows).encode())
        self._write(STATE_FILE, _saved({**state, "epochs_done": figures.epoch + 1, "rows": self._rows}))
        self._update(epochs_done=figures.epoch + 1)
        self._log(figures)

    def load_state(self, keys: Collection[str]) -> dict[str, Any]:
        """State of an interrupted run; empty when its first epoch was not done.

        Args:
            keys: what the trainer keeps in it.

        Raises: CheckpointError.
        """
        if not (self.path / STATE_FILE).exists():
            return {}
        state = read_tensors(self.path / STATE_FILE, "training state")
        if not {*keys, "epochs_done", "rows"} <= set(state):
            raise CheckpointError(f"training state {self.path / STATE_FILE}: incomplete; train anew in another folder")
        self._rows = list(state["rows"])
        self.record = replace(self.record, epochs_done=state["epochs_done"])  # the state is written first
        return state

    def finish(self) -> None:
        """Mark the run as complete."""
        self._update(status="finished")
        self.close()

    def close(self) -> None:
        """Close the logs."""
        if self._board is not None:
            with suppress(OSError):  # on a full disk; what matters has been written or reported
                self._board.close()

    def save_samples(self, pairs: Sequence[tuple[ImageArray, ImageArray, Any]]) -> None:
        """Pictures side by side: good, with a texture overlaid, and which pixels that touched."""
        from PIL import Image

        folder = self.path / SAMPLES_FOLDER
        try:
            folder.mkdir(exist_ok=True)
            for number, (image, augmented, mask) in enumerate(pairs):
                white = np.repeat(mask[:, :, None].astype(np.uint8) * np.uint8(255), 3, axis=2)
                buffer = io.BytesIO()
                Image.fromarray(np.hstack([image, augmented, white])).save(buffer, "JPEG", quality=90)
                write_atomically(folder / f"{number}.jpg", buffer.getvalue())
        except OSError as exc:
            raise OutputError(f"run {self.path}: samples cannot be written: {os_reason(exc)}") from exc

    def _log(self, figures: EpochFigures) -> None:
        try:
            if self._board is None:
                self._board = _summary_writer(self.path / TENSORBOARD_FOLDER, figures.epoch)
            for name, value in figures.row.items():
                if value is not None and name != "epoch":
                    self._board.add_scalar(name, value, figures.epoch)
            self._board.flush()
        except OSError as exc:
            raise OutputError(f"run {self.path}: {TENSORBOARD_FOLDER} cannot be written: {os_reason(exc)}") from exc

    def _update(self, **changes: Any) -> None:
        record = replace(self.record, **changes)
        write_run(self.path, record)
        self.record = record

    def _write(self, name: str, data: bytes) -> None:
        try:
            write_atomically(self.path / name, data)
        except OSError as exc:
            raise OutputError(f"run {self.path}: {name} cannot be written: {os_reason(exc)}") from exc


def check_tensorboard() -> None:
    """Raise MissingExtraError early when the log for TensorBoard could not be written."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as exc:
        raise MissingExtraError("edge-ad train", "tensorboardX", "train") from exc


def check_folder(path: Path, force: bool, is_ours: Callable[[Path], bool]) -> None:
    """Whether a new run may be written to `path`; nothing is changed.

    Raises: OutputError when something else, or an earlier run, is there, and where nothing can be written.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"run {path}: is a file; choose another name")
    if path.exists() and any(path.iterdir()):
        if not is_ours(path):
            raise OutputError(f"run {path}: the folder is not empty and holds no run; choose another name")
        if not force:
            raise OutputError(f"run {path}: holds a run; give --resume to go on with it, --force to replace it")
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"run {path}: cannot be made: nothing can be written in {existing}; choose another place")


def _remove_results(path: Path) -> None:
    """Delete what an earlier run wrote, but for its record, and nothing else."""
    import shutil

    for folder in (TENSORBOARD_FOLDER, SAMPLES_FOLDER):
        shutil.rmtree(path / folder, ignore_errors=True)
    others = (path / name for name in (BACKBONE_FILE, TEACHER_FILE, STATE_FILE, METRICS_FILE))
    for file in [*path.glob(CHECKPOINTS), *others]:
        file.unlink(missing_ok=True)


def _summary_writer(folder: Path, purge_step: int) -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder), purge_step=purge_step)


def _saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _csv_text(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return text.getvalue()


def check_apart(options: TrainOptions, dataset: Dataset) -> None:
    """Raise ConfigError when the run lies where pictures are read from: its samples would become some of them."""
    folders = [options.good, options.bad, options.masks, options.textures]
    folders += [options.data] if dataset.layout == "plain" else []
    folders += {sample.image.parent for sample in (*dataset.train, *dataset.test)}
    output = options.output.resolve()
    for folder in folders:
        if folder is not None and output.is_relative_to(folder.resolve()):
            raise ConfigError("output", [f"{options.output} lies in {folder}, from which pictures are read"])


def check_same(family: str, options: TrainOptions, record: RunRecord) -> None:
    """Raise ConfigError when an interrupted run was told something else."""
    told, wanted = record.options, plain(options)
    faults = [] if record.family == family else [f"family: the run has {record.family!r}, now {family!r}"]
    other = [key for key in wanted if key != "output" and told.get(key) != wanted[key]]  # a run may be moved
    faults += [f"{key}: the run has {told.get(key)!r}, now {wanted[key]!r}" for key in other]
    if faults:
        raise ConfigError(f"--resume {options.output}", [*faults, "give the same options, or train in another folder"])
