"""From options to a finished run: what every training does, around what a family brings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any, Generic, Protocol, TypeVar

import torch
from numpy.typing import NDArray

from edge_ad.datasets import Dataset
from edge_ad.errors import CheckpointError, ConfigError, SourceError, one_line
from edge_ad.image.frame import ImageArray
from edge_ad.models.progress import Progress
from edge_ad.models.synthesis.textures import TexturePool, open_textures
from edge_ad.models.training.epochs import EpochFigures, best_epoch, is_better, patience_is_over
from edge_ad.models.training.labelled import LabelledPictures
from edge_ad.models.training.options import TrainOptions
from edge_ad.models.training.pictures import Foreground, GoodPictures
from edge_ad.models.training.run_folder import (
    RunFolder,
    check_apart,
    check_folder,
    check_same,
    check_tensorboard,
    files_of,
)
from edge_ad.models.training.tiles import with_view
from edge_ad.models.training.turned import with_angles
from edge_ad.models.training.view import sizes_of
from edge_ad.models.weights import NotFetchedError
from edge_ad.training_run import SCHEMA_VERSION, STATE_FILE, RunRecord, is_run, read_run
from edge_ad.validation import plain

SAMPLE_PICTURES = 12

OptionsT = TypeVar("OptionsT", bound=TrainOptions)
NetworkT = TypeVar("NetworkT")
SamplePair = tuple[ImageArray, ImageArray, NDArray[Any]]
"""A good picture, the same with something synthesised, and where: (H, W, 3) uint8 twice, (H, W) bool."""


class Trainer(Protocol):
    """A network with what it learns from.

    Attributes:
        state_keys: of what `state` gives.
    """

    @property
    def state_keys(self) -> Collection[str]: ...

    def steps(self) -> int:
        """Steps of one epoch."""
        ...

    def epochs(self, first: int, after_step: Callable[[str], None]) -> Iterator[EpochFigures]:
        """Train from epoch `first` to the last.

        Args:
            after_step: is told, in words, how the losses stand.

        Raises: TrainingError when a loss or a weight is not finite; the network is then of no use.
        """
        ...

    def checkpoint(self) -> dict[str, Any]:
        """The weights, in the official format of the family."""
        ...

    def state(self) -> dict[str, Any]:
        """All that changes while training: tensors, numbers, and lists and mappings of them."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        ...

    def samples(self) -> Iterator[SamplePair]:
        """What the first epoch synthesises; nothing where it synthesises nothing."""
        ...


@dataclass(frozen=True)
class Material(Generic[OptionsT]):
    """What a trainer works on.

    Attributes:
        labelled: pictures that choose the epoch; None where none may.
    """

    options: OptionsT
    pictures: GoodPictures
    textures: TexturePool
    labelled: LabelledPictures | None
    device: torch.device
    progress: Progress


class Recipe(Protocol[OptionsT, NetworkT]):
    """What a family brings to a training.

    Attributes:
        family: its name.
    """

    family: str

    def network(self, options: OptionsT, progress: Progress, begun: Path | None) -> NetworkT:
        """A network to begin with, drawn from the seed. Args: begun: folder of the run that is gone on with."""
        ...

    def frozen(self, network: NetworkT) -> dict[str, Any]:
        """Weights that training does not change, by the file that keeps them."""
        ...

    def overlays(self, options: OptionsT) -> bool:
        """Whether textures are laid over good pictures."""
        ...

    def foreground(self, options: OptionsT) -> Foreground:
        """Where they may lie."""
        ...

    def trainer(self, network: NetworkT, material: Material[OptionsT]) -> tuple[Trainer, dict[str, Any]]:
        """What trains it, and what was found out on the way, by name, for the record."""
        ...


