"""Maps → decision: threshold, regions in frame coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.geometry import FrameGeometry
from edge_ad.runtime.opencv import load_cv2
from edge_ad.specs import Thresholds
from edge_ad.verdict import Region, VerdictLabel


def decide(score: float, thresholds: Thresholds) -> VerdictLabel | None:
    """`anomalous` from the threshold on, `normal` below it, None without a threshold."""
    if thresholds.image is None:
        return None
    return "anomalous" if score >= thresholds.image else "normal"


def find_regions(
    anomaly_map: NDArray[np.float32], patch_map: NDArray[np.float32], geometry: FrameGeometry, pixel_threshold: float
) -> tuple[Region, ...]:
    """Connected areas at or above a threshold, highest peak first.

    The areas are found on the model grid, where scores are defined, and mapped to the frame. Where no pixel of the
    smoothed map reaches the threshold (possible when the score is taken on the patch map), the one region is the patch
    with the highest value.

    Args:
        anomaly_map: (H, W) float32 at model size.
        patch_map: (h, w) float32.
        pixel_threshold: from which value on a pixel is anomalous.
    """
    content = _content_only(anomaly_map, geometry)
    mask = (content >= pixel_threshold).astype(np.uint8)
    if not mask.any():
        return _peak_patch(patch_map, geometry)
    count, labels, stats, _ = load_cv2().connectedComponentsWithStats(mask, connectivity=8)
    regions = []
    for index in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[index])
        inside = labels[top : top + height, left : left + width] == index
        values = np.where(inside, content[top : top + height, left : left + width], -np.inf)
        row, column = divmod(int(values.argmax()), width)
        box = (left, top, left + width, top + height)
        regions.append(_region(box, area, (left + column, top + row), float(values[row, column]), geometry))
    return tuple(sorted(regions, key=lambda region: -region.peak_score))


def _content_only(anomaly_map: NDArray[np.float32], geometry: FrameGeometry) -> NDArray[np.float32]:
    """The map with padding (letterbox) taken out of the running: no defect lies outside of the frame."""
    x_min, y_min, x_max, y_max = geometry.content_box
    if (x_max - x_min, y_max - y_min) == (anomaly_map.shape[1], anomaly_map.shape[0]):
        return anomaly_map
    content = np.full_like(anomaly_map, -np.inf)
    content[y_min:y_max, x_min:x_max] = anomaly_map[y_min:y_max, x_min:x_max]
    return content


def _peak_patch(patch_map: NDArray[np.float32], geometry: FrameGeometry) -> tuple[Region, ...]:
    rows, columns = patch_map.shape
    height, width = geometry.model_hw
    row, column = divmod(int(patch_map.argmax()), columns)
    x_low, y_low, x_high, y_high = geometry.content_box
    x_min, x_max = column * width // columns, -(-(column + 1) * width // columns)
    y_min, y_max = row * height // rows, -(-(row + 1) * height // rows)
    x_min, x_max = sorted((min(max(x_min, x_low), x_high - 1), min(max(x_max, x_low + 1), x_high)))
    y_min, y_max = sorted((min(max(y_min, y_low), y_high - 1), min(max(y_max, y_low + 1), y_high)))
    centre = ((x_min + x_max) // 2, (y_min + y_max) // 2)
    box = (x_min, y_min, x_max, y_max)
    return (_region(box, (x_max - x_min) * (y_max - y_min), centre, float(patch_map[row, column]), geometry),)


def _region(
    box: tuple[int, int, int, int], area: int, peak: tuple[int, int], peak_score: float, geometry: FrameGeometry
) -> Region:
    box_xyxy = geometry.to_frame(box)
    x_min, y_min, x_max, y_max = geometry.to_frame((peak[0], peak[1], peak[0] + 1, peak[1] + 1))
    return Region(
        box_xyxy=box_xyxy,
        area_px=max(1, round(area * geometry.scale_x * geometry.scale_y)),
        peak_xy=((x_min + x_max - 1) // 2, (y_min + y_max - 1) // 2),
        peak_score=peak_score,
    )
