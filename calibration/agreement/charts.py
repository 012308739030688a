"""Charts of the report of an agreement as SVG. No text of the user's is drawn."""

from __future__ import annotations

from collections.abc import Sequence

from edge_ad.calibration.agreement.document import ImageScore
from edge_ad.calibration.agreement.figures import Agreement
from edge_ad.calibration.evaluation.charts import (
    BAD_COLOUR,
    FAINT,
    GOOD_COLOUR,
    INK,
    MARK,
    blank_figure,
    plain_axes,
    score_span,
    svg_bytes,
)
from edge_ad.datasets import GOOD

SCATTER_INCHES = (5.2, 5.2)


def score_chart(scores: Sequence[ImageScore], agreement: Agreement, candidate_threshold: float | None) -> bytes:
    """Scores of the candidate against those of the reference, the thresholds, and the reference's noise around its own.

    Args:
        scores: images that one model did not judge are left out.
        agreement: gives the threshold at which flips are counted, the noise, and the flips, which are circled.
        candidate_threshold: a threshold that the candidate has of its own; None for the same.

    Returns: SVG.
    """
    figure = blank_figure(SCATTER_INCHES)
    axes = figure.add_subplot()
    kinds: dict[str, tuple[list[float], list[float]]] = {GOOD_COLOUR: ([], []), BAD_COLOUR: ([], [])}
    every: list[float] = []
    for score in scores:
        if score.reference is not None and score.candidate is not None:
            xs, ys = kinds[GOOD_COLOUR if score.defect in (None, GOOD) else BAD_COLOUR]
            xs.append(score.reference)
            ys.append(score.candidate)
            every += [score.reference, score.candidate]
    if candidate_threshold is not None:
        every.append(candidate_threshold)
    span = score_span(every, agreement.threshold)
    axes.plot(span, span, color=FAINT, linewidth=1)
    if agreement.noise is not None:
        reach = agreement.noise.value
        axes.axvspan(agreement.threshold - reach, agreement.threshold + reach, color=MARK, alpha=0.1, linewidth=0)
    axes.axvline(agreement.threshold, color=MARK, linewidth=1.2, linestyle="--")
    axes.axhline(agreement.threshold, color=MARK, linewidth=1.2, linestyle="--")
    if candidate_threshold is not None and candidate_threshold != agreement.threshold:
        axes.axhline(candidate_threshold, color=INK, linewidth=1.2, linestyle=":")
    for colour, (xs, ys) in kinds.items():
        axes.scatter(xs, ys, s=16, color=colour, alpha=0.7, linewidths=0)
    flipped = [(flip.reference_score, flip.candidate_score) for flip in agreement.flips]
    if flipped:
        xs, ys = map(list, zip(*flipped, strict=True))
        axes.scatter(xs, ys, s=70, facecolors="none", edgecolors=INK)
    axes.set(xlim=span, ylim=span, aspect="equal", xlabel="score of the reference", ylabel="score of the candidate")
    plain_axes(axes)
    return svg_bytes(figure)
