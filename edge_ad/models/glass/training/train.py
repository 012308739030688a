"""`edge-ad train` for GLASS: options in, a finished run folder out."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from platform import python_version
from typing import Any

import torch

from edge_ad.datasets import Dataset
from edge_ad.errors import CheckpointError, ConfigError, SourceError, one_line
from edge_ad.image.frame import ImageArray
from edge_ad.models.family import Progress
from edge_ad.models.glass.network import Glass
from edge_ad.models.glass.training.batches import Batches
from edge_ad.models.glass.training.embedding import PooledEmbedding
from edge_ad.models.glass.training.features import FrozenTaps, TapCache
from edge_ad.models.glass.training.hypothesis import choose_hypothesis
from edge_ad.models.glass.training.labelled import LabelledPictures
from edge_ad.models.glass.training.objective import Hypothesis, StepLosses
from edge_ad.models.glass.training.options import TrainOptions
from edge_ad.models.glass.training.pictures import GoodPictures
from edge_ad.models.glass.training.run_folder import RunFolder, check_folder, check_tensorboard
from edge_ad.models.glass.training.trainer import EpochFigures, Trainer
from edge_ad.models.glass.training.whitening import whiten
from edge_ad.models.synthesis.textures import open_textures
from edge_ad.models.weights import BackboneState, backbone_state
from edge_ad.training_run import (
    BACKBONE_FILE,
    BY_LABELS,
    SCHEMA_VERSION,
    STATE_FILE,
    BestEpoch,
    RunRecord,
    is_run,
    read_run,
)
from edge_ad.validation import plain

SAMPLE_PICTURES = 12
BY_LOSS = "smallest mean training loss (nobody looked at labels)"
BY_TIME = "the last epoch"


def train(options: TrainOptions, progress: Progress, *, resume: bool = False, force: bool = False) -> RunRecord:
    """Train a network and write a run.

    Args:
        resume: go on with the interrupted run in `options.output`, which must have been told the same.
        force: replace an earlier run.

    Raises: EdgeAdError; what was written before is still there.
    """
    check_tensorboard()
    if resume and force:
        raise ConfigError("train options", ["resume, force: go on with the run or replace it, not both"])
    dataset = options.dataset()
    if not dataset.train:
        raise SourceError(f"{dataset.name}: no good picture to train on")
    _check_apart(options, dataset)
    textures = open_textures(options.textures)
    if resume:
        _check_same(options, read_run(options.output))
    else:
        check_folder(options.output, force, is_run)
    for note in dataset.notes:
        progress.say(f"note: {note}")
    used = textures.description if options.overlay_share > 0 else "none is overlaid (overlay_share 0)"
    progress.say(f"textures: {used}")

    device = _device(options)
    network, weights = _network(options, resume)
    network.to(device)
    for note in weights.notes:
        progress.say(f"note: {note}")
    progress.say(f"backbone {options.backbone}, weights: {weights.origin}, on {device}")
    pictures = _pictures(options, dataset, progress)
    taps = FrozenTaps(network.backbone, options.preprocess, amp=options.amp)
    progress.begin("features of the good pictures", 1)
    cache = TapCache(taps, _Images(pictures), options.batch, options.cache_mb * 1_000_000)
    progress.step(f"{cache.cached} of {len(pictures)} kept")
    patch_hw = (int(cache.mean[0].shape[2]), int(cache.mean[0].shape[3]))
    if patch_hw == (1, 1):
        raise ConfigError(
            "imgsz", [f"one patch is all that {options.layers[0]!r} has of a picture; wanted a larger size"]
        )
    embedding = PooledEmbedding(network.config, [int(tap.shape[1]) for tap in cache.mean]).to(device)
    if options.whiten is not None:
        whiten(network.adaptor, (embedding(part) for part in cache.batches(options.batch)), options.whiten)
    network.adaptor.requires_grad_(not options.freeze_adaptor)
    hypothesis = _hypothesis(options, pictures, progress)
    labelled = _labelled(options, dataset, progress)
    batches = Batches(pictures, textures, options, patch_hw)
    trainer = Trainer(network, embedding, taps, cache, batches, labelled, options.objective(hypothesis), options)
    facts = {
        "dataset": {"name": dataset.name, "layout": dataset.layout, "good": len(pictures), "test": len(dataset.test)},
        "notes": [*dataset.notes, *pictures.notes],
        "textures": used,
        "hypothesis": hypothesis,
        "backbone_weights": weights.origin,
        "device": str(device),
    }
    folder = _folder(options, facts, resume)
    try:
        state = folder.load_state() if resume else {}
        if state:
            try:
                trainer.load_state(state)
            except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as exc:
                raise CheckpointError(
                    f"training state {options.output / STATE_FILE}: damaged ({one_line(exc)}); train anew with --force"
                ) from exc
            progress.say(f"resumed after epoch {state['epochs_done'] - 1}")
        else:
            folder.begin(network)
            if options.overlay_share > 0:
                folder.save_samples(list(_samples(batches, pictures)))
        _run(options, trainer, folder, progress, batches.steps(), int(state.get("epochs_done", 0)))
        folder.finish()
    finally:
        folder.close()
    return folder.record


def _run(
    options: TrainOptions, trainer: Trainer, folder: RunFolder, progress: Progress, steps: int, first: int
) -> None:
    if first and folder.record.best is not None and _patience_over(options, folder.record.best, first - 1):
        return
    progress.begin("training", (options.epochs - first) * steps)
    running: dict[str, str] = {"epoch": str(first)}

    def after_step(step: int, losses: StepLosses) -> None:
        progress.step(
            f"epoch {running['epoch']}: loss {losses.total:.3f}"
            f" (normal {losses.normal:.3f}, gas {losses.gas:.3f}, las {losses.las:.3f}){running.get('standing', '')}"
        )

    for figures in trainer.epochs(first, after_step):
        if _is_better(options, figures, folder.record.best):
            folder.keep(trainer.network, _best(options, figures))
        folder.save_state(figures, trainer.state())
        running["epoch"] = str(figures.epoch + 1)
        if figures.standing is not None:
            running["standing"] = f", image AUROC {figures.standing.image_auroc:.4f}"
        best = folder.record.best
        if best is not None and _patience_over(options, best, figures.epoch):
            progress.say(f"no better result for {options.patience} epochs: stopped after epoch {figures.epoch}")
            return


def _is_better(options: TrainOptions, figures: EpochFigures, best: BestEpoch | None) -> bool:
    if options.select == "last" or best is None:
        return True
    if figures.standing is not None and best.image_auroc is not None:
        return figures.standing.sum > best.image_auroc + (best.pixel_auroc or 0.0)
    if figures.standing is not None:
        return True  # labels tell more than losses
    return best.image_auroc is None and figures.loss < best.loss


def _best(options: TrainOptions, figures: EpochFigures) -> BestEpoch:
    standing = figures.standing
    rule = BY_TIME if options.select == "last" else BY_LOSS if standing is None else BY_LABELS
    if standing is None:
        return BestEpoch(figures.epoch, rule, figures.loss)
    return BestEpoch(figures.epoch, rule, figures.loss, standing.image_auroc, standing.pixel_auroc)


def _patience_over(options: TrainOptions, best: BestEpoch, epoch: int) -> bool:
    return options.select == "best" and options.patience > 0 and epoch - best.epoch >= options.patience


def _check_same(options: TrainOptions, record: RunRecord) -> None:
    """Raise ConfigError when an interrupted run was told something else."""
    told, wanted = record.options, plain(options)
    other = [key for key in wanted if key != "output" and told.get(key) != wanted[key]]  # a run may be moved
    faults = [f"{key}: the run has {told.get(key)!r}, now {wanted[key]!r}" for key in other]
    if faults:
        raise ConfigError(f"--resume {options.output}", [*faults, "give the same options, or train in another folder"])


def _check_apart(options: TrainOptions, dataset: Dataset) -> None:
    """Raise ConfigError when the run lies where pictures are read from: its samples would become some of them."""
    folders = [options.good, options.bad, options.masks, options.textures]
    folders += [options.data] if dataset.layout == "plain" else []
    folders += {sample.image.parent for sample in (*dataset.train, *dataset.test)}
    output = options.output.resolve()
    for folder in folders:
        if folder is not None and output.is_relative_to(folder.resolve()):
            raise ConfigError("output", [f"{options.output} lies in {folder}, from which pictures are read"])


def _device(options: TrainOptions) -> torch.device:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", ["cuda: PyTorch finds no CUDA device; give --device cpu"])
    return torch.device("cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu")


def _network(options: TrainOptions, resume: bool) -> tuple[Glass, BackboneState]:
    """A network whose head is drawn from the seed, on its backbone's weights; and where those come from."""
    torch.manual_seed(options.seed)
    network = Glass(options.network)
    begun = resume and (options.output / STATE_FILE).exists()
    file = options.output / BACKBONE_FILE if begun else options.backbone_weights
    weights = backbone_state(options.backbone, file)
    network.backbone.load_weights(weights.tensors, weights.origin)
    return network.eval(), weights


