"""report.html: an evaluation as one page that needs no network."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from edge_ad.calibration.evaluation.charts import histogram, precision_recall_chart, roc_chart, score_span
from edge_ad.calibration.evaluation.drawing import heat_colours
from edge_ad.calibration.evaluation.evaluate import ImageResult
from edge_ad.calibration.evaluation.figures import Figures
from edge_ad.calibration.evaluation.pictures import Mistake, heat_range
from edge_ad.calibration.evaluation.results import About, shown
from edge_ad.calibration.evaluation.thresholds import CONFIDENCE, rate_interval
from edge_ad.metrics.localization import PRO_LIMIT
from edge_ad.metrics.ranking import precision_recall_curve, roc_curve

TEMPLATE = "evaluation/report.html.j2"
SOURCE_NAMES = {
    "given": "given on the command line",
    "study": "chosen on the validation half",
    "bundle": "of the bundle",
    "best_f1": "best F1 on these images",
}
_LEGEND_COLOURS = 9


@dataclass(frozen=True)
class _Row:
    """One kind of defect as the page shows it."""

    figures: Any
    found: str
    chart: str


def report_html(
    about: About, judged: Sequence[ImageResult], figures: Figures, mistakes: Sequence[Mistake], notes: Sequence[str]
) -> bytes:
    """The page as UTF-8. Everything that comes from files or from the user is escaped.

    Args:
        judged: all images, also those that the figures are not about.
        mistakes: drawn images.
        notes: what a reader should know.
    """
    scores = [result.score for result in figures.results if result.score is not None]
    truth = [result.sample.anomalous for result in figures.results if result.score is not None]
    in_use = None if figures.in_use is None else figures.operations[figures.in_use]
    roc, pr = roc_curve(scores, truth), precision_recall_curve(scores, truth)
    low, high = heat_range(figures)
    return render_page(
        TEMPLATE,
        about=about,
        figures=figures,
        in_use=in_use,
        in_use_name=SOURCE_NAMES.get(figures.in_use or "", ""),
        operations=[(SOURCE_NAMES[source], done) for source, done in figures.operations.items()],
        good=truth.count(False),
        defective=truth.count(True),
        lost=[result for result in judged if result.score is None],
        total=len(judged),
        roc=None if roc is None else data_url(roc_chart(roc, in_use), "svg+xml"),
        pr=None
        if pr is None or roc is None
        else data_url(precision_recall_chart(pr, in_use, truth.count(True) / len(truth)), "svg+xml"),
        rows=_rows(figures),
        missed=[mistake for mistake in mistakes if mistake.kind == "missed"],
        alarms=[mistake for mistake in mistakes if mistake.kind == "false alarm"],
        closest=[mistake for mistake in mistakes if mistake.kind == "closest"],
        legend=heat_colours(_LEGEND_COLOURS),
        heat=(low, high),
        pro_limit=PRO_LIMIT,
        confidence=CONFIDENCE,
        notes=[shown(note) for note in notes],
    )


def render_page(template: str, **values: Any) -> bytes:
    """A page as UTF-8 with every value escaped.

    Args:
        template: file below the folder of `edge_ad.calibration`.
        values: by the name that the template knows them by; it must know no other.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files("edge_ad.calibration")
    loader = FunctionLoader(lambda name: folder.joinpath(name).read_text("utf-8"))
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": figure_text, "percent": percent_text, "interval": interval_text, "shown": shown}
    environment.filters["data"] = data_url
    return environment.get_template(template).render(**values).encode("utf-8")


def figure_text(value: float | None) -> str:
    """A figure with three decimals; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def percent_text(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def interval_text(hits: int, images: int) -> str:
    """Interval of the rate `hits` of `images`."""
    if not images:
        return "–"
    low, high = rate_interval(hits, images)
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def data_url(data: bytes, kind: str) -> str:
    """A picture as an address that holds it."""
    return f"data:image/{kind};base64,{b64encode(data).decode('ascii')}"


def _rows(figures: Figures) -> list[_Row]:
    def scores_of(defect: str | None) -> list[float]:
        wanted = [r for r in figures.results if r.sample.anomalous == (defect is not None)]
        return [r.score for r in wanted if r.score is not None and (defect is None or r.sample.defect == defect)]

    good = scores_of(None)
    span = score_span([r.score for r in figures.results if r.score is not None], figures.threshold)
    rows = []
    for kind in figures.types:
        done = kind.at_threshold
        found = "–" if done is None else f"{done.hits} of {done.defective}"
        chart = data_url(histogram(good, scores_of(kind.defect), span, figures.threshold), "svg+xml")
        rows.append(_Row(kind, found, chart))
    return rows
