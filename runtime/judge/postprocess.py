"""Maps → decision: threshold, regions in frame coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PostprocessSpec, Thresholds
from edge_ad.engine import Outputs
from edge_ad.image.geometry import FrameGeometry
from edge_ad.image.operators import ResizeSmooth
from edge_ad.image.padding import shown_part
from edge_ad.record.decision import reaches
from edge_ad.record.verdict import Region, VerdictLabel
from edge_ad.runtime.host.opencv import load_cv2


def decide(score: float, thresholds: Thresholds) -> VerdictLabel | None:
    """`anomalous` from the threshold on, `normal` below it, None without a threshold."""
    if thresholds.image is None:
        return None
    return "anomalous" if reaches(score, thresholds.image) else "normal"


def smoothing_error(outputs: Outputs, postprocess: PostprocessSpec) -> float:
    """Largest difference between anomaly maps and what smoothing makes of the patch maps beside them.

    0 of a family whose anomaly maps are no smoothing of its patch maps.
    """
    if postprocess.frame_map == "anomaly_map":
        return 0.0
    patch_hw, size_hw = outputs.patch_map.shape[1:], outputs.anomaly_map.shape[1:]
    smooth = ResizeSmooth(patch_hw, size_hw, postprocess)
    return float(np.abs(smooth(outputs.patch_map) - outputs.anomaly_map).max())


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
    mask = np.zeros(anomaly_map.shape, np.uint8)
    shown = shown_part(anomaly_map.shape, geometry)
    mask[shown] = reaches(anomaly_map[shown], pixel_threshold)
    if not mask.any():
        return _peak_patch(patch_map, geometry)
    count, labels, stats, _ = load_cv2().connectedComponentsWithStats(mask, connectivity=8)
    regions = []
    for index in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[index])
        inside = labels[top : top + height, left : left + width] == index
        values = np.where(inside, anomaly_map[top : top + height, left : left + width], -np.inf)
        row, column = divmod(int(values.argmax()), width)
        box = (left, top, left + width, top + height)
        regions.append(_region(box, area, (left + column, top + row), float(values[row, column]), geometry))
    return tuple(sorted(regions, key=lambda region: -region.peak_score))


def _peak_patch(patch_map: NDArray[np.float32], geometry: FrameGeometry) -> tuple[Region, ...]:
    rows, columns = patch_map.shape
    shown = shown_part(patch_map.shape, geometry)
    best = np.unravel_index(patch_map[shown].argmax(), patch_map[shown].shape)
    row, column = shown[0].start + int(best[0]), shown[1].start + int(best[1])
    x_low, y_low, x_high, y_high = geometry.content_box
    x_min, x_max = (max(x_low, min(x, x_high)) for x in _cell(column, columns, geometry.model_hw[1]))
    y_min, y_max = (max(y_low, min(y, y_high)) for y in _cell(row, rows, geometry.model_hw[0]))
    centre = ((x_min + x_max - 1) // 2, (y_min + y_max - 1) // 2)
    area = (x_max - x_min) * (y_max - y_min)
    return (_region((x_min, y_min, x_max, y_max), area, centre, float(patch_map[row, column]), geometry),)


def _cell(index: int, count: int, length: int) -> tuple[int, int]:
    """First pixel of patch `index` of `count` on an axis of `length` pixels, and the one behind its last."""
    return index * length // count, -(-(index + 1) * length // count)


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
