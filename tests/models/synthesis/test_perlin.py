"""Perlin noise and masks, against a plain loop in double precision and what adaptive pooling is defined to be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import ConfigError
from edge_ad.models.synthesis import perlin
from edge_ad.models.synthesis.perlin import combined, perlin_mask, perlin_noise, thresholded_noise, to_patches


def slow_noise(shape_hw: tuple[int, int], cells_yx: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Perlin's definition: the four corners' gradients, dotted with the way to the pixel, faded into each other."""
    angles = rng.random((cells_yx[0] + 1, cells_yx[1] + 1), dtype=np.float32).astype(np.float64) * 2 * math.pi
    noise = np.zeros(shape_hw)
    for row in range(shape_hw[0]):
        for column in range(shape_hw[1]):
            y, x = row * cells_yx[0] / shape_hw[0], column * cells_yx[1] / shape_hw[1]
            cell_y, cell_x = math.floor(y), math.floor(x)
            total = 0.0
            for corner_y in (cell_y, cell_y + 1):
                for corner_x in (cell_x, cell_x + 1):
                    angle = angles[corner_y, corner_x]
                    dot = math.cos(angle) * (y - corner_y) + math.sin(angle) * (x - corner_x)
                    weight = 1.0
                    for way in (abs(y - corner_y), abs(x - corner_x)):
                        weight *= 1 - (6 * way**5 - 15 * way**4 + 10 * way**3)
                    total += weight * dot
            noise[row, column] = math.sqrt(2) * total
    return noise


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**32),
)
def test_noise_is_perlins_at_any_size(shape: tuple[int, int], cells: tuple[int, int], seed: int) -> None:
    got = perlin_noise(shape, cells, np.random.default_rng(seed))
    assert got.dtype == np.float32 and got.shape == shape
    np.testing.assert_allclose(got, slow_noise(shape, cells, np.random.default_rng(seed)), rtol=0, atol=2e-6)


def test_noise_stays_within_one_and_is_zero_at_corners() -> None:
    largest = 0.0
    for seed in range(50):
        noise = perlin_noise((96, 64), (8, 4), np.random.default_rng(seed))
        np.testing.assert_allclose(noise[::12, ::16], 0, atol=1e-6)
        largest = max(largest, float(np.abs(noise).max()))
    assert 0.8 < largest <= 1 + 1e-6


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    patches=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 2**32),
    density=st.sampled_from([0.0, 0.01, 0.1, 0.9]),
)
def test_patches_are_adaptive_max_pooling(
    shape: tuple[int, int], patches: tuple[int, int], seed: int, density: float
) -> None:
    mask = np.random.default_rng(seed).random(shape) < density
    want = torch.nn.functional.adaptive_max_pool2d(torch.from_numpy(mask)[None].float(), patches)[0].numpy() > 0
    got = to_patches(mask, patches)
    np.testing.assert_array_equal(got, want)
    assert got.any() == mask.any()


def test_where_patches_divide_the_size_they_are_the_authors_max_pooling() -> None:
    mask = np.random.default_rng(0).random((288, 288)) < 0.002
    want = torch.nn.functional.max_pool2d(torch.from_numpy(mask)[None].float(), (8, 8))[0].numpy() > 0
    np.testing.assert_array_equal(to_patches(mask, (36, 36)), want)


def test_combinations_come_in_thirds() -> None:
    """3,000 draws: each count is binomial with standard deviation 25.8; five of them are allowed."""
    first, second = np.array([[True, True, False, False]]), np.array([[True, False, True, False]])
    kinds = {"or": first | second, "and": first & second, "first": first}
    rng = np.random.default_rng(11)
    drawn = [combined(first, second, rng) for _ in range(3000)]
    counts = {kind: sum(np.array_equal(mask, want) for mask in drawn) for kind, want in kinds.items()}
    assert sum(counts.values()) == 3000
    assert all(abs(count - 1000) < 129 for count in counts.values()), counts


