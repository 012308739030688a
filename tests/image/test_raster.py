"""One rule for everything that can be in a picture file: applied, refused, or said."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jpegs import encoded, scene
from PIL import Image, ImageCms

from edge_ad.errors import ImageError
from edge_ad.image import pillow_rgb, raster
from edge_ad.image.notices import CMYK, FURTHER, PROFILE, QUARTER, TRANSPARENT, TURNED, noticing
from edge_ad.image.orientation import TAG
from edge_ad.image.pictures import read_nonzero, read_picture

RAMP = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)


def write_tiff(path: Path, pixels: np.ndarray, *, photometric: int, more: tuple[tuple[int, int], ...] = ()) -> Path:
    """Grey pixels of 8 or 16 bits as they are given, with tags that Pillow does not write."""
    height, width = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    tags = {256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height}
    tags |= {279: len(data), **dict(more)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    path.write_bytes(
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + directory + bytes(4)
    )
    return path


def said_of(*paths: Path) -> list[str]:
    said: list[str] = []
    with noticing(said.append):
        for path in paths:
            read_picture(str(path))
    return said


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_as_zero_is_the_same_picture(tmp_path: Path, dtype: type) -> None:
    full = np.iinfo(dtype).max
    stored = (RAMP // (65535 // full)).astype(dtype)
    black_zero = write_tiff(tmp_path / "b.tif", stored, photometric=1)
    white_zero = write_tiff(tmp_path / "w.tif", (full - stored).astype(dtype), photometric=0)
    want = read_picture(str(black_zero))
    assert len(np.unique(want)) == 256
    np.testing.assert_array_equal(read_picture(str(white_zero)), want)
    np.testing.assert_array_equal(read_nonzero(str(white_zero)), stored != 0)
    np.testing.assert_array_equal(read_nonzero(str(black_zero)), stored != 0)


def test_a_pillow_that_inverts_16_bits_itself_is_not_inverted_back(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "w.tif", RAMP, photometric=0)
    with Image.open(path) as picture:
        assert (np.asarray(picture)[0, 1] != RAMP[0, 1]) == raster._pillow_inverts()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_12_bit_data_in_16_bits_is_refused_and_14_bits_are_said(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RAMP >> 4).save(path)
    with pytest.raises(ImageError, match=r"brightest uses 4095 of 65535: 12-bit data"):
        read_picture(str(path))
    assert read_nonzero(str(path)).sum() == 255  # a mask has no white
    Image.fromarray(RAMP >> 2).save(path)
    assert said_of(path) == [f"note: {path}: {QUARTER}"]
    Image.fromarray(RAMP).save(path)
    assert said_of(path) == []
    Image.fromarray(0 * RAMP).save(path)
    assert not read_picture(str(path)).any()  # a black frame is judged by the rule for black frames


def test_12_bit_colour_in_16_bits_is_refused(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for suffix in ("png", "tif"):
        path = tmp_path / f"a.{suffix}"
        cv2.imwrite(str(path), np.dstack([RAMP >> 4] * 3))
        with pytest.raises(ImageError, match="12-bit data"):
            read_picture(str(path))
        cv2.imwrite(str(path), np.dstack([RAMP] * 3))
        assert read_picture(str(path)).max() == 255
    Image.fromarray(np.full((4, 4, 3), 9, np.uint8)).save(tmp_path / "dark.png")  # 8 bits may be dark
    assert read_picture(str(tmp_path / "dark.png")).max() == 9


def test_a_tiff_that_names_its_white_is_scaled_to_it(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", RAMP >> 4, photometric=1, more=((281, 4095),))
    np.testing.assert_allclose(read_picture(str(path))[:, :, 0], RAMP / 257, atol=1)


@pytest.mark.parametrize("form", ["TIFF", "GIF", "WEBP", "PNG"])
def test_several_pages_or_frames_are_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form.lower()}"
    scene(0, (32, 32)).save(path, form, save_all=True, append_images=[scene(1, (32, 32)), scene(2, (32, 32))])
    for read in (read_picture, read_nonzero):
        with pytest.raises(ImageError, match=r"wanted one picture, got 3 \(pages"):
            read(str(path))
    scene(0, (32, 32)).save(path, form, save_all=True)
    assert read_picture(str(path)).shape == (32, 32, 3)


def test_previews_are_no_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    preview = scene(1, (16, 16))
    preview.encoderinfo = {"tiffinfo": {254: 1}}  # type: ignore[attr-defined]
    scene(0, (32, 32)).save(path, save_all=True, append_images=[preview])
    with Image.open(path) as picture:
        assert picture.n_frames == 2  # type: ignore[attr-defined]
    np.testing.assert_array_equal(read_picture(str(path)), np.asarray(scene(0, (32, 32))))


WHERE = np.zeros((20, 30), bool)
WHERE[5:12, 8:20] = True


def layer(rgb: int, alpha: np.ndarray = WHERE) -> Image.Image:
    return Image.fromarray(np.dstack([np.full((20, 30, 3), rgb, np.uint8), (alpha * 255).astype(np.uint8)]))


def indexed() -> Image.Image:
    picture = Image.fromarray(WHERE.astype(np.uint8))
    picture.putpalette([255, 255, 255, 255, 255, 255])
    picture.info["transparency"] = 0
    return picture


@pytest.mark.parametrize(
    "picture",
    [layer(255), layer(0), layer(255).convert("LA"), layer(7), indexed()],
    ids=["white paint", "black paint", "grey", "dark paint", "palette"],
)
def test_what_is_painted_on_a_transparent_mask_is_defective(tmp_path: Path, picture: Image.Image) -> None:
    picture.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_nonzero(str(tmp_path / "m.png")), WHERE)


def test_an_opaque_alpha_says_nothing(tmp_path: Path) -> None:
    pixels = np.dstack([np.repeat((WHERE * 255)[:, :, None], 3, axis=2), np.full(WHERE.shape, 255)]).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_nonzero(str(tmp_path / "m.png")), WHERE)


def test_a_mask_that_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    mixed = np.asarray(layer(255)).copy()
    mixed[5:8, 8:12, :3] = 0
    Image.fromarray(mixed).save(tmp_path / "m.png")
    with pytest.raises(ImageError, match=r"m\.png: a mask with transparent, black and coloured pixels"):
        read_nonzero(str(tmp_path / "m.png"))
    layer(255, 0 * WHERE).save(tmp_path / "m.png")
    with pytest.raises(ImageError, match="transparent everywhere"):
        read_nonzero(str(tmp_path / "m.png"))


def test_what_is_applied_or_left_out_is_said_once_and_counted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[TAG] = 3
    foreign = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    usual = bytes(foreign)
    for name in (b"sRGB", "sRGB".encode("utf-16-be")):
        foreign[:] = foreign.replace(name, name.replace(b"s", b"x"))
    picture = scene(0, (32, 32))
    made: dict[str, tuple[str, dict[str, Any]]] = {
        TURNED: ("a.jpg", {"exif": exif}),
        FURTHER: ("b.mpo.jpg", {"format": "MPO", "save_all": True, "append_images": [picture]}),
        PROFILE: ("c.png", {"icc_profile": bytes(foreign)}),
    }
    for what, (name, options) in made.items():
        picture.save(tmp_path / name, **options)
        assert said_of(tmp_path / name) == [f"note: {tmp_path / name}: {what}"]
    picture.convert("CMYK").save(tmp_path / "d.jpg")
    assert said_of(tmp_path / "d.jpg", tmp_path / "d.jpg") == [f"note: {tmp_path / 'd.jpg'}: {CMYK}"]
    layer(9).save(tmp_path / "e.png")
    layer(9).save(tmp_path / "f.png")
    first, count = said_of(tmp_path / "e.png", tmp_path / "f.png")
    assert first == f"note: {tmp_path / 'e.png'}: {TRANSPARENT}" and count == f"note: {TRANSPARENT}: 2 pictures"
    picture.save(tmp_path / "g.jpg", icc_profile=usual)
    layer(9, 1 - WHERE * 0).save(tmp_path / "h.png")
    assert said_of(tmp_path / "g.jpg", tmp_path / "h.png") == []


@pytest.mark.parametrize("form", ["WEBP", "AVIF", "JPEG2000"])
def test_zeros_in_place_of_coded_data_are_found(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.bin"
    try:
        whole = encoded(scene(0, (320, 320)), form)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow has no {form}")
    path.write_bytes(whole)
    assert read_picture(str(path)).shape == (320, 320, 3)
    half = len(whole) // 2
    path.write_bytes(whole[:half] + bytes(len(whole) - half))
    with pytest.raises(ImageError, match=r"zeros in place of coded data|cannot be decoded"):
        read_picture(str(path))


@pytest.mark.parametrize("form", ["WEBP", "AVIF", "JPEG2000"])
def test_flat_pictures_are_no_zeros(tmp_path: Path, form: str) -> None:
    try:
        Image.new("RGB", (1500, 1500), (0, 0, 0)).save(tmp_path / "a.bin", form)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow has no {form}")
    assert not read_picture(str(tmp_path / "a.bin")).any()


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "jpeg", "tiff_lzw"])
def test_a_hole_in_a_tiff_is_found(tmp_path: Path, compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tif"
    whole = encoded(scene(0, (320, 320)), "TIFF", compression=compression)
    path.write_bytes(whole)
    assert read_picture(str(path)).shape == (320, 320, 3)
    for seed in range(10):
        at = len(whole) // 5 + seed * len(whole) // 20
        path.write_bytes(whole[:at] + bytes(700) + whole[at + 700 :])
        with pytest.raises(ImageError, match=r"damaged|cannot be decoded|cut off|not a picture|without a picture"):
            read_picture(str(path))
    assert capfd.readouterr().out == ""  # libtiff prints to standard error what Pillow does not pass on


def test_a_large_picture_is_converted_as_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = {"p.png": scene(3).quantize(50), "a.png": layer(200), "g.tif": Image.fromarray(RAMP), "r.bmp": scene(4)}
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
    want = {name: read_picture(str(tmp_path / name)) for name in pictures}
    monkeypatch.setattr(pillow_rgb, "STRIP_BYTES", 1000)
    for name in pictures:
        np.testing.assert_array_equal(read_picture(str(tmp_path / name)), want[name])


def test_a_format_that_runs_a_program_is_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with Image.open(path) as picture:
        assert picture.format == "EPS"
    with pytest.raises(ImageError, match="not a picture"):
        read_picture(str(path))
