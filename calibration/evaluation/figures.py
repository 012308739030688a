"""Measuring judged images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edge_ad.calibration.evaluation.evaluate import ImageResult, Judged
from edge_ad.calibration.evaluation.protocol import Half
from edge_ad.datasets import GOOD, swapped_notes
from edge_ad.errors import SourceError
from edge_ad.metrics.localization import PixelGroup, PixelMetrics, group_metrics
from edge_ad.metrics.ranking import Operation, auroc, average_precision, best_f1, operation

ThresholdSource = Literal["given", "study", "bundle", "best_f1"]
SOURCES: tuple[ThresholdSource, ...] = ("given", "study", "bundle", "best_f1")
"""Where a threshold can come from, the one to use first."""
SHOWN = 3


@dataclass(frozen=True)
class TypeFigures:
    """One kind of defect against the good images.

    Attributes:
        defect: its name.
        images: how many of it were scored.
        auroc, average_precision: of the scores; None where they are not defined.
        pixels: None where no image of this kind has a mask.
        at_threshold: what the threshold in use does; None without one.
    """

    defect: str
    images: int
    auroc: float | None
    average_precision: float | None
    pixels: PixelMetrics | None
    at_threshold: Operation | None


@dataclass(frozen=True)
class Figures:
    """What an evaluation found. None stands for what the images do not define.

    Attributes:
        results: the images that the figures are about: all of them, or the test half of the study.
        auroc, average_precision: of the scores.
        operations: what a threshold does, by where it comes from; `best_f1` is chosen on these very images.
        in_use: which of them the kinds of defects and the mistakes refer to; None without any.
        pixels: of the images with a truth for their pixels.
        unmasked: how many scored defective images have none.
        types: each kind of defect.
        outside: names of the defective images that show nothing of their defect to the model.
        validation: what the study's threshold does on the half that it was chosen on.
        notes: what a reader should know, one line each.
    """

    results: tuple[ImageResult, ...]
    auroc: float | None
    average_precision: float | None
    operations: Mapping[ThresholdSource, Operation]
    in_use: ThresholdSource | None
    pixels: PixelMetrics
    unmasked: int
    types: tuple[TypeFigures, ...]
    outside: tuple[str, ...] = ()
    validation: Operation | None = None
    notes: tuple[str, ...] = ()

    @property
    def warning(self) -> str | None:
        """What comes before all figures: defects that no figure can be good at; None for none."""
        if not self.outside:
            return None
        masked = sum(result.sample.anomalous and result.sample.mask is not None for result in self.results)
        return (
            f"{len(self.outside)} of {masked} defective images with a mask show nothing of their defect, which lies"
            " outside of the crop: train with --resize-mode auto, which sees it all"
        )

    @property
    def threshold(self) -> float | None:
        return None if self.in_use is None else self.operations[self.in_use].threshold


def measure(judged: Judged, thresholds: Mapping[ThresholdSource, float]) -> Figures:
    """Measure judged images: the test half where they are split, else all of them.

    Args:
        thresholds: those that are known beforehand (`given`, `bundle`).

    Raises: SourceError when no good image was judged, when the study's halves lack a kind of image, or when there
        is neither a defective image nor a threshold.
    """
    studied = any(result.half is not None for result in judged.results)
    scope: Half | None = "test" if studied else None
    results = tuple(result for result in judged.results if result.half == scope)
    scores, truth = _scored(results)
    if all(truth):
        raise SourceError(f"no good image was judged, of {_count(results, False)}; figures need good images")
    known = dict(thresholds)
    if not any(truth) and (studied or not known):
        raise SourceError(
            f"no defective image was judged, of {_count(results, True)}; figures need some, or a threshold to count"
            " false alarms at"
        )
    validation: Operation | None = None
    if studied:
        validation = _validation(judged)
        known["study"] = validation.threshold
    operations = {source: operation(scores, truth, value) for source, value in known.items()}
    best = best_f1(scores, truth)
    if best is not None:
        operations["best_f1"] = best
    in_use = next((source for source in SOURCES if source in operations), None)
    threshold = None if in_use is None else operations[in_use].threshold
    groups = {defect: group for (defect, half), group in judged.pixels.items() if half == scope}
    bare = [r for r in results if r.score is not None and r.sample.anomalous and r.sample.mask is None]
    figures = Figures(
        results=results,
        auroc=auroc(scores, truth),
        average_precision=average_precision(scores, truth),
        operations={source: operations[source] for source in SOURCES if source in operations},
        in_use=in_use,
        pixels=_pixels(list(groups.values()), [group for defect, group in groups.items() if defect != GOOD]),
        unmasked=len(bare),
        types=_types(results, groups, threshold),
        outside=judged.outside_masks,
        validation=validation,
    )
    return replace(figures, notes=tuple(_notes(figures, judged)))


def _validation(judged: Judged) -> Operation:
    """The best F1 on the validation half."""
    scores, truth = _scored(tuple(result for result in judged.results if result.half == "validation"))
    best = best_f1(scores, truth)
    if best is None or all(truth):
        kind = "defective" if best is None else "good"
        raise SourceError(
            f"study protocol: no {kind} image was judged in the validation half of {len(judged.results)} images;"
            " wanted two good and two defective ones at least, or --protocol none"
        )
    return best


def _types(
    results: Sequence[ImageResult], groups: Mapping[str, PixelGroup], threshold: float | None
) -> tuple[TypeFigures, ...]:
    figures = []
    for defect in sorted({result.sample.defect for result in results if result.sample.anomalous}):
        chosen = [result for result in results if result.sample.defect in (GOOD, defect)]
        scores, truth = _scored(chosen)
        masked = [groups[name] for name in (GOOD, defect) if name in groups] if defect in groups else []
        figures.append(
            TypeFigures(
                defect,
                images=sum(truth),
                auroc=auroc(scores, truth),
                average_precision=average_precision(scores, truth),
                pixels=group_metrics(masked) if masked else None,
                at_threshold=None if threshold is None else operation(scores, truth, threshold),
            )
        )
    return tuple(figures)


def _pixels(groups: Sequence[PixelGroup], defective: Sequence[PixelGroup]) -> PixelMetrics:
    if not defective:
        return replace(group_metrics([]), undefined="no defective image has a mask")
    return group_metrics(groups)


def _scored(results: Sequence[ImageResult]) -> tuple[list[float], list[bool]]:
    pairs = [(result.score, result.sample.anomalous) for result in results if result.score is not None]
    return [score for score, _ in pairs], [anomalous for _, anomalous in pairs]


def _count(results: Sequence[ImageResult], anomalous: bool) -> int:
    return sum(result.sample.anomalous == anomalous for result in results)


def _notes(figures: Figures, judged: Judged) -> list[str]:
    notes = []
    lost = [result for result in judged.results if result.score is None]
    if lost:
        bad = sum(result.sample.anomalous for result in lost)
        notes.append(
            f"{len(lost)} of {len(judged.results)} images could not be judged ({len(lost) - bad} good, {bad} defective)"
            " and count in no figure"
        )
        unusable = [result for result in lost if result.status == "unusable"]
        if unusable:
            named = "; ".join(f"{result.name}: {result.reason}" for result in unusable[:SHOWN])
            more = ", and more" if len(unusable) > SHOWN else ""
            notes.append(f"{len(unusable)} of them would be unusable on the line: {named}{more}")
    if figures.unmasked:
        notes.append(f"{figures.unmasked} defective images have no mask and are left out of the pixel figures")
    if judged.empty_masks:
        notes.append(
            f"{len(judged.empty_masks)} defective images show no defective pixel on the model's grid, the defect being"
            f" too small: {', '.join(judged.empty_masks[:SHOWN])}"
        )
    if judged.outside_masks:
        notes.append(
            f"{len(judged.outside_masks)} defective images show nothing of their defect:"
            f" {', '.join(judged.outside_masks[:SHOWN])}"
        )
    notes += swapped_notes(judged.full_masks)
    if figures.pixels.undefined:
        notes.append(f"no pixel figures: {figures.pixels.undefined}")
    if figures.auroc is None:
        notes.append("no defective image: only false alarms can be counted")
    if figures.validation is not None:
        count = sum(result.half == "validation" for result in judged.results)
        notes.append(
            f"study protocol: {count} images chose the threshold; every figure is of the other {len(figures.results)}"
        )
    if figures.in_use == "best_f1":
        notes.append("the threshold was chosen on these very images, so what it does to others will be worse")
    return notes
