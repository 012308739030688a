"""The overlay in double precision, and whole anomalies: repeatable, on the foreground, nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_ad.errors import ConfigError
from edge_ad.models.synthesis.overlay import draw_beta, overlay
from edge_ad.models.synthesis.perlin import to_patches
from edge_ad.models.synthesis.sample import SyntheticAnomaly, synthesise
from edge_ad.models.synthesis.textures import FolderTextures, ProceduralTextures, TexturePool


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), beta=st.floats(0, 1), density=st.sampled_from([0.0, 0.3, 1.0]))
def test_overlay_is_the_papers_mix_to_half_a_level(seed: int, beta: float, density: float) -> None:
    rng = np.random.default_rng(seed)
    image, texture = rng.integers(0, 256, (2, 13, 17, 3), np.uint8)
    mask = rng.random((13, 17)) < density
    before = image.copy(), texture.copy()
    got = overlay(image, texture, mask, beta)
    m, x, t = mask[:, :, None].astype(np.float64), image.astype(np.float64), texture.astype(np.float64)
    want = x * (1 - m) + (1 - beta) * t * m + beta * x * m
    assert got.dtype == np.uint8
    assert np.abs(got - want).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(got[~mask], image[~mask])
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(texture, before[1])


def test_beta_at_its_ends_shows_the_image_or_the_texture() -> None:
    image, texture = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    everywhere = np.ones((8, 8), np.bool_)
    np.testing.assert_array_equal(overlay(image, texture, everywhere, 1.0), image)
    np.testing.assert_array_equal(overlay(image, texture, everywhere, 0.0), texture)


def test_mixing_levels_is_mixing_normalised_values() -> None:
    """The authors mix (x/255 − mean)/std; undone, that is within half a level of ours."""
    rng = np.random.default_rng(1)
    image, texture = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
    mask = rng.random((16, 16)) < 0.5
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x, t = ((levels / 255 - mean) / std for levels in (image, texture))
    m = mask[:, :, None]
    theirs = ((x * (1 - m) + 0.37 * x * m + 0.63 * t * m) * std + mean) * 255
    assert np.abs(overlay(image, texture, mask, 0.37) - theirs).max() <= 0.5 + 1e-4


def test_beta_is_a_clipped_normal() -> None:
    """4,000 draws: the mean's standard error is 0.0016, the deviation's 0.0011; five of them are allowed."""
    rng = np.random.default_rng(4)
    drawn = np.array([draw_beta(rng) for _ in range(4000)])
    assert abs(drawn.mean() - 0.5) < 0.008 and abs(drawn.std() - 0.1) < 0.006
    assert drawn.min() >= 0.2 and drawn.max() <= 0.8
    wide = np.array([draw_beta(rng, 0.5, 10.0) for _ in range(400)])
    assert set(wide[(wide == 0.2) | (wide == 0.8)]) == {0.2, 0.8} and (wide == 0.2).mean() > 0.3
    assert draw_beta(rng, 0.3, 0.0) == pytest.approx(0.3)


@pytest.fixture(params=["folder", "drawn"])
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> TexturePool:
    if request.param == "drawn":
        return ProceduralTextures()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (70, 90, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return FolderTextures(tmp_path)


IMAGE = np.random.default_rng(9).integers(0, 256, (64, 96, 3), np.uint8)


def make(pool: TexturePool, *key: int, foreground: np.ndarray | None = None) -> SyntheticAnomaly:
    return synthesise(IMAGE, foreground, pool, (8, 12), np.random.default_rng(key))


def test_sample_i_of_epoch_e_is_the_same_in_whatever_order(pool: TexturePool) -> None:
    keys = [(7, epoch, index) for epoch in range(3) for index in range(4)]
    forward = {key: make(pool, *key) for key in keys}
    backward = {key: make(pool, *key) for key in reversed(keys)}
    for key in keys:
        np.testing.assert_array_equal(forward[key].image_hwc, backward[key].image_hwc)
        np.testing.assert_array_equal(forward[key].mask.pixel, backward[key].mask.pixel)
        assert forward[key].beta == backward[key].beta
    assert len({sample.image_hwc.tobytes() for sample in forward.values()}) == len(keys)


def test_an_anomaly_changes_the_image_on_its_mask_only(pool: TexturePool) -> None:
    foreground = np.zeros((64, 96), np.bool_)
    foreground[8:56, 20:70] = True
    before = IMAGE.copy()
    changed = []
    for index in range(25):
        sample = make(pool, index, foreground=foreground)
        mask = sample.mask.pixel
        assert sample.image_hwc.shape == IMAGE.shape and sample.image_hwc.dtype == np.uint8
        np.testing.assert_array_equal(sample.image_hwc[~mask], IMAGE[~mask])
        assert not mask[~foreground].any() and mask.any()
        np.testing.assert_array_equal(sample.mask.patch, to_patches(mask, (8, 12)))
        assert 0.2 <= sample.beta <= 0.8
        # With β at most 0.8 a level moves by at least a fifth of its distance from the texture.
        changed.append(np.mean((sample.image_hwc[mask] != IMAGE[mask]).any(axis=1)))
    assert min(changed) > 0.9
    np.testing.assert_array_equal(IMAGE, before)


def test_faults_of_the_parts_are_passed_on() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="foreground mask: empty"):
        synthesise(IMAGE, np.zeros((64, 96), np.bool_), ProceduralTextures(), (8, 12), rng)
    with pytest.raises(ConfigError, match="wanted 0 to 9, got 12"):
        synthesise(IMAGE, None, ProceduralTextures(), (8, 12), rng, augmentations=12)
