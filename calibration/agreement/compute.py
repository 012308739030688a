"""The agreement of two models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.agreement.answers import Answers, Lost, Pair, pairs_of
from edge_ad.calibration.agreement.correlation import Moments, spearman
from edge_ad.calibration.agreement.figures import Agreement, Flip, ScoreNoise, ThresholdOf
from edge_ad.calibration.agreement.ranks import image_rank_change, pixel_rank_change
from edge_ad.calibration.agreement.truths import Truths
from edge_ad.calibration.evaluation.thresholds import CONFIDENCE, rate_interval
from edge_ad.errors import ConfigError
from edge_ad.record.decision import reaches

QUANTILE = 0.99
"""Of the reference's good scores: where flips are counted when there is no threshold."""

Float64Array = NDArray[np.float64]


def agreement(
    reference: Answers,
    candidate: Answers,
    *,
    labelled: bool,
    threshold: float | None,
    threshold_of: ThresholdOf,
    noise: ScoreNoise | None,
    truths: Truths | None = None,
    seed: int = 0,
) -> Agreement:
    """How far a candidate agrees with a reference on the images that both judged; the others are listed as lost.

    Args:
        reference, candidate: answers to the same images.
        labelled: whether it is known which images are good.
        threshold: raw score from which on an image is called anomalous; when None, the 99 % quantile of the
            reference's good scores, or of all its scores where no image is known to be good. That one is taken over
            all images that the reference judged, so that it is the same for every candidate.
        threshold_of: where `threshold` comes from.
        noise: of the reference's scores.
        truths: masks of these images; None for no figure of pixels.
        seed: of the bootstrap.

    Raises: SourceError when no image was judged by both; ConfigError for maps of different size; ValueError for
        answers to different images.
    """
    pairs = pairs_of(reference, candidate)
    if threshold is None:
        threshold, threshold_of = quantile_of(reference, labelled=labelled), "quantile"
    maps, scores = _maps(pairs), Moments()
    ours = np.array([pair.reference.score for pair in pairs])
    theirs = np.array([pair.candidate.score for pair in pairs])
    scores.add(ours, theirs)
    anomalous = np.array([pair.sample.anomalous for pair in pairs])
    flips = _flips(pairs, threshold, noise, labelled=labelled)
    beyond = sum(not flip.within_noise for flip in flips)
    return Agreement(
        images=len(pairs),
        good=int((~anomalous).sum()) if labelled else 0,
        defective=int(anomalous.sum()) if labelled else 0,
        lost=_lost(reference, candidate),
        map_error_max=maps.error_max,
        map_error_mean=maps.error_mean,
        map_correlation=maps.correlation,
        score_error_max=scores.error_max,
        score_error_mean=scores.error_mean,
        score_bias=float(np.mean(theirs - ours)),
        score_correlation=scores.correlation,
        rank_correlation=spearman(ours, theirs),
        threshold=threshold,
        threshold_of=threshold_of,
        flips=flips,
        flip_interval=rate_interval(beyond, len(pairs)),
        confidence=CONFIDENCE,
        noise=noise,
        auroc=image_rank_change(ours, theirs, anomalous, seed=seed) if labelled else None,
        pixel_auroc=pixel_rank_change(pairs, truths) if labelled and truths is not None else None,
        reference_ms=float(np.median([pair.reference.infer_ms for pair in pairs])),
        candidate_ms=float(np.median([pair.candidate.infer_ms for pair in pairs])),
        dropped=_dropped(reference, candidate),
    )


def quantile_of(answers: Answers, *, labelled: bool) -> float:
    """The 99 % quantile of the scores of good images, or of all images where none is known to be good.

    Answers must hold a score.
    """
    judged = [
        (answer.score, sample.anomalous)
        for answer, sample in zip(answers.answers, answers.samples, strict=True)
        if answer is not None
    ]
    good = [score for score, anomalous in judged if labelled and not anomalous]
    return float(np.quantile(good or [score for score, _ in judged], QUANTILE))


def _maps(pairs: Sequence[Pair]) -> Moments:
    moments = Moments()
    for pair in pairs:
        first, second = pair.reference.anomaly_map, pair.candidate.anomaly_map
        if first.shape != second.shape:
            (rows, columns), (height, width) = first.shape, second.shape
            raise ConfigError(
                "comparison",
                [
                    f"{pair.name}: maps of the reference show {columns}×{rows} pixels, those of the candidate"
                    f" {width}×{height}; compare models with the same input size and resize mode"
                ],
            )
        moments.add(first, second)
    return moments


def _flips(pairs: Sequence[Pair], threshold: float, noise: ScoreNoise | None, *, labelled: bool) -> tuple[Flip, ...]:
    within = 0.0 if noise is None else noise.value
    return tuple(
        Flip(
            name=pair.name,
            defect=pair.sample.defect if labelled else None,
            reference_score=pair.reference.score,
            candidate_score=pair.candidate.score,
            within_noise=noise is not None and abs(pair.reference.score - threshold) <= within,
        )
        for pair in pairs
        if reaches(pair.reference.score, threshold) != reaches(pair.candidate.score, threshold)
    )


def _lost(reference: Answers, candidate: Answers) -> tuple[Lost, ...]:
    """In the order of the images; of one that both lost, the reference's reason."""
    reasons = {lost.name: lost for lost in (*candidate.lost, *reference.lost)}
    return tuple(reasons[name] for name in reference.names if name in reasons)


def _dropped(reference: Answers, candidate: Answers) -> tuple[str, ...]:
    rows = zip(reference.names, reference.answers, candidate.answers, strict=True)
    return tuple(name for name, ours, theirs in rows if ours is not None and theirs is None)
