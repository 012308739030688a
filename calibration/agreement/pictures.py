"""Pictures of the report: the images whose maps differ most, under the reference and under the candidate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.agreement.answers import Answers, Pair, pairs_of
from edge_ad.calibration.agreement.figures import Agreement, Flip
from edge_ad.calibration.evaluation.drawing import heat_picture, jpeg, small_picture
from edge_ad.calibration.evaluation.evaluate import Judge
from edge_ad.datasets import Sample, read_image
from edge_ad.errors import ImageError

WORST = 6  # images in a report
_SMALLEST_SCALE = 1e-9  # where two models agree to the last bit


@dataclass(frozen=True)
class FramePair:
    """One image under both models.

    Attributes:
        name: as in `Answers`.
        defect: `good`, or the kind of defect; None where that is not known.
        reference_score, candidate_score: raw scores.
        flip: how its label changed; None when it did not.
        difference_mean, difference_max: of the two maps, absolute, on the model's grid.
        picture, reference_map, candidate_map, difference: JPEG: the image alone, and with each of the three maps.
    """

    name: str
    defect: str | None
    reference_score: float
    candidate_score: float
    flip: Flip | None
    difference_mean: float
    difference_max: float
    picture: bytes
    reference_map: bytes
    candidate_map: bytes
    difference: bytes


@dataclass(frozen=True)
class FramePictures:
    """Drawn images and what their colours mean.

    Attributes:
        pairs: the images.
        heat: values of the two maps that are drawn as no heat and as full heat.
        difference_heat: the same for the absolute difference.
    """

    pairs: tuple[FramePair, ...]
    heat: tuple[float, float]
    difference_heat: tuple[float, float]


def worst_frames(
    reference: Answers, candidate: Answers, flips: Sequence[Flip] = (), limit: int = WORST
) -> tuple[int, ...]:
    """Positions of the images to show: those labelled differently first, then by the mean difference of their maps.

    Args:
        reference, candidate: answers to the same images; one that either did not judge is not shown.
        flips: images labelled differently; those beyond the noise come before those within.
        limit: how many at most.

    Raises: SourceError when no image was judged by both.
    """
    rank = {flip.name: 1 if flip.within_noise else 0 for flip in flips}
    ordered = [
        (rank.get(pair.name, 2), -float(_difference(pair).mean()), pair.index)
        for pair in pairs_of(reference, candidate)
    ]
    return tuple(index for _, _, index in sorted(ordered)[:limit])


def draw_pairs(
    chosen: Sequence[int],
    reference: Answers,
    candidate: Answers,
    agreement: Agreement,
    judges: tuple[Judge, Judge],
    *,
    labelled: bool,
) -> FramePictures:
    """Read and judge the chosen images once more, and draw them. One that has become unreadable is left out.

    Args:
        chosen: positions of images that both models judged.
        reference, candidate: their answers.
        agreement: their agreement, for the threshold in the middle of the heat, and for the flips.
        judges: of the reference and of the candidate.
        labelled: whether the truth of the images is known.
    """
    pairs = {pair.index: pair for pair in pairs_of(reference, candidate)}
    heat = _heat(pairs.values(), agreement.threshold)
    most = max((float(_difference(pairs[index]).max()) for index in chosen), default=0.0)
    difference_heat = 0.0, max(most, _SMALLEST_SCALE)
    flips = {flip.name: flip for flip in agreement.flips}
    found = []
    for pair in (pairs[index] for index in chosen):
        drawn = _draw(pair.sample, judges, heat, difference_heat)
        if drawn is None:
            continue
        difference = _difference(pair)
        found.append(
            FramePair(
                pair.name,
                pair.sample.defect if labelled else None,
                pair.reference.score,
                pair.candidate.score,
                flips.get(pair.name),
                float(difference.mean()),
                float(difference.max()),
                *drawn,
            )
        )
    return FramePictures(tuple(found), heat, difference_heat)


def _draw(
    sample: Sample, judges: tuple[Judge, Judge], heat: tuple[float, float], difference_heat: tuple[float, float]
) -> tuple[bytes, bytes, bytes, bytes] | None:
    """The image, its two maps and their difference as JPEG; None when it cannot be judged any more."""
    try:
        image = read_image(sample)
        before, after = (judge(image) for judge in judges)
    except ImageError:
        return None
    if before.maps is None or after.maps is None:
        return None
    box = before.maps.geometry.inspected_box
    small = small_picture(image)
    change = np.abs(after.anomaly_map_frame - before.anomaly_map_frame)
    return (
        jpeg(small),
        jpeg(heat_picture(small, before.anomaly_map_frame, heat, box)),
        jpeg(heat_picture(small, after.anomaly_map_frame, heat, box)),
        jpeg(heat_picture(small, change, difference_heat, box)),
    )


def _difference(pair: Pair) -> NDArray[np.float64]:
    """(h, w) absolute differences of the two maps."""
    return np.abs(np.subtract(pair.candidate.anomaly_map, pair.reference.anomaly_map, dtype=np.float64))


def _heat(pairs: Iterable[Pair], threshold: float) -> tuple[float, float]:
    """A scale with the threshold in its middle that reaches every score of both models."""
    scores = [score for pair in pairs for score in (pair.reference.score, pair.candidate.score)]
    reach = max(_SMALLEST_SCALE, *(abs(score - threshold) for score in scores))
    return threshold - reach, threshold + reach
