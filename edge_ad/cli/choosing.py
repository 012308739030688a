"""`edge-ad train --preset auto`: configurations are tried first, and the one that is taken is trained."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from edge_ad.cli.trying import try_out
from edge_ad.errors import ConfigError
from edge_ad.validation import build_rest, strict

if TYPE_CHECKING:
    from edge_ad.calibration.choose.candidates import Candidate
    from edge_ad.calibration.choose.rule import Tried
    from edge_ad.datasets import Dataset
    from edge_ad.models.progress import Progress
    from edge_ad.models.training.options import TrainOptions

AUTO = "auto"
PICTURES = ("data", "good", "bad", "masks")
PLAIN_OPTIONS = frozenset(
    {*PICTURES, "textures", "output", "seed", "device", "cache_mb", "minutes", "budget_ms", "choose_by", "take"}
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


def choose(values: Mapping[str, Any], where: str, progress: Progress, *, resume: bool, force: bool) -> Choice:
    """Try configurations on the pictures, and take one.

    Args:
        values: options by name as the user gave them.
        resume: take the one that an interrupted run has taken, without a trial.
        force: the run may replace an earlier one.

    Raises: EdgeAdError.
    """
    told = {name: values[name] for name in ChoiceOptions.__dataclass_fields__ if name in values}
    options, wrong = build_rest(ChoiceOptions, told, {})
    if wrong:
        raise ConfigError(where, [fault.line for fault in wrong])
    given = {name: value for name, value in values.items() if name not in told and name not in ("family", "preset")}
    family = values.get("family")
    candidates = _candidates(family, given, where)
    names = {candidate.name: candidate for candidate in candidates}
    checked = _checked(candidates[0], given, where)
    if resume:
        begun = _begun(checked.output)
        if options.take not in (None, begun):
            raise ConfigError(where, [f"take: the run goes on with {begun}, which it took; leave --take out"])
        return _named(names, begun, given, where)
    from edge_ad.models.training.run_folder import check_apart, check_folder
    from edge_ad.training_run import is_run

    check_folder(checked.output, force, is_run)
    check_apart(checked, checked.dataset())
    if options.take is not None:
        of_trial = [name for name in ("budget_ms", "choose_by") if name in told]
        if of_trial:
            raise ConfigError(where, [f"{name}: belongs to a trial, and --take has none" for name in of_trial])
        return _named(names, options.take, given, where)
    return _tried(options, given, names, checked, where, progress)


def _candidates(family: str | None, given: Mapping[str, Any], where: str) -> tuple[Candidate, ...]:
    """Those that make sense of the pictures. Raises: ConfigError for a family that has none."""
    from edge_ad.calibration.choose.candidates import candidates_for
    from edge_ad.models.training.tiles import chosen_tiles
    from edge_ad.models.training.view import sizes_of

    candidates = candidates_for(family, tiled=True)
    if not candidates:
        raise ConfigError(where, [f"preset: auto chooses between no configurations of family {family!r}; give another"])
    checked = _checked(candidates[0], given, where)
    tiles = chosen_tiles(sizes_of(checked.dataset().train), checked.imgsz, checked.tile_overlap)
    return candidates_for(family, tiled=tiles is not None)


def _named(names: Mapping[str, Candidate], wanted: str, given: Mapping[str, Any], where: str) -> Choice:
    if wanted not in names:
        raise ConfigError(where, [f"take: wanted one of {', '.join(names)}, got {wanted}"])
    return _choice(names[wanted], given, {"taken": wanted})


def _tried(
    options: ChoiceOptions,
    given: dict[str, Any],
    names: Mapping[str, Candidate],
    checked: TrainOptions,
    where: str,
    progress: Progress,
) -> Choice:
    """The best of those that were tried. Args: checked: options of the first, for the pictures and the seed."""
    from edge_ad.calibration.choose.choose import try_all
    from edge_ad.calibration.choose.rule import taken
    from edge_ad.calibration.choose.trial import LEAST_GOOD, readable, write_trial
    from edge_ad.models.synthesis.textures import open_textures

    began = time.monotonic()
    candidates, dataset = tuple(names.values()), checked.dataset()
    by_labels = options.choose_by == "labels"
    good = [] if by_labels else readable(dataset.train)
    if by_labels:
        _check_labels(dataset, where)
    elif len(good) < LEAST_GOOD:
        unknown = "" if options.budget_ms is None else ", and how long it takes is not compared with --budget-ms"
        progress.say(
            f"note: {len(good)} good pictures are too few to hold some out (wanted {LEAST_GOOD});"
            f" {candidates[0].name} is taken untried{unknown}"
        )
        return _choice(candidates[0], given, {"taken": candidates[0].name})
    with tempfile.TemporaryDirectory(prefix="edge-ad-choose-") as folder:
        scratch = Path(folder)
        if by_labels:
            pictures = {name: given[name] for name in PICTURES if name in given}
            shown = f"{len(dataset.test)} labelled pictures; later figures on the same ones are too good"
        else:
            textures = given.get("textures")
            pool = open_textures(None if textures is None else Path(str(textures)))
            written = write_trial(good, pool, scratch / "pictures", checked.seed)
            pictures = {"data": str(written.folder)}
            shown = (
                f"{written.learned} good pictures to learn from, {written.held_out} held out, {written.defective}"
                " defects drawn on these"
            )
        progress.say(f"trying {len(candidates)} configurations, for {options.minutes:g} minutes at most, on {shown}")
        rest = {name: value for name, value in given.items() if name not in (*PICTURES, "output")}

        def attempt(candidate: Candidate) -> Tried:
            return try_out(candidate, {**rest, **pictures}, scratch, where, progress, drawn=not by_labels)

        trial = try_all(candidates, attempt, 60 * options.minutes - (time.monotonic() - began), progress.say)
        best = taken(trial.tried, options.budget_ms, [name for name, _ in trial.left_out])
    others = [one.name for one in trial.tried if one.name != best.name]
    another = f"; another by --take {'|'.join(others)}" if others else ""
    progress.say(f"taken: {best.name}, {names[best.name].says}{another}")
    facts = {
        "taken": best.name,
        "chosen_by": options.choose_by,
        "tried": [one.figures for one in trial.tried],
        "not_tried": [list(pair) for pair in trial.left_out],
    }
    if not by_labels:
        given = {**_as_large(names[best.name], given, len(dataset.train), where, progress), **given}
    return _choice(names[best.name], given, facts)


def _as_large(
    candidate: Candidate, given: Mapping[str, Any], count: int, where: str, progress: Progress
) -> dict[str, Any]:
    """Where a trial learned from some of many pictures: the share of patches that leaves a bank as large as its was.

    What the trial has found of the time of a frame holds for the bundle then. Args: count: good pictures.
    """
    from edge_ad.calibration.choose.trial import MOST_HELD_OUT, MOST_LEARNED

    share = getattr(_checked(candidate, given, where), "coreset", None)
    if not isinstance(share, float) or count <= MOST_LEARNED + MOST_HELD_OUT:
        return {}
    progress.say(f"note: the bank keeps as many patches as of {MOST_LEARNED} pictures in the trial (see --coreset)")
    return {"coreset": share * MOST_LEARNED / count}


def _checked(candidate: Candidate, given: Mapping[str, Any], where: str) -> TrainOptions:
    """Options of a candidate's training, so that what is wrong with the user's is said before anything is tried."""
    from edge_ad.calibration.choose.candidates import options_of
    from edge_ad.models import model_family

    family = model_family(candidate.family)
    options: TrainOptions = family.train_options.checked(
        options_of(candidate, given), where, family.size_faults, family.tile_faults
    )
    return options


def _choice(candidate: Candidate, given: Mapping[str, Any], facts: Mapping[str, Any]) -> Choice:
    from edge_ad.calibration.choose.candidates import options_of

    return Choice(candidate.family, options_of(candidate, given), {"choice": dict(facts)})


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
