"""The object is found where there is one, and everything is foreground where there is none to tell apart."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.datasets import open_dataset, read_image
from edge_ad.image.preprocess import Preprocessor
from edge_ad.models.synthesis.foreground import foreground_mask, foreground_masks
from edge_ad.models.synthesis.procedural import coloured, grain, stripes, weave


def disc(side: int, radius: float, seed: int = 0, tilt: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A disc with a hole of the background's colour, on a noisy ground that may be lit unevenly; and its mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    mask = np.hypot(y, x) < radius
    image = np.full((side, side, 3), (90.0, 92.0, 88.0)) * (1 + tilt * y)[:, :, None]
    image[mask] = (190, 140, 80)
    image[np.hypot(y, x - 0.05) < radius / 4] = (90, 92, 88)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8), mask


def overlap(got: np.ndarray, want: np.ndarray) -> float:
    return float((got & want).sum() / (got | want).sum())


@pytest.mark.parametrize("side", [64, 256, 700])
@pytest.mark.parametrize("tilt", [0.0, 0.4])
def test_an_object_is_found_with_its_holes_filled(side: int, tilt: float) -> None:
    image, want = disc(side, 0.3, tilt=tilt)
    got = foreground_mask(image)
    assert got.found and got.mask.shape == (side, side) and got.mask.dtype == np.bool_
    assert got.mask[want].all()  # anomalies may touch the edge of the object
    assert overlap(got.mask, want) > (0.85 if side == 64 else 0.9)
    assert "differs from the border" in got.reason and not got.mask.all()


def test_dust_is_not_an_object() -> None:
    image, want = disc(256, 0.3)
    for corner in ((20, 20), (230, 30), (25, 225)):
        cv2.circle(image, corner, 4, (250, 250, 250), -1)
    assert overlap(foreground_mask(image).mask, want) > 0.9


@pytest.mark.parametrize("family", [grain, stripes, weave])
def test_a_texture_is_foreground_everywhere(family: object) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        image = coloured(family((128, 128), rng), rng)  # type: ignore[operator]
        got = foreground_mask(image)
        assert got.mask.all() and not got.found and got.reason.startswith("everything is foreground: ")


def test_one_colour_an_object_of_a_few_pixels_and_one_over_the_border_are_foreground_everywhere() -> None:
    assert foreground_mask(np.full((50, 80, 3), 127, np.uint8)).mask.all()
    assert not foreground_mask(disc(128, 0.06)[0]).found
    image = np.full((100, 100, 3), 60, np.uint8)
    image[:, 46:] = (200, 120, 90)
    assert not foreground_mask(image).found


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (17, 5)])
def test_any_size_gives_a_mask_that_is_not_empty(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    got = foreground_mask(image)
    assert got.mask.shape == shape and got.mask.any()


def test_a_set_is_decided_together() -> None:
    """Ten images: with the object in eight the other two stay open, with seven all are."""
    objects = [disc(96, 0.3, seed)[0] for seed in range(8)]
    blank = np.full((96, 96, 3), 90, np.uint8)
    eight = foreground_masks([*objects, blank, blank])
    assert [mask.found for mask in eight] == [True] * 8 + [False] * 2
    seven = foreground_masks([*objects[:7], blank, blank, blank])
    assert not any(mask.found for mask in seven) and all(mask.mask.all() for mask in seven)
    assert "in 7 of 10 images only" in seven[0].reason
    assert foreground_masks([]) == ()


@pytest.mark.parametrize(("name", "area"), [("cookies", (0.25, 0.6)), ("aliens", (0.25, 0.5))])
def test_the_photographs_show_objects(shared: Path, name: str, area: tuple[float, float]) -> None:
    resize = Preprocessor(PreprocessSpec(256, 256, "stretch"))
    dataset = open_dataset(shared / "data" / name)
    masks = foreground_masks([resize(read_image(sample)).image_hwc for sample in dataset.train])
    assert all(mask.found for mask in masks)
    areas = [mask.mask.mean() for mask in masks]
    assert area[0] < min(areas) and max(areas) < area[1]


def test_textures_on_disk_are_foreground_everywhere(shared: Path) -> None:
    images = [read_image(sample) for sample in open_dataset(shared / "data" / "textures").train[:60]]
    assert not any(mask.found for mask in foreground_masks(images))
