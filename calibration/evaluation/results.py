"""What an evaluation leaves behind: results.json, scores.csv and the curves; and reading the scores again."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_ad.calibration.evaluation.evaluate import ImageResult
from edge_ad.calibration.evaluation.figures import Figures
from edge_ad.calibration.evaluation.results_folder import FolderKind, check_folder, write_folder
from edge_ad.calibration.evaluation.thresholds import CONFIDENCE, rate_interval
from edge_ad.errors import ConfigError, os_reason
from edge_ad.metrics.localization import PRO_LIMIT
from edge_ad.metrics.ranking import Operation, precision_recall_curve, roc_curve

SCHEMA_VERSION = 1
RESULTS, SCORES, REPORT, ROC, PRECISION_RECALL = "results.json", "scores.csv", "report.html", "roc.csv", "pr.csv"
EVALUATION = FolderKind(
    files=frozenset({RESULTS, SCORES, REPORT, ROC, PRECISION_RECALL}),
    marks=frozenset({RESULTS, SCORES}),
    example="eval-bottle",
)
_TRUTHS = {"normal": False, "good": False, "0": False, "anomalous": True, "defective": True, "1": True}
_MAX_FAULTS = 5


@dataclass(frozen=True)
class About:
    """What was evaluated on what.

    Attributes:
        edge_ad: version of edge-ad.
        evaluated_at: date and time, UTC.
        bundle, bundle_sha256: name and identity of the bundle.
        model_sha256: of the model file that was run.
        score: kind of score that the model gives.
        input_hw: model input in pixels.
        engine, precision: that it was run with.
        data, layout: name and layout of the data set.
        protocol, seed: of the evaluation.
    """

    edge_ad: str
    evaluated_at: str
    bundle: str
    bundle_sha256: str
    model_sha256: str
    score: str
    input_hw: tuple[int, int]
    engine: str
    precision: str
    data: str
    layout: str
    protocol: str
    seed: int


def results_json(about: About, judged: Sequence[ImageResult], figures: Figures, notes: Sequence[str]) -> dict[str, Any]:
    """Content of results.json: plain values; null where something is not defined.

    Args:
        judged: all images, also those that the figures are not about.
        notes: what a reader should know.
    """
    scored = [result for result in figures.results if result.score is not None]
    return {
        "schema_version": SCHEMA_VERSION,
        "about": asdict(about),
        "images": {
            "total": len(judged),
            "reported": len(figures.results),
            "good": sum(not result.sample.anomalous for result in scored),
            "defective": sum(result.sample.anomalous for result in scored),
            "outside_of_view": [shown(name) for name in figures.outside],
            "not_judged": [
                {
                    "path": shown(r.name),
                    "type": shown(r.sample.defect),
                    "status": r.status,
                    "reason": shown(r.reason or ""),
                }
                for r in judged
                if r.score is None
            ],
        },
        "image": {"auroc": figures.auroc, "average_precision": figures.average_precision},
        "threshold_in_use": figures.in_use,
        "thresholds": {source: operation_json(done) for source, done in figures.operations.items()},
        "validation": None if figures.validation is None else operation_json(figures.validation),
        "pixel": {**asdict(figures.pixels), "pro_limit": PRO_LIMIT, "images_without_mask": figures.unmasked},
        "types": [
            {
                "type": shown(kind.defect),
                "images": kind.images,
                "auroc": kind.auroc,
                "average_precision": kind.average_precision,
                "pixel": None if kind.pixels is None else asdict(kind.pixels),
                "found": None if kind.at_threshold is None else kind.at_threshold.hits,
                "missed": None if kind.at_threshold is None else kind.at_threshold.misses,
            }
            for kind in figures.types
        ],
        "notes": [shown(note) for note in notes],
    }


def operation_json(done: Operation) -> dict[str, Any]:
    """What a threshold does, with intervals of its two rates."""
    return {
        **asdict(done),
        "f1": done.f1,
        "precision": done.precision,
        "recall": done.recall,
        "accuracy": done.accuracy,
        "false_alarm_rate": done.false_alarm_rate,
        "false_alarm_interval": rate_interval(done.false_alarms, done.good) if done.good else None,
        "recall_interval": rate_interval(done.hits, done.defective) if done.defective else None,
        "confidence": CONFIDENCE,
    }


def scores_csv(judged: Iterable[ImageResult], model_sha256: str) -> bytes:
    """One line for each image; the score is empty for one that was not judged."""
    rows = [
        {
            "path": result.name,
            "type": result.sample.defect,
            "truth": "anomalous" if result.sample.anomalous else "normal",
            "score": "" if result.score is None else repr(float(result.score)),
            "status": result.status,
            "reason": result.reason or "",
            "half": result.half or "",
            "model": model_sha256,
        }
        for result in judged
    ]
    return csv_bytes(rows)


def curve_csvs(figures: Figures) -> dict[str, bytes]:
    """The curves of the image scores by file name; none that is not defined. The first threshold is infinity."""
    scored = [(result.score, result.sample.anomalous) for result in figures.results if result.score is not None]
    scores, truth = [score for score, _ in scored], [anomalous for _, anomalous in scored]
    files = {}
    for name, curve in ((ROC, roc_curve(scores, truth)), (PRECISION_RECALL, precision_recall_curve(scores, truth))):
        if curve is not None:
            columns = {key: values.tolist() for key, values in vars(curve).items()}
            files[name] = csv_bytes(
                [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            )
    return files


def read_scores(path: Path) -> tuple[list[float], list[bool], int, set[str]]:
    """Read scores.csv, or any CSV file with the columns `truth` and `score`.

    Returns: scores, truth, number of images that were not judged, and the models that are named.

    Raises: ConfigError when it cannot be read, has other columns, or holds scores that are none.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        reason = os_reason(exc) if isinstance(exc, OSError) else str(exc)
        raise ConfigError(str(path), [f"cannot be read as CSV: {reason}"]) from exc
    if not rows or not {"truth", "score"} <= rows[0].keys():
        got = ", ".join(map(str, rows[0])) if rows else "no line of data"
        raise ConfigError(str(path), [f"wanted the columns truth and score, got {got}"])
    scores, truths, lost, faults = [], [], 0, []
    for line, row in enumerate(rows, start=2):
        score, truth = row["score"] or "", (row["truth"] or "").strip().lower()
        if not score and (row.get("status") or "ok") != "ok":
            lost += 1
            continue
        value = _number(score)
        if value is None:
            faults.append(f"row {line}: score: wanted a finite number, got {score[:40]!r}")
        elif truth not in _TRUTHS:
            faults.append(f"row {line}: truth: wanted normal or anomalous, got {truth[:40]!r}")
        else:
            scores.append(value)
            truths.append(_TRUTHS[truth])
    if faults:
        more = [f"and {len(faults) - _MAX_FAULTS} more"] if len(faults) > _MAX_FAULTS else []
        raise ConfigError(str(path), faults[:_MAX_FAULTS] + more)
    return scores, truths, lost, {row["model"] for row in rows if row.get("model")}


def check_results_folder(path: Path, *, force: bool) -> None:
    """Raise OutputError early when an evaluation could not be written to `path`, see `check_folder`."""
    check_folder(path, EVALUATION, force=force)


def write_results(path: Path, files: Mapping[str, bytes], *, force: bool) -> None:
    """Write an evaluation: all of it appears at `path`, or nothing. Raises: OutputError."""
    write_folder(path, EVALUATION, files, force=force)


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Strict JSON for people, ASCII only."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode("ascii")


def shown(text: str) -> str:
    """A text that UTF-8 can hold; a file name may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def csv_bytes(rows: Sequence[Mapping[str, object]]) -> bytes:
    """At least one row as CSV in UTF-8, the keys of the first as its heading."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return shown(buffer.getvalue()).encode("utf-8")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
