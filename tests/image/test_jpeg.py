"""JPEGs: good ones as Pillow reads them, and none whose coded data is missing."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jpegs import END, coded_from, damaged, encoded, scene
from PIL import Image

from edge_ad.errors import ImageError
from edge_ad.image import jpeg
from edge_ad.image.frame import ColorOrder
from edge_ad.image.jpeg import PADDING, decode_jpeg
from edge_ad.image.jpeg_marks import ZEROS, check_coded

WAYS: dict[str, dict[str, Any]] = {
    "as a camera writes": {"quality": 90},
    "fine": {"quality": 100, "subsampling": 0},
    "coarse, own tables": {"quality": 3, "optimize": True},
    "4:2:2": {"quality": 75, "subsampling": "4:2:2"},
    "restarts": {"quality": 85, "restart_marker_blocks": 3},
    "progressive": {"quality": 80, "progressive": True},
}


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def refusal(data: bytes) -> str | None:
    try:
        decode_jpeg(data)
    except ImageError as exc:
        return str(exc)
    return None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_good_pictures_are_read_as_pillow_reads_them(way: str, mode: str) -> None:
    for seed in range(3):
        data = encoded(scene(seed, (57 + 16 * seed, 93), mode), **WAYS[way])
        image, head = decode_jpeg(data)
        np.testing.assert_array_equal(image, by_pillow(data))
        assert (head.height, head.width) == image.shape[:2] and image.flags.owndata
        check_coded(data, head)
        np.testing.assert_array_equal(decode_jpeg(data, "bgr")[0], image[:, :, ::-1])


@pytest.mark.parametrize("way", [way for way in WAYS if way != "progressive"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_missing_data_is_found_wherever_it_is_missing(way: str, mode: str) -> None:
    """Pillow reads most of them without a word: that is what the check is for.

    Where bytes are missing, and what is left is taken for one picture to within the 8 bytes that a decoder reads ahead,
    nothing tells: a few of hundred at the highest quality, where a block takes 50 bytes.
    """
    silent, missed = 0, 0
    for seed in range(40):
        for kind, data in damaged(encoded(scene(seed, mode=mode), **WAYS[way]), seed):
            reason = refusal(data)
            if reason is None:
                assert kind == "block missing", f"seed {seed}"
                missed += 1
            else:
                assert "damaged" in reason or "cut off" in reason
            with suppress(OSError):
                by_pillow(data)
                silent += 1
    assert silent > 60
    assert missed <= (4 if way == "fine" else 0)


def test_missing_data_of_progressive_pictures_is_nearly_always_found() -> None:
    """A hole in a pass that makes the picture finer can be what an encoder writes; one kind of it is not found."""
    files = (encoded(scene(seed), progressive=True, quality=80) for seed in range(60))
    found = [refusal(data) is not None for seed, whole in enumerate(files) for _, data in damaged(whole, seed)]
    assert np.mean(found) > 0.9


def test_a_progressive_picture_that_lacks_its_last_passes_is_cut_off() -> None:
    whole = encoded(scene(1), progressive=True, quality=80)
    last = whole.rindex(b"\xff\xda")
    table = whole.rfind(b"\xff\xc4", 0, last)
    data = whole[: table if table > last - 200 else last] + END
    by_pillow(data)
    with pytest.raises(ImageError, match="passes of the JPEG are missing"):
        decode_jpeg(data)


@pytest.mark.parametrize("options", [{"optimize": True}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_zeros_that_an_encoder_writes_are_no_damage(options: dict[str, Any], mode: str, level: int) -> None:
    picture = Image.new(mode, (700, 500), level if mode == "L" else (level, level, level))
    picture.paste(scene(0, (64, 64), mode), (300, 200))
    data = encoded(picture, **options)
    assert data.find(ZEROS, coded_from(data)) > 0 or options != {"optimize": True}
    np.testing.assert_array_equal(decode_jpeg(data)[0], by_pillow(data))


def test_what_stands_around_the_coded_data_does_not_matter() -> None:
    plain = encoded(scene(2))
    want = by_pillow(plain)
    exif = Image.Exif()
    exif[0x010E] = "x" * 300 + "\0" * 40
    thumbnail = b"Exif\0\0II*\0" + bytes(60) + encoded(scene(3, (32, 32)))
    for data in (
        plain + bytes(5000),
        plain + b"trailer of a camera" * 50,
        plain + encoded(scene(4)),
        encoded(scene(2), exif=exif),
        encoded(scene(2), exif=thumbnail),
        encoded(scene(2), comment=bytes(200)),
        plain[: -len(END)] + bytes(PADDING) + END,
        plain[: -len(END)] + b"\xff" * 20 + END,
        encoded(scene(2), "MPO", save_all=True, append_images=[scene(5)]),
    ):
        np.testing.assert_array_equal(decode_jpeg(data)[0], want)
    with pytest.raises(ImageError, match="extraneous"):
        decode_jpeg(plain[: -len(END)] + b"\x01" * 100 + END)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_without_simplejpeg_the_markers_tell_most(monkeypatch: pytest.MonkeyPatch, order: ColorOrder) -> None:
    monkeypatch.setattr(jpeg, "_library", lambda: None)
    data = encoded(scene(6))
    want = by_pillow(data)
    np.testing.assert_array_equal(decode_jpeg(data, order)[0], want if order == "rgb" else want[:, :, ::-1])
    for kind, torn in damaged(data, 6):
        if kind not in ("cut off and closed", "block missing"):
            with pytest.raises(ImageError, match=r"zeros in place of coded data|no end"):
                decode_jpeg(torn, order)


def test_what_no_camera_writes_is_refused_in_time() -> None:
    whole = encoded(scene(7, (32, 32)), progressive=True)
    first, second = (whole.index(b"\xff\xda", start) for start in (0, whole.index(b"\xff\xda") + 2))
    with pytest.raises(ImageError, match="more than 200 passes"):
        decode_jpeg(whole[:second] + whole[first:second] * 300 + whole[second:])
    place = whole.index(b"\xff\xc2")
    with pytest.raises(ImageError, match="8 bits per channel, got a JPEG of 12"):
        decode_jpeg(whole[: place + 4] + b"\x0c" + whole[place + 5 :])
    for nothing in (b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xe0", whole[:30]):
        with pytest.raises(ImageError):
            decode_jpeg(nothing)


GOOD = [encoded(scene(8, (48, 64)), quality=60), encoded(scene(8, (48, 64)), progressive=True)]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8), st.data())
def test_any_bytes_are_a_picture_or_an_image_error(whole: bytes, spots: list[tuple[int, int]], data: Any) -> None:
    mutated = bytearray(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    for place, value in spots:
        if place < len(mutated):
            mutated[place] = value
    reason = refusal(bytes(mutated))
    if reason is not None:
        assert "\n" not in reason
    else:
        image, head = decode_jpeg(bytes(mutated))
        assert image.ndim == 3 and image.dtype == np.uint8
        check_coded(bytes(mutated), head)
