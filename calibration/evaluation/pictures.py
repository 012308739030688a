"""Pictures of the report: the images that the threshold gets most wrong, each beside its anomaly map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.evaluation.drawing import heat_picture, jpeg, small_picture
from edge_ad.calibration.evaluation.evaluate import ImageResult, Judge
from edge_ad.calibration.evaluation.figures import Figures
from edge_ad.datasets import read_image, read_mask
from edge_ad.errors import ImageError
from edge_ad.image.frame import ImageArray
from edge_ad.record.decision import reaches

OUTLINE_RGB, SHADE_RGB = (255, 255, 255), (0, 0, 0)

Kind = Literal["missed", "false alarm", "closest"]


@dataclass(frozen=True)
class Mistake:
    """One image of the report.

    Attributes:
        result: the image and its score.
        kind: `missed` defect, `false alarm`, or `closest`: right, but nearest to the threshold.
        picture: JPEG of the image with the outline of its ground truth.
        overlay: the same with its anomaly map, and what the model does not see darkened.
        has_outline: whether there is a ground truth to outline.
    """

    result: ImageResult
    kind: Kind
    picture: bytes
    overlay: bytes
    has_outline: bool


def worst(figures: Figures, limit: int) -> list[tuple[ImageResult, Kind]]:
    """The images that lie furthest on the wrong side of the threshold: at most `limit` missed and as many false alarms.

    Where there are none, the good image and the defective one that come closest to it. Empty without a threshold.
    """
    threshold = figures.threshold
    if threshold is None:
        return []
    scored = [(result.score, result) for result in figures.results if result.score is not None]
    good = sorted((pair for pair in scored if not pair[1].sample.anomalous), key=lambda pair: -pair[0])
    bad = sorted((pair for pair in scored if pair[1].sample.anomalous), key=lambda pair: pair[0])
    found: list[tuple[ImageResult, Kind]] = []
    found += [(result, "missed") for score, result in bad if not reaches(score, threshold)][:limit]
    found += [(result, "false alarm") for score, result in good if reaches(score, threshold)][:limit]
    return found or [(result, "closest") for _, result in (*bad[:1], *good[:1])]


def heat_range(figures: Figures) -> tuple[float, float]:
    """Values of the anomaly map that are drawn as no heat and as full heat: the threshold in the middle of them."""
    scores = [result.score for result in figures.results if result.score is not None]
    middle = figures.threshold if figures.threshold is not None else float(np.median(scores))
    reach = max(1e-9, *(abs(score - middle) for score in scores))
    return middle - reach, middle + reach


def draw_mistakes(chosen: Sequence[tuple[ImageResult, Kind]], judge: Judge, heat: tuple[float, float]) -> list[Mistake]:
    """Read and judge the chosen images once more, and draw them. One that has become unreadable is left out."""
    drawn = []
    for result, kind in chosen:
        try:
            image = read_image(result.sample)
            verdict = judge(image)
        except ImageError:
            continue
        if verdict.maps is None:
            continue
        mask = read_mask(result.sample, (image.shape[0], image.shape[1]))
        small = small_picture(image)
        overlay = heat_picture(small, verdict.anomaly_map_frame, heat, verdict.maps.geometry.inspected_box)
        outline = _outline(mask, (small.shape[0], small.shape[1]))
        pictures = [jpeg(_outlined(picture, outline)) for picture in (small, overlay)]
        drawn.append(Mistake(result, kind, pictures[0], pictures[1], bool(mask.any())))
    return drawn


def _outline(mask: NDArray[np.bool_], hw: tuple[int, int]) -> list[NDArray[np.int32]]:
    """Outlines of the ground truth in pixels of the small picture; a region below one pixel keeps a point."""
    import cv2

    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    scale = np.array([hw[1] / mask.shape[1], hw[0] / mask.shape[0]])
    return [np.round((contour + 0.5) * scale - 0.5).astype(np.int32) for contour in found]


def _outlined(picture: ImageArray, outline: Sequence[NDArray[np.int32]]) -> ImageArray:
    import cv2

    drawn = picture.copy()
    for colour, stroke in ((SHADE_RGB, 3), (OUTLINE_RGB, 1)):
        cv2.polylines(drawn, list(outline), True, colour, stroke, cv2.LINE_AA)
    return drawn