class _Images:
    """The images of pictures, by index."""

    def __init__(self, pictures: GoodPictures) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> ImageArray:
        return self._pictures[index].image_hwc


def _pictures(options: TrainOptions, dataset: Dataset, progress: Progress) -> GoodPictures:
    progress.begin("good pictures", len(dataset.train))
    pictures = GoodPictures(
        dataset.train,
        options.preprocess,
        options.foreground,
        options.cache_mb * 1_000_000,
        lambda: progress.step(""),
    )
    for note in pictures.notes:
        progress.say(f"note: {note}")
    if pictures.crop_warning is not None:
        progress.say(f"warning: {pictures.crop_warning}")
    if options.foreground == "auto":
        rule = "textures lie on it" if pictures.agreed else "too few to believe in it: textures lie everywhere"
        progress.say(f"foreground: an object was found in {pictures.found} of {len(pictures)} pictures; {rule}")
    return pictures


def _hypothesis(options: TrainOptions, pictures: GoodPictures, progress: Progress) -> Hypothesis:
    if options.hypothesis != "auto":
        return options.hypothesis
    choice = choose_hypothesis(picture.image_hwc for picture in pictures)
    progress.say(f"hypothesis: {choice}")
    return choice.hypothesis


def _labelled(options: TrainOptions, dataset: Dataset, progress: Progress) -> LabelledPictures | None:
    if not options.eval_every or not dataset.test:
        return None
    progress.say(f"{len(dataset.test)} test pictures are looked at while training")
    labelled = LabelledPictures(dataset.test, options.preprocess, options.score)
    for note in labelled.notes:
        progress.say(f"note: {note}")
    if not labelled.usable:
        progress.say("note: the test pictures are all good or all defective; they choose nothing")
        return None
    return labelled


def _folder(options: TrainOptions, facts: dict[str, Any], resume: bool) -> RunFolder:
    if resume:
        record = read_run(options.output)
        found, told = facts["dataset"], record.facts.get("dataset")
        if found != told:
            raise ConfigError(f"--resume {options.output}", [f"data: begun on {told}, there is now {found}"])
        return RunFolder(options.output, record)
    tools = {"python": python_version()} | {name: version(name) for name in ("edge-ad", "torch", "torchvision")}
    record = RunRecord(SCHEMA_VERSION, "running", "glass", plain(options), options.export, facts, tools=tools)
    return RunFolder(options.output, record)


def _samples(batches: Batches, pictures: GoodPictures) -> Iterator[tuple[ImageArray, ImageArray, Any]]:
    """What the first epoch synthesises: good, overlaid, mask."""
    shown = 0
    for batch in batches(0):
        for each in batch.overlaid:
            good = pictures[batch.indices[each.place]].image_hwc
            yield good, each.anomaly.image_hwc, each.anomaly.mask.pixel
            shown += 1
            if shown == SAMPLE_PICTURES:
                return
