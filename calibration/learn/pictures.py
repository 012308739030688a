"""The pictures of a lesson: their scores, what the model sees of them, and that no good one is a defective one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.calibration.evaluation.evaluate import Judge, judge_one, names_of
from edge_ad.calibration.tools import Tools
from edge_ad.datasets import Sample, read_image
from edge_ad.errors import SourceError
from edge_ad.image.preprocess import ModelInput, Preprocessor


@dataclass(frozen=True)
class Judged:
    """A picture that could be judged, its name among the others, and its raw score."""

    name: str
    sample: Sample
    score: float


def scores_of(samples: Sequence[Sample], judge: Judge, tools: Tools, what: str) -> list[Judged]:
    """Scores of those that can be judged; the others are named."""
    found = []
    for name, sample in zip(names_of(samples), tools.watch(what)(samples), strict=True):
        result, _, _ = judge_one(name, sample, judge)
        if result.score is None:
            tools.say(f"warning: {name} is left out: {result.reason or result.status}")
        else:
            found.append(Judged(name, sample, result.score))
    return found


def inputs_of(spec: PreprocessSpec, pictures: Sequence[Judged]) -> list[ModelInput]:
    preprocess = Preprocessor(spec)
    try:
        return [preprocess(read_image(picture.sample)) for picture in pictures]
    finally:
        preprocess.close()


def without_doubles(samples: Sequence[Sample], tools: Tools) -> list[Sample]:
    """The first of each content; the others are named."""
    first: dict[str, Sample] = {}
    for sample in samples:
        if (known := first.setdefault(sha256_of(sample), sample)) is not sample:
            tools.say(f"note: {sample.image} is the same picture as {known.image}, and counts once")
    return list(first.values())


def refuse_the_same(good: Sequence[Sample], bad: Sequence[Sample]) -> None:
    known = {sha256_of(sample): sample for sample in bad}
    for sample in good:
        if (other := known.get(sha256_of(sample))) is not None:
            raise SourceError(f"{sample.image} is good and {other.image}, the same picture, defective; remove one")


def sha256_of(sample: Sample) -> str:
    """Of the file; of its path where it cannot be read, which whoever wants its pixels will report."""
    try:
        data = sample.image.read_bytes()
    except OSError:
        data = b"nothing in " + bytes(sample.image.absolute())
    return hashlib.sha256(data).hexdigest()
