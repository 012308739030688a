"""Which points of a pair of pictures the loss looks at (section III-C, the authors' code)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edge_ad.image.operators import gaussian_matrix, resize_matrix
from edge_ad.models.cpr.training.loss import Points

FloatArray = NDArray[np.float32]
BLUR_SHARE = 1 / 25  # of the rows of a foreground, the standard deviation of its blur
TRUNCATE = 4.0  # SciPy's default


@dataclass(frozen=True)
class PairPoints:
    """Of one pair: pixels as (n, 2) x, y, as many of each kind as there are."""

    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    retrieved_negative: NDArray[np.int64]
    anomalous: NDArray[np.int64]


def likelihood(foreground: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """How likely a good place is looked at: a foreground (h, w), blurred, made steeper, at full size (H, W)."""
    rows, columns = (gaussian_matrix(side, foreground.shape[0] * BLUR_SHARE, TRUNCATE) for side in foreground.shape)
    steep = 1 / (1 + np.exp(5 - 10 * (rows @ foreground @ columns.T)))
    up, across = (resize_matrix(small, large) for small, large in zip(foreground.shape, size_hw, strict=True))
    return np.asarray(up @ steep @ across.T, np.float32)


def full_size(foreground: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """(h, w) → (H, W), bilinear."""
    up, across = (resize_matrix(small, large) for small, large in zip(foreground.shape, size_hw, strict=True))
    return np.asarray(up @ foreground @ across.T, np.float32)


def draw_points(
    mask: NDArray[np.bool_], weight: FloatArray | None, most: int, farther_than: float, rng: np.random.Generator
) -> PairPoints:
    """Draw the points of a pair.

    Args:
        mask: (H, W), where a defect was drawn.
        weight: (H, W), of good places; None for a texture, which looks alike everywhere: it has no negatives.
        most: points of each kind.
        farther_than: pixels between the two places of a negative.
    """
    good, bad = np.flatnonzero(~mask), np.flatnonzero(mask)
    shares = None
    if weight is not None and len(good):
        shares = weight.ravel()[good].astype(np.float64)
        shares /= shares.sum()
    places = rng.choice(good, min(len(good), 2 * most), replace=False, p=shares)
    width = mask.shape[1]
    positive, anomalous = _xy(places[:most], width), _xy(rng.permutation(bad)[:most], width)
    if weight is None:
        nowhere = np.zeros((0, 2), np.int64)
        return PairPoints(positive, nowhere, nowhere, anomalous)
    elsewhere, place = _xy(rng.choice(mask.size, len(places), replace=False), width), _xy(places, width)
    apart = np.linalg.norm(elsewhere - place, axis=1) > farther_than
    return PairPoints(positive, elsewhere[apart][:most], place[apart][:most], anomalous)


def least_distance(size_hw: tuple[int, int], grid_hw: tuple[int, int], window: int) -> float:
    """Pixels between two places that the search window of the first tap does not bring together."""
    return size_hw[0] / grid_hw[0] * (window // 2) * math.sqrt(2)


def batched(pairs: Sequence[PairPoints], most: int, size_hw: tuple[int, int]) -> Points:
    """Points of all pairs, filled up with points of weight 0."""
    found = {}
    for kind in ("positive", "negative", "retrieved_negative", "anomalous"):
        places, weight = np.zeros((len(pairs), most, 2), np.float32), np.zeros((len(pairs), most), np.float32)
        for number, pair in enumerate(pairs):
            each = getattr(pair, kind)
            places[number, : len(each)], weight[number, : len(each)] = each, 1
        last = np.array([size_hw[1] - 1, size_hw[0] - 1], np.float32)
        found[kind] = torch.from_numpy(places / np.maximum(last, 1) * 2 - 1), torch.from_numpy(weight)
    return Points(*found["positive"], found["negative"][0], *found["retrieved_negative"], *found["anomalous"])


def _xy(places: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    return np.stack([places % width, places // width], axis=1)
