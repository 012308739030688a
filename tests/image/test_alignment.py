"""A template is found where it lies, to the pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.inspection import Alignment
from edge_ad.errors import ImageError
from edge_ad.image.alignment import Template, grey_of

HW = (240, 320)


def scene(seed: int, dx: int = 0, dy: int = 0) -> np.ndarray:
    """Smooth noise (H, W, 3) that is moved as a whole; what comes in is other noise."""
    rng = np.random.default_rng(seed)
    large = cv2.GaussianBlur(rng.integers(0, 256, (HW[0] + 200, HW[1] + 200, 3), dtype=np.uint8), (0, 0), 3)
    large = cv2.normalize(large, None, 0, 255, cv2.NORM_MINMAX)
    return np.ascontiguousarray(large[100 - dy : 100 - dy + HW[0], 100 - dx : 100 - dx + HW[1]])


def template(image: np.ndarray, size: tuple[int, int] = (60, 90), **fields: object) -> Template:
    spec = Alignment("t.png", (120, 80), **fields)  # type: ignore[arg-type]
    return Template(grey_of(image[80 : 80 + size[0], 120 : 120 + size[1]]), spec, "t.png")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 20),
    dx=st.integers(-40, 40),
    dy=st.integers(-40, 40),
    size=st.sampled_from([(9, 30), (20, 20), (60, 90), (110, 150)]),
)
def test_whole_pixels_are_found_exactly(seed: int, dx: int, dy: int, size: tuple[int, int]) -> None:
    finds = template(scene(seed), size, reach_px=40)
    moved = scene(seed, dx, dy)
    found = finds.find(moved, "rgb")
    assert (found.dx, found.dy) == (dx, dy) and found.match > 0.999999
    backwards = finds.find(np.ascontiguousarray(moved[..., ::-1]), "bgr")
    assert backwards == found


@pytest.mark.parametrize("change", ["darker", "noise", "blurred"])
def test_light_noise_and_blur_move_it_by_nothing(change: str) -> None:
    moved = scene(3, 17, -23).astype(np.float64)
    if change == "darker":
        moved = moved * 0.4 + 20
    elif change == "noise":
        moved += np.random.default_rng(0).normal(0, 12, moved.shape)
    else:
        moved = cv2.GaussianBlur(moved, (0, 0), 2)
    found = template(scene(3)).find(np.clip(moved, 0, 255).astype(np.uint8), "rgb")
    assert (found.dx, found.dy) == (17, -23) and found.match > 0.8


def test_another_scene_and_one_of_one_colour_match_badly() -> None:
    finds = template(scene(1))
    assert finds.find(scene(2), "rgb").match < 0.5
    assert finds.find(np.full((*HW, 3), 128, np.uint8), "rgb").match <= 0.0


def test_it_is_not_looked_for_beyond_its_reach() -> None:
    assert (
        template(scene(1), reach_px=10).find(scene(1, 30, 0), "rgb").match < 0.9
    )  # smooth noise is like itself nearby
    assert template(scene(1), reach_px=30).find(scene(1, 30, 0), "rgb").dx == 30  # control


def test_what_cannot_be_found_is_refused() -> None:
    with pytest.raises(ImageError, match="nearly one grey level"):
        Template(np.full((20, 20), 7, np.uint8), Alignment("t.png", (0, 0)), "t.png")
    with pytest.raises(ImageError, match="2x20 pixels, wanted 8 each way"):
        Template(np.arange(40, dtype=np.uint8).reshape(20, 2), Alignment("t.png", (0, 0)), "t.png")
    with pytest.raises(ImageError, match=r"lies at x 120..210, y 80..140, outside of the 200x100 frame"):
        template(scene(1)).find(scene(1)[:100, :200], "rgb")
