"""What a model says of what does not count changes nothing: maps and scores over the cells that do.

That is the padding of its canvas, what an inspection masks out, and what lies beyond the frame where a part has moved.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.image.cells import counted_cells, nearest_counted
from edge_ad.image.geometry import FrameGeometry
from edge_ad.image.least_area import highest_level, least_cells
from edge_ad.image.operators import ResizeSmooth
from edge_ad.image.scores import score_of


def without_padding(
    patch_map: NDArray[np.float32],
    anomaly_map: NDArray[np.float32],
    geometry: FrameGeometry,
    postprocess: PostprocessSpec,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both maps as if what does not count looked like the nearest that does, so that what is said of it counts nowhere.

    Patches that do not count take the value of the nearest one that does, and the anomaly map is smoothed anew from
    that. Returns: (h, w) and (H, W) float32.
    """
    if geometry.is_all or postprocess.frame_map == "anomaly_map":
        return patch_map, anomaly_map
    height, width = patch_map.shape
    continued = patch_map.ravel()[nearest_counted((height, width), geometry)]
    smooth = ResizeSmooth((height, width), geometry.model_hw, postprocess)
    return continued, smooth(continued)


def frame_score(
    patch_map: NDArray[np.float32],
    anomaly_map: NDArray[np.float32],
    pred_score: float,
    geometry: FrameGeometry,
    postprocess: PostprocessSpec,
) -> float:
    """The score over the cells that count; where a defect has a least area, the highest level that such an area has.

    It is taken here, of the very values that regions and masks are made of, and not where the engine took it: the two
    may differ by rounding (`Engine.infer` allows no more), and a score has to agree with its mask.

    Args:
        pred_score: what the graph says, which counts where the score is taken from no map.

    Raises: ImageError when nothing that is inspected has the least area of a defect.
    """
    scored = anomaly_map if postprocess.scored_map == "anomaly_map" else patch_map
    least = least_cells(scored.shape, geometry)
    if least > 1 and postprocess.scored_map is not None and postprocess.top_pixels is None:
        return highest_level(scored, counted_cells(_hw(scored), geometry), least)
    patches = counted_cells(_hw(patch_map), geometry).values(patch_map)
    pixels = counted_cells(_hw(anomaly_map), geometry).values(anomaly_map)
    found = score_of(patches[None], pixels[None], postprocess)
    return pred_score if found is None else float(found[0])


def _hw(array: NDArray[np.float32]) -> tuple[int, int]:
    return array.shape[0], array.shape[1]