def train(
    recipe: Recipe[OptionsT, NetworkT],
    options: OptionsT,
    progress: Progress,
    *,
    resume: bool = False,
    force: bool = False,
    border: int = 0,
    untiled: str | None = None,
    known: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Train a network and write a run.

    Args:
        border, untiled: of the family, see `ModelFamily`.
        resume: go on with the interrupted run in `options.output`, which must have been told the same.
        force: replace an earlier run.
        known: what was found out before, by name, for the record.

    Raises: EdgeAdError; what was written before is still there.
    """
    check_tensorboard()
    told = options
    if resume and force:
        raise ConfigError("train options", ["resume, force: go on with the run or replace it, not both"])
    dataset = options.dataset()
    if not dataset.train:
        raise SourceError(f"{dataset.name}: no good picture to train on")
    check_apart(options, dataset)
    textures = open_textures(options.textures)
    if resume:
        check_same(recipe.family, options, read_run(options.output))
    else:
        check_folder(options.output, force, is_run)
    for note in dataset.notes:
        progress.say(f"note: {note}")
    begun = read_run(options.output).export if resume else None
    options = with_angles(with_view(options, sizes_of(dataset.train), untiled, begun, progress.say), dataset.train)
    used = textures.description if recipe.overlays(options) else "none is overlaid"
    progress.say(f"textures: {used}")
    device = _device(options)
    try:
        network = recipe.network(options, progress, options.output if resume else None)
    except NotFetchedError as exc:
        others = [preset for preset in options.presets if preset != options.preset]
        if options.preset != "paper" or not others:
            raise
        raise NotFetchedError(f"{exc}, or --preset {others[0]}, whose weights come with the extra 'train'") from exc
    pictures = _pictures(options, recipe.foreground(options), dataset, progress)
    labelled = _labelled(options, dataset, progress, border)
    material = Material(options, pictures, textures, labelled, device, progress)
    trainer, found = recipe.trainer(network, material)
    facts = {
        "dataset": {
            "name": dataset.name,
            "layout": dataset.layout,
            "good": len(pictures.samples),
            "test": len(dataset.test),
        },
        "notes": [*dataset.notes, *pictures.notes],
        "textures": used,
        **found,
        **(known or {}),
        "device": str(device),
    }
    folder = _folder(recipe.family, told, options.export, facts, resume)
    try:
        state = folder.load_state(trainer.state_keys) if resume else {}
        if state:
            _go_on(trainer, state, options, progress)
        else:
            folder.begin(recipe.frozen(network))
            if samples := _first(trainer.samples(), SAMPLE_PICTURES):
                folder.save_samples(samples)
        _run(options, trainer, folder, progress, int(state.get("epochs_done", 0)))
        folder.finish()
    finally:
        folder.close()
    return folder.record


def _go_on(trainer: Trainer, state: dict[str, Any], options: TrainOptions, progress: Progress) -> None:
    try:
        trainer.load_state(state)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise CheckpointError(
            f"training state {options.output / STATE_FILE}: damaged ({one_line(exc)}); train anew with --force"
        ) from exc
    progress.say(f"resumed after epoch {state['epochs_done'] - 1}")


def _run(options: TrainOptions, trainer: Trainer, folder: RunFolder, progress: Progress, first: int) -> None:
    if first and folder.record.best is not None and patience_is_over(options, folder.record.best, first - 1):
        return
    progress.begin("training", (options.epochs - first) * trainer.steps())
    running: dict[str, str] = {"epoch": str(first)}

    def after_step(losses: str) -> None:
        progress.step(f"epoch {running['epoch']}: {losses}{running.get('standing', '')}")

    for figures in trainer.epochs(first, after_step):
        if is_better(options, figures, folder.record.best):
            folder.keep(trainer.checkpoint(), best_epoch(options, figures), files_of(trainer))
        folder.save_state(figures, trainer.state())
        running["epoch"] = str(figures.epoch + 1)
        if figures.standing is not None:
            running["standing"] = f", image AUROC {figures.standing.image_auroc:.4f}"
        best = folder.record.best
        if best is not None and patience_is_over(options, best, figures.epoch):
            progress.say(f"no better result for {options.patience} epochs: stopped after epoch {figures.epoch}")
            return


def _device(options: TrainOptions) -> torch.device:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", ["cuda: PyTorch finds no CUDA device; give --device cpu"])
    return torch.device("cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu")


def _pictures(options: TrainOptions, foreground: Foreground, dataset: Dataset, progress: Progress) -> GoodPictures:
    progress.begin("good pictures", len(dataset.train))
    cache_bytes = options.cache_mb * 1_000_000
    variations = options.variations(len(dataset.train))
    if variations.copies:
        progress.say(f"each picture is learned from in {variations.copies} variations too: {variations}")
    shown, step = options.preprocess, lambda: progress.step("")
    pictures = GoodPictures(dataset.train, shown, foreground, cache_bytes, step, options.grid, variations)
    for note in pictures.notes:
        progress.say(f"note: {note}")
    if pictures.crop_warning is not None:
        progress.say(f"warning: {pictures.crop_warning}")
    if foreground == "auto":
        rule = "textures lie on it" if pictures.agreed else "too few to believe in it: textures lie everywhere"
        progress.say(f"foreground: an object was found in {pictures.found} of {len(pictures.samples)} pictures; {rule}")
    return pictures


def _labelled(options: TrainOptions, dataset: Dataset, progress: Progress, border: int) -> LabelledPictures | None:
    if not options.eval_every or not dataset.test:
        return None
    progress.say(f"{len(dataset.test)} test pictures are looked at while training")
    labelled = LabelledPictures(dataset.test, options.preprocess, options.postprocess, options.grid, border)
    for note in labelled.notes:
        progress.say(f"note: {note}")
    if not labelled.usable:
        progress.say("note: the test pictures are all good or all defective; they choose nothing")
        return None
    return labelled


def _folder(
    family: str, options: TrainOptions, export: Mapping[str, Any], facts: Mapping[str, Any], resume: bool
) -> RunFolder:
    if resume:
        record = read_run(options.output)
        found, told = facts["dataset"], record.facts.get("dataset")
        if found != told:
            raise ConfigError(f"--resume {options.output}", [f"data: begun on {told}, there is now {found}"])
        return RunFolder(options.output, record)
    tools = {"python": python_version()} | {name: version(name) for name in ("edge-ad", "torch", "torchvision")}
    record = RunRecord(SCHEMA_VERSION, "running", family, plain(options), dict(export), dict(facts), tools=tools)
    return RunFolder(options.output, record)


def _first(pairs: Iterator[SamplePair], count: int) -> list[SamplePair]:
    return [pair for _, pair in zip(range(count), pairs, strict=False)]
