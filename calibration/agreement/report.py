"""report.html: how far two models agree, as one page that needs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_ad.calibration.agreement.charts import score_chart
from edge_ad.calibration.agreement.document import (
    REPORT,
    REPORT_JSON,
    SCORES,
    LayerSensitivity,
    ReportContent,
    RollbackStep,
    agreement_csv,
    report_json,
)
from edge_ad.calibration.evaluation.drawing import heat_colours
from edge_ad.calibration.evaluation.report import data_url, render_page
from edge_ad.calibration.evaluation.results import json_bytes

TEMPLATE = "agreement/report.html.j2"
_LEGEND_COLOURS = 9


@dataclass(frozen=True)
class _Step:
    """A step of the rollback as the page shows it; `cost_ms` is what it added to the time of one image, if known."""

    step: RollbackStep
    cost_ms: float | None


@dataclass(frozen=True)
class _Bar:
    """A layer as the page shows it: its error as a share of the largest, in percent."""

    layer: LayerSensitivity
    percent: float


def agreement_html(content: ReportContent) -> bytes:
    """The page as UTF-8. Everything that comes from files or from the user is escaped."""
    agreement = content.agreement
    own = None if content.thresholds is None else content.thresholds.new
    return render_page(
        TEMPLATE,
        content=content,
        about=content.about,
        agreement=agreement,
        models=(("reference", content.about.reference), ("candidate", content.about.candidate)),
        chart=data_url(score_chart(content.scores, agreement, own), "svg+xml"),
        own_threshold=None if own == agreement.threshold else own,
        labelled=agreement.good + agreement.defective > 0,
        steps=_steps(content.steps),
        bars=_bars(content.sensitivities),
        pairs=() if content.pictures is None else content.pictures.pairs,
        legend=heat_colours(_LEGEND_COLOURS),
    )


def comparison_files(content: ReportContent) -> dict[str, bytes]:
    """The folder of a comparison: content of each file by its name."""
    return {
        REPORT: agreement_html(content),
        REPORT_JSON: json_bytes(report_json(content)),
        SCORES: agreement_csv(content.scores),
    }


def _steps(steps: Sequence[RollbackStep]) -> list[_Step]:
    before = [None, *(step.candidate_ms for step in steps)]
    return [
        _Step(step, None if previous is None or step.candidate_ms is None else step.candidate_ms - previous)
        for previous, step in zip(before, steps, strict=False)
    ]


def _bars(sensitivities: Sequence[LayerSensitivity]) -> list[_Bar]:
    most = max((layer.error for layer in sensitivities if math.isfinite(layer.error)), default=0.0)
    return [_Bar(layer, _percent(layer.error, most)) for layer in sensitivities]


def _percent(error: float, most: float) -> float:
    if math.isinf(error):
        return 100.0
    return 100 * error / most if most > 0 else 0.0
