"""What a model says of padding counts nowhere: maps and scores over the part of its canvas that shows the frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.image.geometry import FrameGeometry
from edge_ad.image.operators import ResizeSmooth
from edge_ad.image.scores import score_of


def without_padding(
    patch_map: NDArray[np.float32],
    anomaly_map: NDArray[np.float32],
    geometry: FrameGeometry,
    postprocess: PostprocessSpec,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both maps as if the padding looked like the edge of the frame, so that what the model says of it counts nowhere.

    Patches that show only padding take the value of the nearest one that shows the frame, and the anomaly map is
    smoothed anew from that. Returns: (h, w) and (H, W) float32.
    """
    if geometry.is_filled or postprocess.frame_map == "anomaly_map":
        return patch_map, anomaly_map
    rows, columns = shown_part(patch_map.shape, geometry)
    height, width = patch_map.shape
    around = ((rows.start, height - rows.stop), (columns.start, width - columns.stop))
    continued = np.pad(patch_map[rows, columns], around, mode="edge")
    smooth = ResizeSmooth((height, width), geometry.model_hw, postprocess)
    return continued, smooth(continued)


def frame_score(
    patch_map: NDArray[np.float32],
    anomaly_map: NDArray[np.float32],
    pred_score: float,
    geometry: FrameGeometry,
    postprocess: PostprocessSpec,
) -> float:
    """The score over the part of the model's canvas that shows the frame.

    It is taken here, of the very values that regions and masks are made of, and not where the engine took it: the two
    may differ by rounding (`Engine.infer` allows no more), and a score has to agree with its mask.

    Args:
        pred_score: what the graph says, which counts where the score is taken from no map.
    """
    patches = patch_map[shown_part(patch_map.shape, geometry)]
    pixels = anomaly_map[shown_part(anomaly_map.shape, geometry)]
    found = score_of(patches[None], pixels[None], postprocess)
    return pred_score if found is None else float(found[0])


def shown_part(map_hw: tuple[int, ...], geometry: FrameGeometry) -> tuple[slice, slice]:
    """Rows and columns that show some of the frame, of a map of `map_hw` cells over the model's canvas."""
    (rows, columns), (height, width) = map_hw, geometry.model_hw
    x_min, y_min, x_max, y_max = geometry.content_box
    return (
        slice(y_min * rows // height, -(-y_max * rows // height)),
        slice(x_min * columns // width, -(-x_max * columns // width)),
    )
