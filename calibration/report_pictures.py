"""Pictures of the report: the images that the threshold gets most wrong, each beside its anomaly map."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.evaluate import ImageResult, Judge
from edge_ad.calibration.figures import Figures
from edge_ad.datasets import read_image, read_mask
from edge_ad.errors import ImageError
from edge_ad.frame import ImageArray

MAX_SIDE = 400  # pixels of a picture in the report
OPACITY = 0.6
OUTLINE_RGB, SHADE_RGB, UNSEEN = (255, 255, 255), (0, 0, 0), 0.35
JPEG_QUALITY = 85

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
    found += [(result, "missed") for score, result in bad if score < threshold][:limit]
    found += [(result, "false alarm") for score, result in good if score >= threshold][:limit]
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
        height, width = _fitted(image)
        small = _resized(image, (height, width))
        values = _resized_map(verdict.anomaly_map_frame, (height, width))
        outline = _outline(mask, (height, width))
        box = [round(edge * width / image.shape[1]) for edge in verdict.maps.geometry.inspected_box]
        overlay = _heated(small, values, heat)
        unseen = np.ones((height, width), bool)
        unseen[box[1] : box[3], box[0] : box[2]] = False
        overlay[unseen] = (small[unseen] * UNSEEN).astype(np.uint8)
        pictures = [_jpeg(_outlined(picture, outline)) for picture in (small, overlay)]
        drawn.append(Mistake(result, kind, pictures[0], pictures[1], bool(mask.any())))
    return drawn


def heat_colours(count: int) -> list[str]:
    """Colours from no heat to full heat, for a legend."""
    from matplotlib import colors

    return [colors.to_hex(colour) for colour in _turbo(np.linspace(0, 1, count))]


def _heated(picture: ImageArray, values: NDArray[np.float32], heat: tuple[float, float]) -> ImageArray:
    share = np.clip((values - heat[0]) / (heat[1] - heat[0]), 0, 1)
    opacity = (OPACITY * np.minimum(1, 2 * share))[..., None]  # what reaches the threshold is drawn in full
    blended = picture * (1 - opacity) + 255 * _turbo(share)[..., :3] * opacity
    return np.asarray(blended, dtype=np.uint8)


def _turbo(share: NDArray[np.floating]) -> NDArray[np.float64]:
    from matplotlib import colormaps

    return np.asarray(colormaps["turbo"](share), dtype=np.float64)


def _fitted(image: ImageArray) -> tuple[int, int]:
    scale = min(1.0, MAX_SIDE / max(image.shape[:2]))
    return max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))


def _resized(image: ImageArray, hw: tuple[int, int]) -> ImageArray:
    from PIL import Image

    resized = Image.fromarray(image).resize((hw[1], hw[0]), Image.Resampling.BILINEAR)
    return np.array(resized, dtype=np.uint8)


def _resized_map(values: NDArray[np.float32], hw: tuple[int, int]) -> NDArray[np.float32]:
    from PIL import Image

    resized = Image.fromarray(np.ascontiguousarray(values)).resize((hw[1], hw[0]), Image.Resampling.BILINEAR)
    return np.array(resized, dtype=np.float32)


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


def _jpeg(picture: ImageArray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
