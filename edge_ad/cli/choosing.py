"""`edge-ad train --preset auto`: configurations are tried first, and the one that is taken is trained."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from edge_ad.errors import ConfigError, EdgeAdError
from edge_ad.validation import build_rest, strict

if TYPE_CHECKING:
    from edge_ad.calibration.choose.candidates import Candidate
    from edge_ad.calibration.choose.rule import Tried
    from edge_ad.datasets import Dataset
    from edge_ad.models.progress import Progress
    from edge_ad.models.training.options import TrainOptions

AUTO = "auto"
PLAIN_OPTIONS = frozenset(
    {"data", "good", "bad", "masks", "textures", "output", "seed", "device", "cache_mb", "minutes", "budget_ms"}
    | {"choose_by", "take"}
)
"""Options beside which nothing says what to train, so that it is chosen."""


@strict
@dataclass(frozen=True)
class ChoiceOptions:
    """How a configuration is chosen.

    Attributes:
        minutes: that trying and training may take.
        budget_ms: longest time of a frame on this machine; None for any.
        choose_by: what configurations are compared on: defects that are `drawn` on good pictures that are held out, or
            the user's `labels`.
        take: name of the one that is taken whatever comes of the trial, without one.
    """

    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    budget_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    choose_by: Literal["drawn", "labels"] = "drawn"
    take: str | None = None


@dataclass(frozen=True)
class Choice:
    """What is to be trained.

    Attributes:
        family: its family.
        values: options of its training.
        facts: what was tried, for the record.
    """

    family: str
    values: dict[str, Any]
    facts: dict[str, Any]


def is_auto(values: Mapping[str, Any]) -> bool:
    """Whether options ask for a configuration to be chosen, or say nothing of what to train."""
    return values.get("preset") == AUTO or not ({"family", "preset"} & set(values) or set(values) - PLAIN_OPTIONS)


def foreign_faults(values: Mapping[str, Any]) -> list[str]:
    """Options of the choice that are given where nothing is chosen."""
    names = [name for name in ChoiceOptions.__dataclass_fields__ if name in values]
    return [f"{name}: belongs to --preset auto, which chooses; leave it out" for name in names]


def choose(values: Mapping[str, Any], where: str, progress: Progress, *, resume: bool) -> Choice:
    """Try configurations on the pictures, and take one.

    Args:
        values: options by name as the user gave them.
        resume: take the one that an interrupted run has taken, without a trial.

    Raises: EdgeAdError.
    """
    told = {name: values[name] for name in ChoiceOptions.__dataclass_fields__ if name in values}
    options, wrong = build_rest(ChoiceOptions, told, {})
    if wrong:
        raise ConfigError(where, [fault.line for fault in wrong])
    given = {name: value for name, value in values.items() if name not in told and name not in ("family", "preset")}
    return _choose(options, given, values.get("family"), where, progress, resume=resume)


def _choose(
    options: ChoiceOptions, given: dict[str, Any], family: str | None, where: str, progress: Progress, *, resume: bool
) -> Choice:
    from edge_ad.calibration.choose.candidates import candidates_for
    from edge_ad.calibration.choose.choose import try_all
    from edge_ad.calibration.choose.rule import taken
    from edge_ad.calibration.choose.trial import LEAST_GOOD, write_trial
    from edge_ad.models.synthesis.textures import open_textures
    from edge_ad.models.training.tiles import chosen_tiles
    from edge_ad.models.training.view import sizes_of

    began = time.monotonic()
    candidates = candidates_for(family, tiled=True)
    if not candidates:
        raise ConfigError(where, [f"preset: auto chooses between no configurations of family {family!r}; give another"])
    checked = _checked(candidates[0], given, where)
    dataset = checked.dataset()
    tiles = chosen_tiles(sizes_of(dataset.train), checked.imgsz, checked.tile_overlap)
    candidates = candidates_for(family, tiled=tiles is not None)
    names = {candidate.name: candidate for candidate in candidates}
    wanted = _begun(checked.output) if resume else options.take
    if wanted is not None:
        if wanted not in names:
            raise ConfigError(where, [f"take: wanted one of {', '.join(names)}, got {wanted}"])
        return _choice(names[wanted], given, {"taken": wanted})
    by_labels = options.choose_by == "labels"
    if by_labels:
        _check_labels(dataset, where)
    elif len(dataset.train) < LEAST_GOOD:
        progress.say(
            f"note: {len(dataset.train)} good pictures are too few to hold some out (wanted {LEAST_GOOD});"
            f" {candidates[0].name} is taken untried"
        )
        return _choice(candidates[0], given, {"taken": candidates[0].name})
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-ad-choose-")))
        data: dict[str, Any] = {name: given[name] for name in ("data", "good", "bad", "masks") if name in given}
        if not by_labels:
            written = write_trial(dataset.train, open_textures(checked.textures), scratch / "pictures", checked.seed)
            data = {"data": str(written.folder)}
            progress.say(
                f"trying {len(candidates)} configurations, for {options.minutes:g} minutes at most: {written.learned}"
                f" good pictures to learn from, {written.held_out} held out, {written.defective} defects drawn on these"
            )
        else:
            progress.say(
                f"trying {len(candidates)} configurations on {len(dataset.test)} labelled pictures; later figures on"
                " the same ones are too good"
            )
        rest = {name: value for name, value in given.items() if name not in ("data", "good", "bad", "masks", "output")}

        def attempt(candidate: Candidate) -> Tried:
            return _try(candidate, {**rest, **data}, scratch, where, progress)

        trial = try_all(candidates, attempt, 60 * options.minutes - (time.monotonic() - began), progress.say)
        best = taken(trial.tried, options.budget_ms)
    others = [one.name for one in trial.tried if one.name != best.name]
    another = f"; another by --take {'|'.join(others)}" if others else ""
    progress.say(f"taken: {best.name}, {names[best.name].says}{another}")
    facts = {
        "taken": best.name,
        "chosen_by": options.choose_by,
        "tried": [asdict(one) for one in trial.tried],
        "not_tried": [list(pair) for pair in trial.left_out],
    }
    return _choice(names[best.name], given, facts)


def _checked(candidate: Candidate, given: Mapping[str, Any], where: str) -> TrainOptions:
    """Options of a candidate's training, so that what is wrong with the user's is said before anything is tried."""
    from edge_ad.models import model_family

    family = model_family(candidate.family)
    options: TrainOptions = family.train_options.checked(
        {"preset": "fast", **candidate.options, **given}, where, family.size_faults, family.tile_faults
    )
    return options


def _choice(candidate: Candidate, given: Mapping[str, Any], facts: Mapping[str, Any]) -> Choice:
    return Choice(candidate.family, {"preset": "fast", **candidate.options, **given}, {"choice": dict(facts)})


def _begun(run: Path) -> str:
    """The configuration that an interrupted run has taken."""
    from edge_ad.training_run import read_run

    found = read_run(run).facts.get("choice")
    if not isinstance(found, Mapping) or not isinstance(found.get("taken"), str):
        raise ConfigError(f"--resume {run}", ["its configuration was not chosen; give the options that it was told"])
    return str(found["taken"])


def _check_labels(dataset: Dataset, where: str) -> None:
    kinds = {sample.anomalous for sample in dataset.test}
    if kinds != {True, False}:
        raise ConfigError(
            where, ["choose_by: labels wants good and defective test pictures; give both, or leave it out"]
        )


def _try(candidate: Candidate, given: Mapping[str, Any], scratch: Path, where: str, progress: Progress) -> Tried:
    """Train a candidate and judge the labelled pictures of the trial."""
    from edge_ad.calibration.choose.rule import Tried
    from edge_ad.calibration.evaluation.evaluate import judge_images
    from edge_ad.calibration.evaluation.figures import measure
    from edge_ad.cli.eval import bundle_of
    from edge_ad.datasets import open_dataset, plain_dataset
    from edge_ad.image.frame import ImageArray
    from edge_ad.models import model_family
    from edge_ad.models.progress import Progress
    from edge_ad.record.verdict import Verdict
    from edge_ad.runtime.host.opencv import load_cv2
    from edge_ad.runtime.judge.loader import open_detector

    began = time.monotonic()
    run = scratch / candidate.name
    values = {"preset": "fast", **candidate.options, **given, "output": str(run)}
    quiet = Progress(lambda line: None, progress.begin, progress.step)
    model_family(candidate.family).train(values, where, quiet)
    if "data" in given:
        test = open_dataset(Path(given["data"])).test
    else:
        paths = (None if given.get(name) is None else Path(given[name]) for name in ("good", "bad", "masks"))
        good, bad, masks = paths
        assert good is not None
        test = plain_dataset(good, bad, masks).test
    load_cv2()
    times_ms: list[float] = []
    with open_detector(bundle_of(run, scratch)) as detector:

        def judge(image_hwc: ImageArray) -> Verdict:
            verdict = detector.judge(image_hwc)
            times_ms.append(sum(verdict.timings_ms.values()))
            return verdict

        progress.begin(f"judging with {candidate.name}", len(test))

        def watch(samples: Any) -> Any:
            for sample in samples:
                yield sample
                progress.step("")

        judged = judge_images(test, judge, detector.bundle.manifest.preprocess, watch=watch)
    figures = measure(judged, {})
    if figures.auroc is None:
        raise EdgeAdError(f"{candidate.name}: no good, or no defective picture could be judged")
    return Tried(
        candidate.name,
        round(figures.auroc, 4),
        None if figures.pixels.auroc is None else round(figures.pixels.auroc, 4),
        round(statistics.median(times_ms), 2),
        round(time.monotonic() - began, 1),
    )
