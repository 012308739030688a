"""Pictures are turned as viewers show them, whatever the format keeps the tag in."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from edge_ad.image.orientation import TAG, exif_orientation
from edge_ad.image.pictures import read_nonzero, read_picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_picture_and_a_mask_are_turned_as_pillow_turns_them(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[TAG] = orientation
    pixels = np.random.default_rng(0).integers(0, 2, (6, 10), dtype=np.uint8) * np.uint8(255)
    path = tmp_path / f"a.{suffix}"
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(suffix, {})
    Image.fromarray(pixels).convert("RGB").save(path, exif=exif, **options)
    with Image.open(path) as picture:
        want = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    assert want.shape == ((6, 10, 3) if orientation < 5 else (10, 6, 3))
    np.testing.assert_array_equal(read_picture(str(path)), want)
    np.testing.assert_array_equal(read_nonzero(str(path)), want.max(axis=2) > 127)


@pytest.mark.parametrize("order", "<>")
def test_the_tag_is_found_among_others(order: str) -> None:
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    entries = struct.pack(f"{order}HHIHH", 0x0100, 3, 1, 9, 0) + struct.pack(f"{order}HHIHH", TAG, 3, 1, 6, 0)
    assert exif_orientation(head + struct.pack(f"{order}H", 2) + entries) == 6
    assert exif_orientation(head + struct.pack(f"{order}H", 1) + entries) == 1


@given(st.binary(max_size=80), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_any_block_has_an_orientation(tail: bytes, head: bytes) -> None:
    assert 1 <= exif_orientation(head + tail) <= 8
