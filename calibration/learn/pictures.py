"""The pictures of a lesson: their scores, what the model sees of them, and that no good one is a defective one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from edge_ad.bundle.bundle import Bundle
from edge_ad.calibration.evaluation.evaluate import Judge, judge_one, names_of
from edge_ad.calibration.evaluation.results import shown
from edge_ad.calibration.tools import Tools
from edge_ad.datasets import Sample, read_image
from edge_ad.errors import SourceError
from edge_ad.image.inspected import inspector_of
from edge_ad.image.preprocess import ModelInput, Preprocessor


@dataclass(frozen=True)
class Judged:
    """A picture that could be judged.

    Attributes:
        name: among the others, as UTF-8 holds it.
        score: raw.
        pixels_sha256: of its pixels, whatever kind of file they are in.
    """

    name: str
    sample: Sample
    score: float
    pixels_sha256: str


def scores_of(samples: Sequence[Sample], judge: Judge, tools: Tools, what: str) -> list[Judged]:
    """Scores of those that can be judged; the others are named."""
    found = []
    for raw, sample in zip(names_of(samples), tools.watch(what)(samples), strict=True):
        name = shown(raw)
        result, image, _ = judge_one(name, sample, judge)
        if result.score is None or image is None:
            tools.say(f"warning: {name} is left out: {result.reason or result.status}")
            continue
        pixels = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
        found.append(Judged(name, sample, result.score, pixels))
    return found


def inputs_of(bundle: Bundle, pictures: Sequence[Judged]) -> list[ModelInput]:
    """What the model sees of each. They were judged, so their part was found."""
    preprocess, inspector = Preprocessor(bundle.manifest.preprocess), inspector_of(bundle)
    try:
        return [inspector.look(preprocess, read_image(picture.sample)).model_input for picture in pictures]
    finally:
        preprocess.close()


def without_doubles(pictures: Sequence[Judged], tools: Tools) -> list[Judged]:
    """The first of those with the same pixels; the others are named."""
    first: dict[str, Judged] = {}
    for picture in pictures:
        if (known := first.setdefault(picture.pixels_sha256, picture)) is not picture:
            tools.say(f"note: {picture.name} is the same picture as {known.name}, and counts once")
    return list(first.values())


def refuse_the_same(good: Sequence[Judged], bad: Sequence[Judged]) -> None:
    """Raise SourceError for a picture that is said to be good and defective."""
    known = {picture.pixels_sha256: picture for picture in bad}
    for picture in good:
        if (other := known.get(picture.pixels_sha256)) is not None:
            raise SourceError(
                f"{picture.sample.image} is good and {other.sample.image}, the same picture, defective; remove one"
            )


def sha256_of(sample: Sample) -> str:
    """Of the file."""
    return hashlib.sha256(sample.image.read_bytes()).hexdigest()
