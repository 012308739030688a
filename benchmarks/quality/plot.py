"""Accuracy against time, a chart for each data set, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from configurations import OURS
from results import Point, front

from edge_ad.calibration.evaluation.charts import svg_bytes
from edge_ad.calibration.evaluation.plots import load_matplotlib

COLOURS = {OURS: "#1d4ed8"}
OTHERS = "#c2410c"
INCHES = 4.2


def pareto(found: Mapping[str, Sequence[Point]]) -> bytes:
    """Image AUROC over milliseconds of a frame; the line is the front of all. Returns: SVG."""
    load_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES * max(1, len(found)), INCHES), layout="constrained")
    for number, (data, points) in enumerate(found.items(), 1):
        axes = figure.add_subplot(1, len(found), number)
        axes.set_title(data)
        axes.set_xscale("log")
        axes.set_xlabel("milliseconds of a frame")
        axes.set_ylabel("image AUROC")
        for point in points:
            colour = COLOURS.get(point.side, OTHERS)
            axes.scatter([point.ms], [point.auroc], color=colour, marker="s" if "int8" in point.name else "o", s=22)
            axes.annotate(point.name, (point.ms, point.auroc), fontsize=5, xytext=(3, 3), textcoords="offset points")
        best = front(points)
        axes.step([point.ms for point in best], [point.auroc for point in best], where="post", color="#7b8794", lw=1)
    return svg_bytes(figure)