def test_noise_is_turned_by_all_angles_with_zeros_coming_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ones instead of noise, a thresholded mask is the turned square: its area tells the angle."""
    monkeypatch.setattr(perlin, "perlin_noise", lambda shape, cells, rng: np.ones(shape, np.float32))
    areas = np.array([thresholded_noise((65, 65), np.random.default_rng(seed)).mean() for seed in range(400)])
    # A square turned by a covers 1 − tan(a/2)·(1 − …) of itself: 2(√2 − 1) = 0.828 at 45°, 1 at 0° and 90°.
    assert areas.min() == pytest.approx(2 * (math.sqrt(2) - 1), abs=0.02)
    assert areas.max() > 0.98
    corner = sum(thresholded_noise((65, 65), np.random.default_rng(seed))[0, 0] for seed in range(100))
    assert corner < 10


def test_scales_are_powers_of_two_up_to_32_on_each_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 draws of each axis: every power is binomial, 500 ± 20.4; five standard deviations are allowed."""
    drawn: list[tuple[int, int]] = []

    def watched(shape: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        drawn.append(cells)
        return np.zeros(shape, np.float32)

    monkeypatch.setattr(perlin, "perlin_noise", watched)
    rng = np.random.default_rng(5)
    for _ in range(3000):
        thresholded_noise((4, 4), rng)
    for axis in (0, 1):
        values, counts = np.unique([cells[axis] for cells in drawn], return_counts=True)
        assert values.tolist() == [1, 2, 4, 8, 16, 32]
        assert np.abs(counts - 500).max() < 103
    assert len(set(drawn)) == 36


@pytest.mark.parametrize(("shape", "patches"), [((64, 64), (8, 8)), ((65, 97), (9, 13)), ((50, 30), (7, 7))])
def test_a_mask_has_an_anomalous_patch_and_stays_on_the_foreground(
    shape: tuple[int, int], patches: tuple[int, int]
) -> None:
    foreground = np.zeros(shape, np.bool_)
    foreground[10:30, 5:25] = True
    for seed in range(60):
        mask = perlin_mask(shape, patches, np.random.default_rng(seed), foreground)
        assert mask.pixel.dtype == mask.patch.dtype == np.bool_
        assert mask.pixel.shape == shape and mask.patch.shape == patches
        assert mask.pixel.any() and mask.patch.any()
        assert not mask.pixel[~foreground].any()
        np.testing.assert_array_equal(mask.patch, to_patches(mask.pixel, patches))


def test_the_same_generator_gives_the_same_mask_and_another_another() -> None:
    first, second = (perlin_mask((64, 64), (8, 8), np.random.default_rng([3, 1, 4])) for _ in range(2))
    np.testing.assert_array_equal(first.pixel, second.pixel)
    other = perlin_mask((64, 64), (8, 8), np.random.default_rng([3, 1, 5]))
    assert not np.array_equal(first.pixel, other.pixel)


def test_no_foreground_is_all_of_it() -> None:
    everywhere = np.ones((48, 48), np.bool_)
    first = perlin_mask((48, 48), (6, 6), np.random.default_rng(1), everywhere)
    np.testing.assert_array_equal(first.pixel, perlin_mask((48, 48), (6, 6), np.random.default_rng(1)).pixel)


@pytest.mark.parametrize("n_pixels", [1, 3, 40])
def test_a_tiny_foreground_still_gets_an_anomaly(n_pixels: int) -> None:
    """One pixel is hit by a few percent of the masks only; every draw has to end, inside of the foreground."""
    foreground = np.zeros((128, 128), np.bool_)
    foreground.flat[np.arange(n_pixels) * 397] = True
    for seed in range(20):
        mask = perlin_mask((128, 128), (16, 16), np.random.default_rng(seed), foreground)
        assert mask.pixel.any() and not mask.pixel[~foreground].any()


def test_when_no_mask_is_found_the_top_of_a_noise_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perlin, "THRESHOLD", 2.0)  # above any noise
    foreground = np.zeros((64, 64), np.bool_)
    foreground[:20, :50] = True
    for where in (None, foreground):
        mask = perlin_mask((64, 64), (8, 8), np.random.default_rng(0), where)
        inside = np.ones((64, 64), np.bool_) if where is None else where
        assert mask.patch.any() and not mask.pixel[~inside].any()
        assert mask.pixel[inside].mean() == pytest.approx(0.1, abs=0.02)


def test_an_empty_or_foreign_foreground_is_refused() -> None:
    with pytest.raises(ConfigError, match="foreground mask: empty, so no anomaly can lie in it"):
        perlin_mask((8, 8), (2, 2), np.random.default_rng(0), np.zeros((8, 8), np.bool_))
    with pytest.raises(ConfigError, match=r"wanted \(8, 8\) \(H, W\), got \(8, 9\)"):
        perlin_mask((8, 8), (2, 2), np.random.default_rng(0), np.ones((8, 9), np.bool_))
