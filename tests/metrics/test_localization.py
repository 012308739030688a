"""Pixel metrics against scikit-learn, and PRO against its definition written out."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from sklearn import metrics as oracle

from edge_ad.metrics.localization import PRO_LIMIT, PixelGroup, group_metrics, pixel_metrics

ATOL = 1e-6
Maps = NDArray[np.float32]
Masks = NDArray[np.uint8]


def pro_by_definition(maps: Maps, masks: Masks) -> float:
    """Every threshold in turn, in float64: mean overlap of the regions, rate over good pixels, area to the limit."""
    regions = []
    for index, mask in enumerate(masks):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [maps[index][labels == number].astype(np.float64) for number in range(1, count + 1)]
    good = maps[masks == 0].astype(np.float64)
    rates, overlaps = [0.0], [0.0]
    for level in np.unique(maps)[::-1]:
        rates.append(float(np.mean(good >= level)))
        overlaps.append(float(np.mean([np.mean(region >= level) for region in regions])))
    # Straight lines between the points; where several share a rate the curve rises, and goes on from the highest.
    grid = np.union1d(np.clip(rates, 0, PRO_LIMIT), [PRO_LIMIT])
    total = 0.0
    for left, right in pairwise(grid):
        start = max(y for x, y in zip(rates, overlaps, strict=True) if x <= left)
        behind = next(k for k, x in enumerate(rates) if x > left)
        slope = (overlaps[behind] - start) / (rates[behind] - left)
        total += (right - left) * (start + slope * (right - left) / 2)
    return total / PRO_LIMIT


def case(seed: int, shape: tuple[int, int, int], *, levels: int | None = None) -> tuple[Maps, Masks]:
    """Smooth random maps that know something of smooth random masks; the first image is good."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), (0, 1.5, 1.5))
    masks = (field > np.quantile(field, 0.9)).astype(np.uint8) * 255
    masks[0] = 0
    maps = field + rng.standard_normal(shape) * field.std()
    if levels is not None:
        maps = np.round(maps * levels / np.abs(maps).max())
    return maps.astype(np.float32), masks


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 2, 5, 30]))
def test_pixel_metrics_agree_with_oracles(seed: int, levels: int | None) -> None:
    maps, masks = case(seed, (3, 12, 14), levels=levels)
    found = pixel_metrics(maps, masks)
    truth = (masks > 0).ravel()
    assert found.auroc == pytest.approx(oracle.roc_auc_score(truth, maps.ravel()), abs=ATOL)
    assert found.average_precision == pytest.approx(oracle.average_precision_score(truth, maps.ravel()), abs=ATOL)
    assert found.pro == pytest.approx(pro_by_definition(maps, masks), abs=ATOL)
    assert (found.good_pixels, found.defective_pixels) == (int((~truth).sum()), int(truth.sum()))
    assert found.regions == sum(ndimage.label(mask, np.ones((3, 3)))[1] for mask in masks)


def test_regions_touch_at_corners() -> None:
    masks = np.zeros((1, 4, 4), np.uint8)
    masks[0, 1, 1] = masks[0, 2, 2] = 1
    assert pixel_metrics(masks.astype(np.float32), masks).regions == 1


def test_pro_weighs_regions_and_not_pixels() -> None:
    """One large and one small region; the small one is never found before all good pixels are called."""
    mask = np.zeros((40, 40), np.uint8)
    mask[2:22, 2:22] = 1
    mask[30, 30] = 1
    found = np.zeros((40, 40), np.float32)
    found[2:22, 2:22] = 1
    measured = pixel_metrics([found], [mask])
    # From (0, 0.5) the curve rises straight to (1, 1): at 0.3 it is 0.65.
    assert measured.pro == pytest.approx((0.5 + 0.65) / 2, abs=1e-12)
    assert measured.auroc == pytest.approx(400 / 401 + 0.5 / 401, abs=1e-12)


def test_perfect_and_useless_maps() -> None:
    _, masks = case(1, (4, 20, 20))
    perfect = pixel_metrics(masks.astype(np.float32), masks)
    assert (perfect.auroc, perfect.average_precision) == (1.0, 1.0)
    # One step from (0, 1) straight on: nothing is lost to the limit.
    assert perfect.pro == pytest.approx(1.0, abs=1e-12)
    flat = pixel_metrics(np.zeros(masks.shape, np.float32), masks)
    assert flat.auroc == 0.5
    assert flat.pro == pytest.approx(PRO_LIMIT / 2, abs=1e-12)
    assert flat.average_precision == pytest.approx(float((masks > 0).mean()), abs=1e-12)
    inverted = pixel_metrics(-masks.astype(np.float32), masks)
    assert inverted.auroc == 0.0
    assert inverted.pro == 0.0


def test_groups_together_are_all_their_images() -> None:
    maps, masks = case(3, (6, 16, 16), levels=20)
    groups = [PixelGroup(), PixelGroup()]
    for index, (one, mask) in enumerate(zip(maps, masks, strict=True)):
        groups[index % 2].add(one, mask)
    alone = group_metrics(groups[:1])
    assert alone == pixel_metrics(maps[::2], masks[::2])
    together, whole = group_metrics(groups), pixel_metrics(maps, masks)
    assert (together.auroc, together.average_precision) == (whole.auroc, whole.average_precision)
    assert together.pro == pytest.approx(whole.pro, abs=1e-12)
    groups[0].add(maps[1], masks[1])  # after it has been measured
    assert group_metrics(groups[:1]).good_pixels == alone.good_pixels + int((masks[1] == 0).sum())


@pytest.mark.parametrize(("value", "reason"), [(0, "no pixel of a mask is defective"), (1, "no pixel of an image is")])
def test_one_kind_of_pixel_defines_nothing(value: int, reason: str) -> None:
    found = pixel_metrics(np.zeros((2, 4, 4), np.float32), np.full((2, 4, 4), value, np.uint8))
    assert (found.auroc, found.average_precision, found.pro) == (None, None, None)
    assert found.undefined is not None and reason in found.undefined
    assert group_metrics([]).auroc is None


def test_maps_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(4, 5\)"):
        pixel_metrics([np.zeros((4, 4))], [np.zeros((4, 5))])
    with pytest.raises(ValueError, match="NaN"):
        pixel_metrics([np.full((4, 4), np.nan)], [np.zeros((4, 4))])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        pixel_metrics([np.zeros((4, 4))], [])


def test_memory_stays_near_that_of_the_scores() -> None:
    """Peak of measuring 60 maps of 128²: the float32 scores (4 bytes a pixel) and one copy while they are joined."""
    maps, masks = case(5, (4, 128, 128))
    group = PixelGroup()
    tracemalloc.start()
    for _ in range(15):
        for one, mask in zip(maps, masks, strict=True):
            group.add(one, mask)
    group_metrics([group])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    defective_bytes = 60 * 128 * 128 * 0.1 * 8 * 12
    assert peak_bytes < 60 * 128 * 128 * 4 * 2.2 + defective_bytes
