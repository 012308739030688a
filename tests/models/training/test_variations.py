"""Variations of good pictures, against NumPy and SciPy, and that trainings see them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.bundle.tiles import TileGrid
from edge_ad.datasets import Sample, plain_dataset
from edge_ad.models.training.pictures import GoodPictures
from edge_ad.models.training.turned import angles_of, turn_between
from edge_ad.models.training.variations import ANY_ANGLE, FEW, Variation, Variations, copies_of

SPEC = PreprocessSpec(32, 32, resize_mode="stretch")


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width, 3)), (3, 3, 0))
    return (128 + 60 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)


def _arrow(angle: float, side: int = 120, at: tuple[int, int] = (0, 0)) -> np.ndarray:
    """A part that looks different at every angle, on plain ground with some noise."""
    picture = np.full((side, side, 3), 200, np.uint8)
    cv2.rectangle(picture, (52, 15), (68, 105), (60, 60, 60), -1)
    cv2.circle(picture, (60, 25), 20, (60, 60, 60), -1)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0)
    matrix[:, 2] += at
    turned = cv2.warpAffine(picture, matrix, (side, side), borderValue=(200, 200, 200))
    noise = np.random.default_rng(abs(int(angle))).integers(-6, 7, turned.shape)
    return (turned + noise).clip(0, 255).astype(np.uint8)


@given(st.integers(-4, 4), st.booleans(), st.booleans(), st.integers(0, 9))
def test_quarters_and_mirror_images_are_numpys(quarters: int, across: bool, down: bool, seed: int) -> None:
    image = _noise(24, 24, seed)
    wanted = image[:, ::-1] if across else image
    wanted = np.rot90(wanted[::-1] if down else wanted, quarters)
    np.testing.assert_array_equal(Variation(90 * quarters, across, down).of_picture(image), wanted)


def test_half_a_turn_of_a_long_picture_is_exact_and_a_quarter_keeps_its_size() -> None:
    image = _noise(20, 50)
    np.testing.assert_array_equal(Variation(180).of_picture(image), image[::-1, ::-1])
    assert Variation(90).of_picture(image).shape == image.shape


@pytest.mark.parametrize("angle", [17.0, 133.0, -60.0])
def test_any_other_angle_is_scipys_rotation_about_the_centre(angle: float) -> None:
    image = _noise(61, 45)
    wanted = np.stack(
        [ndimage.rotate(image[:, :, c].astype(float), angle, reshape=False, order=1, mode="reflect") for c in range(3)],
        axis=2,
    )
    got = Variation(angle).of_picture(image)
    inside = np.hypot(*np.mgrid[-30:31, -22:23]) < 21  # both borders mirror, each in its own way
    assert np.abs(got - wanted)[inside].max() <= 4  # OpenCV interpolates in 32nds of a pixel


def test_shift_and_light() -> None:
    image = _noise(40, 60)
    moved = Variation(shift_yx=(0.1, -0.05)).of_picture(image)  # 4 rows down, 3 columns to the left
    np.testing.assert_array_equal(moved[4:, :-3], image[:-4, 3:])
    brighter = Variation(gain=1.2).of_picture(image)
    np.testing.assert_array_equal(brighter, np.rint(image * np.float32(1.2)).clip(0, 255).astype(np.uint8))


def test_masks_move_with_their_pictures() -> None:
    mask = np.zeros((40, 40), bool)
    mask[5:15, 20:30] = True
    variation = Variation(30.0, True, False, (0.05, 0.0))
    painted = np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * np.uint8(255)
    differing = variation.of_mask(mask) != (variation.of_picture(painted)[:, :, 0] > 127)
    assert differing.mean() < 0.01  # nearest against half covered


@pytest.mark.parametrize(
    ("rotate", "flip", "shift", "pictures", "wanted"),
    [
        ("none", "none", 0, 100, 0),
        ("none", "both", 0, 100, 3),
        ("none", "across", 0, 100, 1),
        ("none", "none", 0.1, 100, FEW),
        ("90", "none", 0, 100, 3),
        ("any", "none", 0, 30, 9),
        ("any", "none", 0, 10, ANY_ANGLE),
        ("any", "none", 0, 50, 5),
        ("any", "none", 0, 320, FEW),
        ("any", "none", 0, 1000, 1),
        ("any", "none", 0, 5000, 0),
        ("any", "none", 0.1, 5000, 1),
    ],
)
def test_number_of_copies(rotate: str, flip: str, shift: float, pictures: int, wanted: int) -> None:
    assert copies_of(rotate, flip, shift, 0, pictures) == wanted


def test_drawn_variations_stay_in_bounds_and_are_the_same_again() -> None:
    variations = Variations("any", "both", 0.1, 0.2, copies=7, seed=3)
    drawn = [[variations.of(number, copy) for copy in range(1, 8)] for number in range(40)]
    assert drawn == [[variations.of(number, copy) for copy in range(1, 8)] for number in range(40)]
    flat = [one for ones in drawn for one in ones if one is not None]
    assert len(set(flat)) == len(flat) == 280
    assert all(0.8 <= one.gain <= 1.2 and max(map(abs, one.shift_yx)) <= 0.1 for one in flat)
    turns = np.sort([one.angle_deg % 360 for one in flat])
    assert np.diff(turns).max() < 30  # no gap but that around the picture's own angle
    assert variations.of(0, 0) is None


def test_mirror_images_alone_are_all_different() -> None:
    drawn = [Variations(flip="both", copies=3).of(0, copy) for copy in range(1, 4)]
    assert {(one.flip_across, one.flip_down) for one in drawn if one} == {(True, False), (False, True), (True, True)}


def _written(folder: Path, images: list[np.ndarray]) -> tuple[Sample, ...]:
    folder.mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number:02d}.png"), image[:, :, ::-1])
    return plain_dataset(folder, None, None).train


@pytest.mark.parametrize("cache_bytes", [10_000_000, 4 * 32 * 32 * 3, 0])
def test_pictures_come_with_their_variations_whatever_is_kept(tmp_path: Path, cache_bytes: int) -> None:
    images = [_noise(32, 32, seed) for seed in range(3)]
    samples = _written(tmp_path / "good", images)
    pictures = GoodPictures(samples, SPEC, "none", cache_bytes, variations=Variations("90", copies=3))
    assert len(pictures) == 12 and pictures.different == 3 and pictures.of_samples([1]) == [4, 5, 6, 7]
    for index, picture in enumerate(pictures):
        np.testing.assert_array_equal(picture.image_hwc, np.rot90(images[index // 4], index % 4))


def test_variations_are_cut_into_tiles(tmp_path: Path) -> None:
    image = _noise(64, 64)
    grid = TileGrid(2, 2, 48, 48, 32)
    pictures = GoodPictures(
        _written(tmp_path / "good", [image]),
        PreprocessSpec(64, 64, resize_mode="stretch"),
        "none",
        0,
        tiles=grid,
        variations=Variations("90", copies=3),
    )
    assert len(pictures) == 16
    np.testing.assert_array_equal(pictures[5].image_hwc, np.rot90(image)[:48, 16:64])


def test_angles_are_seen_in_the_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    upright = [_arrow(float(rng.uniform(-4, 4)), at=(int(rng.integers(-4, 5)), 2)) for _ in range(10)]
    anyhow = [_arrow(float(angle)) for angle in rng.uniform(0, 360, 10)]
    quarters = [_arrow(90.0 * int(turn)) for turn in rng.integers(0, 4, 12)]
    assert angles_of(_written(tmp_path / "upright", upright)) == "none"
    assert angles_of(_written(tmp_path / "any", anyhow)) == "any"
    assert angles_of(_written(tmp_path / "quarters", quarters)) == "90"
    assert angles_of(_written(tmp_path / "texture", [_noise(64, 64, seed) for seed in range(6)])) == "none"
    assert angles_of(_written(tmp_path / "one", upright[:1])) == "none"
    assert turn_between(np.full((9, 9), 3, np.uint8), np.full((9, 9), 3, np.uint8)) is None
