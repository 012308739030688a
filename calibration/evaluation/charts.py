"""Charts of the report as SVG. No text of the user's is drawn: names of defects stand in the page around them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.evaluation.plots import load_matplotlib
from edge_ad.metrics.ranking import Operation, PrecisionRecallCurve, RocCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GOOD_COLOUR, BAD_COLOUR, MARK = "#1f2933", "#cbd2d9", "#7b8794", "#c2410c", "#1d4ed8"
BINS = 30
SIDE_INCHES = 3.6
HISTOGRAM_INCHES = (6.4, 1.5)


def roc_chart(curve: RocCurve, operation: Operation | None) -> bytes:
    """The ROC curve and the point of the threshold in use. Returns: SVG."""
    figure, axes = _square("share of good images called anomalous", "share of defective images found")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
    axes.plot(curve.false_positive_rate, curve.true_positive_rate, color=INK, linewidth=1.8, clip_on=False)
    if operation is not None:
        _mark(axes, operation.false_alarm_rate, operation.recall)
    return svg_bytes(figure)


def precision_recall_chart(curve: PrecisionRecallCurve, operation: Operation | None, share: float) -> bytes:
    """The precision-recall curve, the threshold in use, and the `share` of defective images (blind guessing).

    Returns: SVG.
    """
    figure, axes = _square("share of defective images found (recall)", "share of alarms that are right (precision)")
    axes.axhline(share, color=FAINT, linewidth=1, linestyle="--")
    found = np.flatnonzero(curve.recall)  # before the first defect is found, precision is 0 or nothing at all
    recall, precision = np.append(0.0, curve.recall[found]), curve.precision[[found[0], *found]]
    axes.step(recall, precision, where="pre", color=INK, linewidth=1.8, clip_on=False)
    if operation is not None:
        _mark(axes, operation.recall, operation.precision)
    return svg_bytes(figure)


def histogram(good: Sequence[float], bad: Sequence[float], span: tuple[float, float], threshold: float | None) -> bytes:
    """Scores of good images against those of one kind of defect, each as a share of its kind.

    Args:
        span: range of the axis, the same for all histograms of a report.

    Returns: SVG.
    """
    figure = blank_figure(HISTOGRAM_INCHES)
    axes = figure.add_subplot()
    edges = np.linspace(*span, BINS + 1).tolist()
    for values, colour in ((good, GOOD_COLOUR), (bad, BAD_COLOUR)):
        if len(values):
            weights = np.full(len(values), 100 / len(values))
            axes.hist(values, edges, weights=weights, color=colour, alpha=0.55, histtype="stepfilled")
            axes.hist(values, edges, weights=weights, color=colour, linewidth=1.4, histtype="step")
    if threshold is not None:
        axes.axvline(threshold, color=MARK, linewidth=1.4, linestyle="--")
    axes.set_xlim(*span)
    axes.set_xlabel("score")
    axes.set_ylabel("% of images")
    plain_axes(axes)
    return svg_bytes(figure)


def score_span(scores: Sequence[float], threshold: float | None) -> tuple[float, float]:
    """Range of all scores and the threshold, with a margin."""
    values: NDArray[np.float64] = np.array([*scores, *([] if threshold is None else [threshold])])
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or max(abs(high), 1.0) * 0.04
    return low - margin, high + margin


def _square(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = blank_figure((SIDE_INCHES, SIDE_INCHES))
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=x_label, ylabel=y_label, aspect="equal")
    axes.grid(color=FAINT, linewidth=0.5, alpha=0.6)
    plain_axes(axes)
    return figure, axes


def blank_figure(inches: tuple[float, float]) -> Figure:
    """An empty chart of that size."""
    figure: Figure = load_matplotlib().figure.Figure(figsize=inches, layout="constrained")
    return figure


def plain_axes(axes: Axes) -> None:
    """Give axes the look that all charts of reports have."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=8, colors=INK, color=FAINT)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=8, color=INK)


def _mark(axes: Axes, x: float | None, y: float | None) -> None:
    if x is not None and y is not None:
        axes.plot([x], [y], marker="o", markersize=8, markerfacecolor=MARK, markeredgecolor="white", clip_on=False)


def svg_bytes(figure: Figure) -> bytes:
    """The chart as an SVG file; equal charts are equal bytes."""
    buffer = io.BytesIO()
    # Names inside of the file are hashes; with a salt of their own, equal charts are equal files.
    with load_matplotlib().rc_context({"svg.hashsalt": "edge-ad"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
