"""Defects that are drawn: where they lie, that the rest of a picture stays, and that a seed gives them again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.calibration.choose.defects import KINDS, Sources, draw_defect
from edge_ad.models.synthesis.textures import open_textures


def _picture(height: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ramp = np.linspace(30, 220, width)[None, :, None] + rng.normal(0, 4, (height, width, 3))
    return ramp.clip(0, 255).astype(np.uint8)


SOURCES = Sources([_picture(90, 120, 7), _picture(64, 64, 8)], open_textures(None))


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(KINDS)), st.integers(16, 200), st.integers(16, 200), st.integers(0, 999))
def test_a_defect_changes_its_place_and_little_else(kind: str, height: int, width: int, seed: int) -> None:
    image = _picture(height, width, seed)
    before = image.copy()
    drawn, mask = draw_defect(kind, image, SOURCES, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8 and mask.shape == (height, width)
    assert mask.any() and not mask.all()
    changed = np.abs(drawn.astype(int) - image).max(axis=2)
    assert changed[~mask].max(initial=0) <= 0.25 * 255 + 1, "what is not in the mask is covered by less than a quarter"
    again, _ = draw_defect(kind, image, SOURCES, np.random.default_rng(seed))
    np.testing.assert_array_equal(drawn, again)


@pytest.mark.parametrize("kind", ["line", "spot"])
def test_small_kinds_are_small_and_show(kind: str) -> None:
    shares, changes = [], []
    for seed in range(30):
        image = _picture(256, 256, seed)
        drawn, mask = draw_defect(kind, image, SOURCES, np.random.default_rng(seed))
        shares.append(mask.mean())
        changes.append(np.abs(drawn.astype(int) - image).max(axis=2)[mask].max())
    assert max(shares) < 0.02 and min(changes) >= 20


def test_kinds_differ_in_size() -> None:
    def share(kind: str) -> float:
        masks = [draw_defect(kind, _picture(256, 256, 1), SOURCES, np.random.default_rng(n))[1] for n in range(30)]
        return float(np.mean([mask.mean() for mask in masks]))

    assert share("patch") > 3 * share("spot")
