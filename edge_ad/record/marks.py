"""What of a map is said to be anomalous: its areas on the model's grid, and what of a mask in frame pixels counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.cells import counted_cells
from edge_ad.image.geometry import FrameGeometry
from edge_ad.image.least_area import Area, areas, least_cells
from edge_ad.record.decision import reaches


def anomalous_areas(values: NDArray[np.float32], geometry: FrameGeometry, threshold: float) -> list[Area]:
    """The connected areas of a map (h, w) that count, at or above a threshold, and have the least area of a defect."""
    rows, columns = values.shape
    cells = counted_cells((rows, columns), geometry)
    inside = np.zeros(values.shape, np.bool_)
    inside[cells.part] = reaches(values[cells.part], threshold)
    if cells.mask is not None:
        inside &= cells.mask
    return list(areas(inside, least_cells(values.shape, geometry))) if inside.any() else []


def leave_what_counts(
    mask_frame: NDArray[np.uint8], anomaly_map: NDArray[np.float32], geometry: FrameGeometry, threshold: float
) -> None:
    """Set to 0 what a mask in frame pixels marks beyond what is inspected, and what belongs to no area that counts.

    Args:
        mask_frame: (H, W) uint8 of the frame's size, changed in place.
        anomaly_map: (H, W) float32 at model size, of which the mask was made.
        threshold: that it was made with.
    """
    counted = geometry.counted_pixels()
    if counted is not None:
        mask_frame[~counted] = 0
    if least_cells(anomaly_map.shape, geometry) == 1 or not mask_frame.any():
        return
    kept = np.zeros(anomaly_map.shape, np.bool_)
    for area in anomalous_areas(anomaly_map, geometry, threshold):
        left, top, right, bottom = area.box
        kept[top:bottom, left:right] |= area.cells
    import cv2

    rows, columns = np.nonzero(mask_frame)
    (height, width), (x_0, y_0) = geometry.model_hw, geometry.region[:2]
    row = np.clip(((rows + 0.5 - y_0) / geometry.scale_y - geometry.top).astype(np.intp), 0, height - 1)
    column = np.clip(((columns + 0.5 - x_0) / geometry.scale_x - geometry.left).astype(np.intp), 0, width - 1)
    count, labels = cv2.connectedComponents(mask_frame, connectivity=8)
    large = np.zeros(count, np.bool_)
    of_pixels = labels[rows, columns]
    large[of_pixels[kept[row, column]]] = True
    small = ~large[of_pixels]
    mask_frame[rows[small], columns[small]] = 0
