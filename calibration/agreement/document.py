"""What a report of an agreement says: plain values, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from edge_ad.bundle.specs import GateVerdict
from edge_ad.calibration.agreement.answers import Answers
from edge_ad.calibration.agreement.figures import Agreement
from edge_ad.calibration.agreement.pictures import FramePictures
from edge_ad.calibration.agreement.tolerances import Breach, Statement
from edge_ad.calibration.evaluation.results import csv_bytes, shown
from edge_ad.calibration.evaluation.results_folder import FolderKind
from edge_ad.datasets import GOOD

SCHEMA_VERSION = 1
REPORT, REPORT_JSON, SCORES = "report.html", "report.json", "scores.csv"
COMPARISON = FolderKind(
    files=frozenset({REPORT, REPORT_JSON, SCORES}),
    marks=frozenset({REPORT, REPORT_JSON, SCORES}),
    example="compare-bottle",
)

Plain = str | int | float | bool | None


@dataclass(frozen=True)
class ModelAbout:
    """One of the two models.

    Attributes:
        name: of its bundle.
        sha256: identity of that bundle; None where it is not written yet.
        engine, precision: that it was run with.
    """

    name: str
    sha256: str | None
    engine: str
    precision: str


@dataclass(frozen=True)
class AgreementAbout:
    """What was compared on what.

    Attributes:
        edge_ad: version of edge-ad.
        compared_at: date and time, UTC.
        reference, candidate: the two models.
        data: name of the data set.
        images: which of its images, in words.
        calibration_sha256: hash of the content of the calibration images; None where there were none.
        options: what else decides the figures, by name.
    """

    edge_ad: str
    compared_at: str
    reference: ModelAbout
    candidate: ModelAbout
    data: str
    images: str
    calibration_sha256: str | None = None
    options: Mapping[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageScore:
    """One image under both models.

    Attributes:
        name: as in `Answers`.
        defect: `good`, or the kind of defect; None where that is not known.
        reference, candidate: raw scores; None where that model did not judge it.
    """

    name: str
    defect: str | None
    reference: float | None
    candidate: float | None


@dataclass(frozen=True)
class RollbackStep:
    """One step of putting layers back to float.

    Attributes:
        layer: what was put back in this step; None for the start, where everything that can be quantized is.
        sensitivity: figure of that layer that made it the next one; None for the start.
        breaches: what the check said after the step; empty when it held.
        candidate_ms: time of the engine for one image after the step; None where it judged none.
    """

    layer: str | None
    sensitivity: float | None
    breaches: tuple[Breach, ...]
    candidate_ms: float | None


@dataclass(frozen=True)
class LayerSensitivity:
    """How much of the error of the maps comes from one layer.

    Attributes:
        layer: its name.
        error: in the unit that the report's notes name; the larger, the more it costs to quantize this layer; infinite
            where it cannot be.
    """

    layer: str
    error: float


@dataclass(frozen=True)
class ThresholdShift:
    """The threshold before and after.

    Attributes:
        old, new: raw scores; None where there is none.
        by: where the new one comes from, in words.
    """

    old: float | None
    new: float | None
    by: str

    @property
    def shift(self) -> float | None:
        return None if self.old is None or self.new is None else self.new - self.old


@dataclass(frozen=True)
class ReportContent:
    """Everything that a report says.

    Attributes:
        title: heading of the page.
        verdict: `unproven` where nobody has checked, or what was checked does not count.
        why: the verdict in one line.
        about: what was compared.
        agreement: the figures.
        statements: the checks, with what is allowed.
        breaches: those that do not hold.
        scores: of all images, in their order.
        steps: layers put back to float one after another; empty when none was.
        sensitivities: of layers, worst first.
        thresholds: of frames; None where they are not looked at.
        pixel_thresholds: of the pixels of maps, where they have their own.
        notes: what a reader should know, one line each.
        pictures: None without any; they are no part of the JSON.
    """

    title: str
    verdict: GateVerdict
    why: str
    about: AgreementAbout
    agreement: Agreement
    statements: tuple[Statement, ...]
    breaches: tuple[Breach, ...]
    scores: tuple[ImageScore, ...]
    steps: tuple[RollbackStep, ...] = ()
    sensitivities: tuple[LayerSensitivity, ...] = ()
    thresholds: ThresholdShift | None = None
    pixel_thresholds: ThresholdShift | None = None
    notes: tuple[str, ...] = ()
    pictures: FramePictures | None = None


def image_scores(reference: Answers, candidate: Answers, *, labelled: bool) -> tuple[ImageScore, ...]:
    """Scores of both models, in the order of the images.

    Args:
        reference, candidate: answers to the same images.
        labelled: whether the truth of the images is known.
    """
    return tuple(
        ImageScore(
            name,
            sample.defect if labelled else None,
            None if before is None else before.score,
            None if after is None else after.score,
        )
        for name, sample, before, after in zip(
            reference.names, reference.samples, reference.answers, candidate.answers, strict=True
        )
    )


def report_json(content: ReportContent) -> dict[str, Any]:
    """Content of report.json: plain values, finite numbers only; null where something is not defined."""
    values = {each.name: getattr(content, each.name) for each in fields(content) if each.name != "pictures"}
    return {
        "schema_version": SCHEMA_VERSION,
        **{name: _plain(value) for name, value in values.items()},
        "agreement": _plain(content.agreement) | {"flips_beyond_noise": content.agreement.flips_beyond_noise},
        "thresholds": _moved(content.thresholds),
        "pixel_thresholds": _moved(content.pixel_thresholds),
    }


def _moved(shift: ThresholdShift | None) -> Any:
    return None if shift is None else _plain(shift) | {"shift": _plain(shift.shift)}


def agreement_csv(scores: Sequence[ImageScore]) -> bytes:
    """One line for each image; truth and scores are empty where they are not known."""
    truths = {None: "", True: "normal", False: "anomalous"}
    return csv_bytes(
        [
            {
                "name": score.name,
                "truth": truths[None if score.defect is None else score.defect == GOOD],
                "score_a": _number(score.reference),
                "score_b": _number(score.candidate),
            }
            for score in scores
        ]
    )


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {shown(str(key)): _plain(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return shown(value) if isinstance(value, str) else value
