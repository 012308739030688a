"""Where the model looks: sizes and offsets as torchvision's, boxes in frame pixels."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.specs import PreprocessSpec, ResizeMode
from edge_ad.image.geometry import FrameGeometry, place

SHORT = settings(max_examples=150, derandomize=True, deadline=None)
MODES: tuple[ResizeMode, ...] = ("shorter_side_crop", "stretch", "letterbox")
SIDES = st.integers(1, 700)


def _spec(mode: ResizeMode, height: int, width: int, resize: int | None = None) -> PreprocessSpec:
    return PreprocessSpec(height, width, resize_mode=mode, resize=resize if mode == "shorter_side_crop" else None)


def _exact_box(geometry: FrameGeometry, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """`to_frame` in rational arithmetic, where no product needs slack."""
    height, width = geometry.frame_hw
    scale_y, scale_x = Fraction(height, geometry.resized_hw[0]), Fraction(width, geometry.resized_hw[1])
    x_min, y_min, x_max, y_max = box
    return (
        max(0, math.floor((x_min + geometry.left) * scale_x)),
        max(0, math.floor((y_min + geometry.top) * scale_y)),
        min(width, math.ceil((x_max + geometry.left) * scale_x)),
        min(height, math.ceil((y_max + geometry.top) * scale_y)),
    )


def test_centre_crop_of_full_hd_sees_the_middle_square() -> None:
    geometry = place(PreprocessSpec(288, 288, resize=288), (1080, 1920))
    assert geometry.inspected_box == (420, 0, 1500, 1080)
    assert not geometry.covers_region


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("frame_hw", [(1080, 1920), (1920, 1080), (57, 33), (288, 288), (1, 9)])
def test_stretch_and_letterbox_see_the_whole_frame(mode: ResizeMode, frame_hw: tuple[int, int]) -> None:
    geometry = place(_spec(mode, 288, 288), frame_hw)
    assert geometry.covers_region
    assert geometry.inspected_box == (0, 0, frame_hw[1], frame_hw[0])


@SHORT
@given(height=SIDES, width=SIDES, shorter=st.integers(8, 300), crop=st.tuples(st.integers(8, 320), st.integers(8, 320)))
def test_crop_has_the_sizes_and_offsets_of_torchvision(
    height: int, width: int, shorter: int, crop: tuple[int, int]
) -> None:
    """Read off torchvision itself: its crop of an index ramp, without any resampling of values."""
    import numpy as np
    from torchvision.transforms.functional import _compute_resized_output_size, center_crop

    geometry = place(_spec("shorter_side_crop", *crop, resize=shorter), (height, width))
    assert list(geometry.resized_hw) == _compute_resized_output_size((height, width), [shorter])
    import torch

    rows = torch.arange(1, geometry.resized_hw[0] + 1, dtype=torch.int32)[None, :, None].expand(1, -1, 1)
    columns = torch.arange(1, geometry.resized_hw[1] + 1, dtype=torch.int32)[None, None, :].expand(1, 1, -1)
    for ramp, size, offset in (
        (rows, [crop[0], 1], geometry.top),
        (columns, [1, crop[1]], geometry.left),
    ):
        cropped = center_crop(ramp, size).flatten().numpy()
        expected = np.arange(len(cropped)) + offset + 1
        expected[(expected < 1) | (expected > ramp.numel())] = 0
        np.testing.assert_array_equal(cropped, expected)


@SHORT
@given(mode=st.sampled_from(MODES), frame=st.tuples(SIDES, SIDES), model=st.integers(8, 320), data=st.data())
def test_boxes_go_to_the_frame_rounded_outwards(
    mode: ResizeMode, frame: tuple[int, int], model: int, data: st.DataObject
) -> None:
    geometry = place(_spec(mode, model, model, resize=model), frame)
    low_x, low_y, high_x, high_y = geometry.content_box
    x_min = data.draw(st.integers(low_x, high_x - 1))
    y_min = data.draw(st.integers(low_y, high_y - 1))
    box = (x_min, y_min, data.draw(st.integers(x_min + 1, high_x)), data.draw(st.integers(y_min + 1, high_y)))
    got = geometry.to_frame(box)
    assert got == _exact_box(geometry, box)
    assert 0 <= got[0] < got[2] <= frame[1]
    assert 0 <= got[1] < got[3] <= frame[0]


@SHORT
@given(mode=st.sampled_from(MODES), frame=st.tuples(SIDES, SIDES), model=st.integers(8, 320), data=st.data())
def test_frame_boxes_survive_the_way_to_the_model_and_back(
    mode: ResizeMode, frame: tuple[int, int], model: int, data: st.DataObject
) -> None:
    """A frame box, rounded outwards onto the model grid and mapped back, still holds all of itself that was seen."""
    geometry = place(_spec(mode, model, model, resize=model), frame)
    x_low, y_low, x_high, y_high = geometry.inspected_box
    x_min, y_min = data.draw(st.integers(x_low, x_high - 1)), data.draw(st.integers(y_low, y_high - 1))
    x_max, y_max = data.draw(st.integers(x_min + 1, x_high)), data.draw(st.integers(y_min + 1, y_high))
    c_left, c_top, c_right, c_bottom = geometry.content_box
    on_model = (
        max(c_left, math.floor(Fraction(x_min * geometry.resized_hw[1], frame[1])) - geometry.left),
        max(c_top, math.floor(Fraction(y_min * geometry.resized_hw[0], frame[0])) - geometry.top),
        min(c_right, math.ceil(Fraction(x_max * geometry.resized_hw[1], frame[1])) - geometry.left),
        min(c_bottom, math.ceil(Fraction(y_max * geometry.resized_hw[0], frame[0])) - geometry.top),
    )
    back = geometry.to_frame(on_model)
    assert back[0] <= x_min
    assert back[1] <= y_min
    assert back[2] >= x_max
    assert back[3] >= y_max
    # And no looser than one model pixel on each side.
    reach_x, reach_y = math.ceil(geometry.scale_x) + 1, math.ceil(geometry.scale_y) + 1
    assert x_min - back[0] <= reach_x
    assert back[2] - x_max <= reach_x
    assert y_min - back[1] <= reach_y
    assert back[3] - y_max <= reach_y


@SHORT
@given(frame=st.tuples(SIDES, SIDES), model=st.tuples(st.integers(8, 320), st.integers(8, 320)))
def test_letterbox_is_centred_and_keeps_the_aspect(frame: tuple[int, int], model: tuple[int, int]) -> None:
    geometry = place(_spec("letterbox", *model), frame)
    x_min, y_min, x_max, y_max = geometry.content_box
    assert (y_max - y_min, x_max - x_min) == geometry.resized_hw
    assert x_max - x_min == model[1] or y_max - y_min == model[0]  # it touches two opposite sides
    assert abs(x_min - (model[1] - x_max)) <= 1
    assert abs(y_min - (model[0] - y_max)) <= 1
    # Each side is the ideal one rounded to whole pixels (at least one).
    scale = min(model[0] / frame[0], model[1] / frame[1])
    assert abs(geometry.resized_hw[0] - max(1, frame[0] * scale)) <= 0.5 + 1e-9
    assert abs(geometry.resized_hw[1] - max(1, frame[1] * scale)) <= 0.5 + 1e-9


def test_a_crop_larger_than_the_resized_frame_is_padded_on_both_sides() -> None:
    geometry = place(_spec("shorter_side_crop", 64, 64, resize=48), (100, 100))
    assert geometry.content_box == (8, 8, 56, 56)
    assert geometry.covers_region


@given(st.sampled_from(MODES), SIDES, SIDES, st.floats(1, 20), st.data())
@SHORT
def test_a_reduced_frame_shows_the_same(
    mode: ResizeMode, height: int, width: int, factor: float, data: st.DataObject
) -> None:
    spec = _spec(mode, 64, 48)
    geometry = place(spec, (height, width))
    if data.draw(st.booleans()):
        around = (height + data.draw(st.integers(0, 50)), width + data.draw(st.integers(0, 50)))
        x, y = (
            data.draw(st.integers(0, outer - inner)) for outer, inner in zip(around[::-1], (width, height), strict=True)
        )
        geometry = geometry.within(around, (x, y, x + width, y + height))
    small = geometry.reduced(factor)
    x_min, y_min, x_max, y_max = small.inspected_box
    assert 0 <= x_min < x_max <= small.frame_hw[1] and 0 <= y_min < y_max <= small.frame_hw[0]
    for edge, whole in zip(small.inspected_box, geometry.inspected_box, strict=True):
        assert edge == pytest.approx(whole / factor, abs=2.5)
    assert geometry.reduced(1.0) == geometry
