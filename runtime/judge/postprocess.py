"""Maps → decision: threshold, regions in frame coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PostprocessSpec, Thresholds
from edge_ad.engine import Outputs
from edge_ad.image.cells import counted_cells
from edge_ad.image.frame import Box
from edge_ad.image.geometry import FrameGeometry
from edge_ad.image.least_area import least_cells
from edge_ad.image.operators import ResizeSmooth
from edge_ad.record.decision import reaches
from edge_ad.record.marks import anomalous_areas
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
    """Connected areas at or above a threshold that count, highest peak first.

    The areas are found on the model grid, where scores are defined, and mapped to the frame. Where no pixel of the
    smoothed map reaches the threshold (possible when the score is taken on the patch map), the one region is the patch
    with the highest value.

    Args:
        anomaly_map: (H, W) float32 at model size.
        patch_map: (h, w) float32.
        pixel_threshold: from which value on a pixel is anomalous.
    """
    load_cv2()  # silenced, before the areas are looked for
    regions = []
    for area in anomalous_areas(anomaly_map, geometry, pixel_threshold):
        left, top, right, bottom = area.box
        values = np.where(area.cells, anomaly_map[top:bottom, left:right], -np.inf)
        row, column = divmod(int(values.argmax()), right - left)
        peak_score = float(values[row, column])
        regions.append(_region(area.box, area.count, (left + column, top + row), peak_score, geometry))
    if not regions:
        regions = _patch_regions(patch_map, geometry, pixel_threshold)
    return tuple(sorted(regions, key=lambda region: -region.peak_score))


def _patch_regions(patch_map: NDArray[np.float32], geometry: FrameGeometry, threshold: float) -> list[Region]:
    """The patch with the highest value; where a defect has a least area, that of each area of patches that has it."""
    rows, columns = patch_map.shape
    found = []
    if least_cells(patch_map.shape, geometry) > 1:
        found = [(area.box, area.cells) for area in anomalous_areas(patch_map, geometry, threshold)]
    whole = (0, 0, columns, rows), counted_cells((rows, columns), geometry).whole(patch_map.shape)
    regions = []
    for (left, top, right, bottom), cells in found or [whole]:
        values = np.where(cells, patch_map[top:bottom, left:right], -np.inf)
        row, column = divmod(int(values.argmax()), right - left)
        row, column, peak_score = row + top, column + left, float(values[row, column])
        peak = _cell_box((column, row, column + 1, row + 1), (rows, columns), geometry)
        box = _cell_box((left, top, right, bottom), (rows, columns), geometry) if found else peak
        area = (box[2] - box[0]) * (box[3] - box[1]) * cells.sum() // cells.size if found else _area(peak)
        centre = ((peak[0] + peak[2] - 1) // 2, (peak[1] + peak[3] - 1) // 2)
        regions.append(_region(box, int(area), centre, peak_score, geometry))
    return regions


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _cell_box(box: Box, patch_hw: tuple[int, int], geometry: FrameGeometry) -> Box:
    """A box of patches in model pixels, without padding."""
    left, top, right, bottom = box
    (rows, columns), (height, width) = patch_hw, geometry.model_hw
    x_low, y_low, x_high, y_high = geometry.content_box
    return (
        max(x_low, left * width // columns),
        max(y_low, top * height // rows),
        min(x_high, -(-right * width // columns)),
        min(y_high, -(-bottom * height // rows)),
    )


def _region(
    box: tuple[int, int, int, int], area: int, peak: tuple[int, int], peak_score: float, geometry: FrameGeometry
) -> Region:
    box_xyxy = geometry.to_frame(box)
    return Region(
        box_xyxy=box_xyxy,
        area_px=max(1, round(area * geometry.scale_x * geometry.scale_y)),
        peak_xy=_counted_centre(geometry.to_frame((peak[0], peak[1], peak[0] + 1, peak[1] + 1)), geometry),
        peak_score=peak_score,
    )


def _counted_centre(box: Box, geometry: FrameGeometry) -> tuple[int, int]:
    """The pixel in the middle of a box of the frame; where that does not count, the nearest in the box that does."""
    x_min, y_min, x_max, y_max = box
    x, y = (x_min + x_max - 1) // 2, (y_min + y_max - 1) // 2
    counted = geometry.counted_in(box)
    if counted is None or not counted.any() or counted[y - y_min, x - x_min]:
        return x, y
    rows, columns = np.nonzero(counted)
    nearest = int(((rows + y_min - y) ** 2 + (columns + x_min - x) ** 2).argmin())
    return int(columns[nearest]) + x_min, int(rows[nearest]) + y_min
