"""Pictures of reports: their size, what heat looks like, and what the model does not see."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from edge_ad.calibration.evaluation.drawing import heat_colours, heat_picture, jpeg, small_picture


@pytest.mark.parametrize(
    ("shape", "small"),
    [((1080, 1920), (225, 400)), ((800, 400), (400, 200)), ((30, 40), (30, 40)), ((2, 4000), (1, 400))],
)
def test_pictures_have_at_most_400_pixels_a_side(shape: tuple[int, int], small: tuple[int, int]) -> None:
    assert small_picture(np.zeros((*shape, 3), np.uint8)).shape == (*small, 3)


def test_heat_is_that_of_the_colour_map_and_nothing_below_the_scale() -> None:
    grey = np.full((4, 6, 3), 100, np.uint8)
    values = np.zeros((4, 6), np.float32)
    values[:, 3:] = 2
    drawn = heat_picture(grey, values, (0.0, 2.0), (0, 0, 6, 4))
    assert (drawn[:, :3] == 100).all()
    full = 0.4 * 100 + 0.6 * 255 * np.array(colormaps["turbo"](1.0)[:3])
    np.testing.assert_allclose(drawn[:, 3:], np.broadcast_to(full, (4, 3, 3)), atol=1)


def test_what_the_model_does_not_see_is_darkened_and_never_hot() -> None:
    grey = np.full((10, 20, 3), 200, np.uint8)
    hot = np.ones((100, 200), np.float32)
    drawn = heat_picture(grey, hot, (0.0, 1.0), (50, 0, 150, 100))
    assert (drawn[:, :5] == 70).all() and (drawn[:, 15:] == 70).all()
    assert (drawn[:, 5:15] != 70).any(axis=2).all()


def test_legend_and_file() -> None:
    colours = heat_colours(3)
    assert len(colours) == 3
    assert colours[0] == "#30123b"  # turbo's first colour
    picture = np.full((8, 8, 3), 77, np.uint8)
    read = np.asarray(Image.open(io.BytesIO(jpeg(picture))))
    np.testing.assert_allclose(read, picture, atol=1)
