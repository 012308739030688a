"""The figures of an agreement between a reference model and a candidate, on the images that both judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_ad.calibration.agreement.answers import Lost

ThresholdOf = Literal["given", "bundle", "quantile"]


@dataclass(frozen=True)
class ScoreNoise:
    """How far a score of the reference moves when nothing but the camera's noise changes in the image.

    Attributes:
        value: 95 % quantile of |score with noise - score|.
        grey_levels: largest change of a pixel, uniform integers.
        images: how many were tried.
    """

    value: float
    grey_levels: int
    images: int


@dataclass(frozen=True)
class Flip:
    """An image that the two models label differently at the threshold.

    Attributes:
        name: as in `Answers`.
        defect: its truth (`good`, or the kind of defect); None where that is not known.
        reference_score, candidate_score: raw scores.
        within_noise: whether the reference's score lies no further from the threshold than the score noise.
    """

    name: str
    defect: str | None
    reference_score: float
    candidate_score: float
    within_noise: bool


@dataclass(frozen=True)
class RankChange:
    """AUROC of both models where there are good and defective images (or pixels).

    Attributes:
        reference, candidate: AUROC.
        pairs: good times defective ones: the smallest step of AUROC is 1 / pairs.
        swapped: net number of pairs that the candidate orders worse than the reference, negative where it is better.
        disordered: number of pairs that the two order differently, either way, where a tie is an order of its own;
            None for pixels.
        interval: bounds of `candidate - reference` from a paired bootstrap of the images; None for pixels.
        confidence: of the interval.
    """

    reference: float
    candidate: float
    pairs: int
    swapped: float
    disordered: int | None
    interval: tuple[float, float] | None
    confidence: float | None


@dataclass(frozen=True)
class Agreement:
    """How far a candidate agrees with a reference.

    Attributes:
        images: judged by both; figures are about these.
        good, defective: how many of them are known to be so; both 0 where the truth is not known.
        lost: images that one of them, or both, did not judge.
        map_error_max, map_error_mean: absolute differences of the anomaly maps, over all pixels of all images.
        map_correlation: Pearson's, over all pixels of all images; None where a map has no variance.
        score_error_max, score_error_mean: absolute differences of the scores.
        score_bias: mean of candidate minus reference.
        score_correlation, rank_correlation: Pearson's and Spearman's of the scores; None where not defined.
        threshold: raw score at which flips are counted, for both models.
        threshold_of: where it comes from: given, the bundle, or the 99 % quantile of the reference's good scores.
        flips: images labelled differently.
        flip_interval: Clopper-Pearson bounds of the share of flips beyond the noise, at `confidence`.
        noise: of the reference's scores; None when it was not measured.
        auroc, pixel_auroc: None where there are no labels, or no masks.
        reference_ms, candidate_ms: median time of the engines for one image.
        dropped: names of the images that the reference judged and the candidate did not.
    """

    images: int
    good: int
    defective: int
    lost: tuple[Lost, ...]
    map_error_max: float
    map_error_mean: float
    map_correlation: float | None
    score_error_max: float
    score_error_mean: float
    score_bias: float
    score_correlation: float | None
    rank_correlation: float | None
    threshold: float
    threshold_of: ThresholdOf
    flips: tuple[Flip, ...]
    flip_interval: tuple[float, float]
    confidence: float
    noise: ScoreNoise | None
    auroc: RankChange | None
    pixel_auroc: RankChange | None
    reference_ms: float
    candidate_ms: float
    dropped: tuple[str, ...] = ()

    @property
    def flips_beyond_noise(self) -> int:
        return sum(not flip.within_noise for flip in self.flips)
