"""Results on disk, one file for each configuration, data set and seed, and what all of them come to."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FIGURES = ("image_auroc", "pixel_auroc", "pro", "fp32_ms", "int8_ms", "int8_image_auroc", "train_s", "train_mib")


@dataclass(frozen=True)
class Result:
    """One training and what it is worth.

    Attributes:
        image_auroc, pixel_auroc, pro: of the float model; None where the data set has no masks.
        fp32_ms, int8_ms: from a decoded frame to score and map, median.
        int8_image_auroc: of the int8 model.
        train_s: of the wall clock, from the start of the process to its end.
        train_mib: most memory of it.
        reason: why something is missing.
    """

    configuration: str
    side: str
    data: str
    seed: int
    image_auroc: float | None = None
    pixel_auroc: float | None = None
    pro: float | None = None
    fp32_ms: float | None = None
    int8_ms: float | None = None
    int8_image_auroc: float | None = None
    train_s: float | None = None
    train_mib: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Row:
    """Results of all seeds. Attributes: figures: (mean, least, most) by name, None where no seed has it."""

    configuration: str
    side: str
    data: str
    seeds: tuple[int, ...]
    figures: dict[str, tuple[float, float, float] | None]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One model of a configuration: what it costs and what it is worth."""

    name: str
    side: str
    ms: float
    auroc: float


def place(folder: Path, configuration: str, data: str, seed: int) -> Path:
    return folder / f"{data}.{configuration}.{seed}.json"


def write(path: Path, result: Result) -> None:
    """Whole or not at all."""
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(asdict(result), indent=1) + "\n", "utf-8")
    draft.replace(path)


def read_all(folder: Path) -> list[Result]:
    """All results of a folder, by name. Raises: TypeError for a file with other keys."""
    return [Result(**json.loads(path.read_text("utf-8"))) for path in sorted(folder.glob("*.json"))]


def rows(results: Sequence[Result]) -> list[Row]:
    """One for each configuration and data set, in the order in which they come."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.data, result.configuration), []).append(result)
    found = []
    for group in groups.values():
        first = group[0]
        figures = {name: _spread([getattr(each, name) for each in group]) for name in FIGURES}
        reasons = tuple(dict.fromkeys(each.reason for each in group if each.reason))
        seeds = tuple(each.seed for each in group)
        found.append(Row(first.configuration, first.side, first.data, seeds, figures, reasons))
    return found


def _spread(values: Sequence[float | None]) -> tuple[float, float, float] | None:
    known = [value for value in values if value is not None]
    return (statistics.fmean(known), min(known), max(known)) if known else None


def points(found: Sequence[Row], data: str) -> list[Point]:
    """Float and int8 models of a data set, where both time and accuracy are known; means over seeds."""
    pairs = (("fp32", "fp32_ms", "image_auroc"), ("int8", "int8_ms", "int8_image_auroc"))
    made = []
    for row in found:
        for precision, ms, auroc in pairs:
            cost, worth = row.figures[ms], row.figures[auroc]
            if row.data == data and cost is not None and worth is not None:
                made.append(Point(f"{row.configuration}, {precision}", row.side, cost[0], worth[0]))
    return made


def dominates(one: Point, other: Point) -> bool:
    """Whether one is at least as good in both, and better in one of them."""
    return one.ms <= other.ms and one.auroc >= other.auroc and (one.ms < other.ms or one.auroc > other.auroc)


def front(found: Sequence[Point]) -> list[Point]:
    """Those that none dominates, fastest first."""
    best: list[Point] = []
    for point in sorted(found, key=lambda each: (each.ms, -each.auroc)):
        if not best or point.auroc > best[-1].auroc or (point.ms, point.auroc) == (best[-1].ms, best[-1].auroc):
            best.append(point)
    return best


def better_peers(found: Sequence[Point], ours: str) -> list[tuple[Point, Point]]:
    """(peer, ours): a peer that is both more accurate and faster than a model on our front."""
    own = front([point for point in found if point.side == ours])
    peers = [point for point in found if point.side != ours]
    return [(peer, mine) for mine in own for peer in peers if peer.ms < mine.ms and peer.auroc > mine.auroc]


def as_csv(found: Sequence[Row]) -> str:
    """Mean, least and most of every figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = [f"{name}{end}" for name in FIGURES for end in ("", "_least", "_most")]
    writer.writerow(["data", "configuration", "side", "seeds", *parts, "reason"])
    for row in found:
        numbers = [number for name in FIGURES for number in row.figures[name] or ("", "", "")]
        writer.writerow([row.data, row.configuration, row.side, len(row.seeds), *numbers, "; ".join(row.reasons)])
    return text.getvalue()


def as_markdown(found: Sequence[Row]) -> str:
    """A table; with several seeds each accuracy is followed by its least and most."""
    lines = [
        "| data | configuration | seeds | image AUROC | pixel AUROC | PRO | int8 image AUROC | fp32 ms | int8 ms |"
        " training s | training MiB |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        accuracies = [_told(row.figures[name], 3) for name in ("image_auroc", "pixel_auroc", "pro", "int8_image_auroc")]
        costs = [_told(row.figures[name], 1, spread=False) for name in ("fp32_ms", "int8_ms")]
        costs += [_told(row.figures[name], 0, spread=False) for name in ("train_s", "train_mib")]
        lines.append(f"| {' | '.join([row.data, row.configuration, str(len(row.seeds)), *accuracies, *costs])} |")
    notes = [f"{row.data}, {row.configuration}: {reason}" for row in found for reason in row.reasons]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _told(figure: tuple[float, float, float] | None, digits: int, *, spread: bool = True) -> str:
    if figure is None:
        return "–"
    mean, least, most = figure
    interval = f" ({least:.{digits}f}–{most:.{digits}f})" if spread and most > least else ""
    return f"{mean:.{digits}f}{interval}"


def as_json(found: Sequence[Row]) -> str:
    plain: list[dict[str, Any]] = [{field.name: getattr(row, field.name) for field in fields(row)} for row in found]
    return json.dumps(plain, indent=1) + "\n"
