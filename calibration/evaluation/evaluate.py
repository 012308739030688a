"""Judging labelled images."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.calibration.evaluation.protocol import Half, halves
from edge_ad.datasets import Sample, covers_nearly_all, model_mask, read_image, read_mask
from edge_ad.errors import EngineError, ImageError
from edge_ad.image.cells import counted_cells
from edge_ad.image.counted import MaskArray
from edge_ad.image.frame import ImageArray
from edge_ad.image.geometry import FrameGeometry
from edge_ad.metrics.localization import PixelGroup
from edge_ad.record.verdict import Verdict

Judge = Callable[[ImageArray], Verdict]
"""Judges one (H, W, 3) uint8 RGB image; the command line passes the runtime's detector."""
Watch = Callable[[Iterable[Sample]], Iterable[Sample]]
"""Passes samples on and may show how far they are."""
Protocol = Literal["none", "study"]


@dataclass(frozen=True)
class ImageResult:
    """What became of one image.

    Attributes:
        name: path below the folder that all images have in common, with `/`.
        sample: the image and its truth.
        status: `ok` when it was scored; else it counts in no figure.
        score: raw score; None when it was not scored.
        reason: why it was not scored.
        half: of the study protocol; None without it.
    """

    name: str
    sample: Sample
    status: Literal["ok", "unusable", "error"]
    score: float | None = None
    reason: str | None = None
    half: Half | None = None


@dataclass(frozen=True)
class Judged:
    """All images of an evaluation, in the order given, and the pixels of those that have a truth for them.

    Attributes:
        pixels: by kind of defect and half; good images count as a kind.
        outside_masks: names of the defective images that show nothing of their defect: it lies outside of what the
            model sees.
        empty_masks: names of those whose defect is too small for the model's grid.
        full_masks: names of those whose mask covers nearly all of them.
    """

    results: tuple[ImageResult, ...]
    pixels: Mapping[tuple[str, Half | None], PixelGroup]
    outside_masks: tuple[str, ...] = ()
    empty_masks: tuple[str, ...] = ()
    full_masks: tuple[str, ...] = ()


def names_of(samples: Sequence[Sample]) -> list[str]:
    """A name for each sample: its path below the folder that all of them have in common, with `/`."""
    images = [Path(os.path.abspath(sample.image)) for sample in samples]  # without `..`, which Path.absolute keeps
    try:
        root = os.path.commonpath([image.parent for image in images]) if images else ""
    except ValueError:  # on several drives
        return [image.as_posix() for image in images]
    return [image.relative_to(root).as_posix() for image in images]


def judge_images(
    samples: Sequence[Sample],
    judge: Judge,
    spec: PreprocessSpec,
    *,
    protocol: Protocol = "none",
    seed: int = 0,
    watch: Watch = lambda samples: samples,
) -> Judged:
    """Judge images one after the other. An image that cannot be judged gets a status that says so.

    Args:
        samples: the images.
        judge: gives their verdicts.
        spec: how the model sees a frame; masks are brought there.
        protocol, seed: whether, and how, the images are split into halves.

    Raises: ImageError for a mask that is damaged or of another size than its image; EngineError, also for a score
        that is no number.
    """
    names = names_of(samples)
    defect_of = {name: sample.defect for name, sample in zip(names, samples, strict=True)}
    half_of = halves(defect_of, seed) if protocol == "study" else {}
    results: list[ImageResult] = []
    pixels: dict[tuple[str, Half | None], PixelGroup] = {}
    outside: list[str] = []
    empty: list[str] = []
    full: list[str] = []
    for name, sample in zip(names, watch(samples), strict=True):
        result, image, verdict = judge_one(name, sample, judge)
        result = replace(result, half=half_of.get(name))
        results.append(result)
        if image is None or verdict is None or verdict.maps is None or (sample.anomalous and sample.mask is None):
            continue
        truth = read_mask(sample, (image.shape[0], image.shape[1]))
        if covers_nearly_all(truth):
            full.append(name)
        geometry = verdict.maps.geometry
        mask = model_mask(truth, spec, geometry.region)
        cells = counted_cells(spec.size_hw, geometry)  # neither padding nor what is ignored is part of the image
        group = pixels.setdefault((sample.defect, result.half), PixelGroup())
        shown = verdict.maps.anomaly_map[cells.part], mask[cells.part], cells.within_part()
        if not group.add(*shown) and sample.anomalous:
            (empty if _is_seen(truth, geometry) else outside).append(name)
    return Judged(tuple(results), pixels, tuple(outside), tuple(empty), tuple(full))


def _is_seen(truth: MaskArray, geometry: FrameGeometry) -> bool:
    """Whether any of a defect lies in what is inspected, however small."""
    left, top, right, bottom = geometry.inspected_box
    counted = geometry.counted_in(geometry.inspected_box)
    part = truth[top:bottom, left:right]
    return bool((part if counted is None else part & counted).any())


def judge_one(name: str, sample: Sample, judge: Judge) -> tuple[ImageResult, ImageArray | None, Verdict | None]:
    try:
        image = read_image(sample)
        verdict = judge(image)
    except ImageError as exc:
        return ImageResult(name, sample, "error", reason=str(exc)), None, None
    if verdict.score is None:
        status: Literal["unusable", "error"] = "unusable" if verdict.status == "unusable" else "error"
        return ImageResult(name, sample, status, reason=verdict.reason or verdict.status), image, None
    if not math.isfinite(verdict.score) or (
        verdict.maps is not None and not np.isfinite(verdict.maps.anomaly_map).all()
    ):
        raise EngineError(
            f"{sample.image}: wanted finite scores, got {verdict.score} and a map with NaN or infinity in it;"
            " the model is damaged, export it again"
        )
    return ImageResult(name, sample, "ok", verdict.score), image, verdict
