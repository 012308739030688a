"""The pictures of a lesson: their scores, what the model sees of them, and that no good one is a defective one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.calibration.evaluation.evaluate import Judge, judge_one, names_of
from edge_ad.calibration.tools import Tools
from edge_ad.datasets import Sample, read_image
from edge_ad.errors import SourceError
from edge_ad.image.preprocess import Preprocessor

if TYPE_CHECKING:
    from edge_ad.image.frame import ImageArray


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


def inputs_of(spec: PreprocessSpec, pictures: Sequence[Judged]) -> list[ImageArray]:
    preprocess = Preprocessor(spec)
    try:
        return [preprocess(read_image(picture.sample)).image_hwc for picture in pictures]
    finally:
        preprocess.close()


def refuse_the_same(good: Sequence[Sample], bad: Sequence[Sample]) -> None:
    known = {sha256_of(sample): sample for sample in bad}
    for sample in good:
        if (other := known.get(sha256_of(sample))) is not None:
            raise SourceError(f"{sample.image} is good and {other.image}, the same picture, defective; remove one")


def sha256_of(sample: Sample) -> str:
    return hashlib.sha256(sample.image.read_bytes()).hexdigest()
