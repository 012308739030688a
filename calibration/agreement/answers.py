"""What a model says of held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.evaluation.evaluate import Judge, Watch, judge_one, names_of
from edge_ad.datasets import Sample
from edge_ad.errors import SourceError
from edge_ad.image.cells import counted_cells
from edge_ad.image.counted import MaskArray


@dataclass(frozen=True)
class Answer:
    """What a model says of one image.

    Attributes:
        score: raw score.
        anomaly_map: (h, w) float32, the map at model size without what is padding.
        infer_ms: time of the engine.
        counted: (h, w) bool, which pixels of the map are inspected; None for all of them.
    """

    score: float
    anomaly_map: NDArray[np.float32]
    infer_ms: float
    counted: MaskArray | None = None


@dataclass(frozen=True)
class Lost:
    """An image that was not judged, and why."""

    name: str
    status: Literal["unusable", "error"]
    reason: str


@dataclass(frozen=True)
class Answers:
    """Answers of one model to images, in the order of the images.

    Attributes:
        names: path of each image below the folder that all have in common, with `/`.
        samples: the images.
        answers: None for an image that was not judged.
        lost: those images.
    """

    names: tuple[str, ...]
    samples: tuple[Sample, ...]
    answers: tuple[Answer | None, ...]
    lost: tuple[Lost, ...]


@dataclass(frozen=True)
class Pair:
    """What two models say of one image.

    Attributes:
        index: place of the image in both `Answers`.
        name, sample: the image.
        reference, candidate: the two answers.
    """

    index: int
    name: str
    sample: Sample
    reference: Answer
    candidate: Answer


def collect(samples: Sequence[Sample], judge: Judge, watch: Watch = lambda samples: samples) -> Answers:
    """Judge images one after the other. An image that cannot be judged is listed with the reason; none ends the run.

    Raises: EngineError, also for a score or a map that is not finite.
    """
    names = names_of(samples)
    found = [answer_of(name, sample, judge) for name, sample in zip(names, watch(samples), strict=True)]
    return Answers(
        names=tuple(names),
        samples=tuple(samples),
        answers=tuple(None if isinstance(answer, Lost) else answer for answer in found),
        lost=tuple(answer for answer in found if isinstance(answer, Lost)),
    )


def answer_of(name: str, sample: Sample, judge: Judge) -> Answer | Lost:
    """What the judge says of one image, or why it says nothing. Raises: EngineError as `collect` does."""
    result, _, verdict = judge_one(name, sample, judge)
    if verdict is None or result.score is None or result.status != "ok":
        return Lost(name, "unusable" if result.status == "unusable" else "error", result.reason or result.status)
    if verdict.maps is None:
        return Lost(name, "error", "it was scored without an anomaly map")
    anomaly_map = verdict.maps.anomaly_map
    cells = counted_cells((anomaly_map.shape[0], anomaly_map.shape[1]), verdict.maps.geometry)
    # A copy: a slice would keep the engine's whole output in memory for as long as the answers live.
    content = np.array(anomaly_map[cells.part], np.float32, order="C")  # padding is no part of the image
    return Answer(result.score, content, verdict.timings_ms.get("infer", 0.0), cells.within_part())


def pairs_of(reference: Answers, candidate: Answers) -> list[Pair]:
    """The images that both models judged, in order.

    Raises: SourceError when there is none; ValueError for answers to different images.
    """
    if reference.names != candidate.names:
        raise ValueError("wanted answers of both models to the same images")
    pairs = [
        Pair(index, name, sample, ours, theirs)
        for index, (name, sample, ours, theirs) in enumerate(
            zip(reference.names, reference.samples, reference.answers, candidate.answers, strict=True)
        )
        if ours is not None and theirs is not None
    ]
    if not pairs:
        lost = [*reference.lost, *candidate.lost]
        why = f" ({lost[0].name}: {lost[0].reason})" if lost else ""
        raise SourceError(
            f"nothing to compare: none of {len(reference.names)} images was judged by both models{why};"
            " name a folder of images that the camera took"
        )
    return pairs
