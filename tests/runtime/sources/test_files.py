"""Pictures from disk: exactly what training sees, and no file that stops the others."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from edge_ad.image.frame import Frame
from edge_ad.runtime.sources import open_source


def read_all(uri: Path | str) -> list[Frame]:
    frames = []
    with open_source(str(uri)) as source:
        while (frame := source.read()) is not None:
            frames.append(frame)
        assert source.read() is None
    assert source.length == len(frames)
    assert not source.live
    return frames


def read_one(path: Path) -> np.ndarray:
    (frame,) = read_all(path)
    assert frame.error is None
    assert frame.path == str(path)
    assert frame.color_order == "rgb"
    assert frame.image_hwc is not None and frame.image_hwc.dtype == np.uint8
    frame.image_hwc[0, 0] = frame.image_hwc[0, 0]  # owned, hence writable
    return frame.image_hwc


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.BMP", "a.tif", "a.webp", "a.ppm"])
def test_a_picture_is_what_the_training_transform_reads(tmp_path: Path, photo: Image.Image, name: str) -> None:
    photo.save(tmp_path / name)
    with Image.open(tmp_path / name) as picture:
        np.testing.assert_array_equal(read_one(tmp_path / name), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    deep = np.array([[0, 128, 129, 257], [32768, 40000, 65406, 65535]], np.uint16)
    if name.endswith("pgm"):
        (tmp_path / name).write_bytes(b"P5\n4 2\n65535\n" + deep.astype(">u2").tobytes())
    else:
        Image.fromarray(deep).save(tmp_path / name)
    want = np.floor(deep / 257 + 0.5).astype(np.uint8)
    assert want.max() == 255 and len(np.unique(want)) > 4
    image = read_one(tmp_path / name)
    for channel in range(3):
        np.testing.assert_array_equal(image[:, :, channel], want)


def write_grey_tiff(path: Path, order: str, bits: int, width: int, pixels: bytes) -> None:
    """One row of grey pixels; `order` is ">" or "<"."""
    pixels += bytes(len(pixels) % 2)
    tags = [(256, 4, width), (257, 4, 1), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, 1)]
    tags.append((279, 4, len(pixels)))
    directory = b"".join(
        struct.pack(f"{order}HHIHH", tag, kind, 1, value, 0)
        if kind == 3
        else struct.pack(f"{order}HHII", tag, kind, 1, value)
        for tag, kind, value in tags
    )
    magic = b"MM\0*" if order == ">" else b"II*\0"
    head = magic + struct.pack(f"{order}I", 8 + len(pixels))
    path.write_bytes(head + pixels + struct.pack(f"{order}H", len(tags)) + directory + bytes(4))


def test_16_bit_big_endian_tiff_is_scaled(tmp_path: Path) -> None:
    path = tmp_path / "big.tif"
    write_grey_tiff(path, ">", 16, 4, struct.pack(">4H", 0, 257 * 100, 257 * 200, 65535))
    with Image.open(path) as picture:
        assert picture.mode == "I;16B"
    assert read_one(path)[0, :, 0].tolist() == [0, 100, 200, 255]


def test_12_bit_tiff_of_an_industrial_camera_keeps_its_white(tmp_path: Path) -> None:
    path = tmp_path / "packed.tif"
    write_grey_tiff(path, "<", 12, 4, bytes.fromhex("000 800 400 fff".replace(" ", "")))
    assert read_one(path)[0, :, 0].tolist() == [0, 128, 64, 255]


@pytest.mark.parametrize(("dtype", "word"), [(np.float32, "floating-point"), (np.int32, "32-bit")])
def test_pixels_without_a_defined_white_are_refused(tmp_path: Path, dtype: type, word: str) -> None:
    Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "strange.tif")
    (frame,) = read_all(tmp_path / "strange.tif")
    assert frame.image_hwc is None and frame.error is not None
    assert word in frame.error and "strange.tif" in frame.error


def test_16_bit_colour_keeps_its_brightness(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((4, 4, 3), (10000, 30000, 50000), np.uint16))
    np.testing.assert_allclose(read_one(tmp_path / "deep.png")[0, 0], [50000 / 257, 30000 / 257, 10000 / 257], atol=1)


def test_alpha_palette_cmyk_and_grey_become_rgb(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 3), (10, 20, 30, 0)).save(tmp_path / "0.png")
    palette = Image.new("P", (3, 3), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.save(tmp_path / "1.png", transparency=b"\x00\x01")
    Image.new("CMYK", (3, 3), (0, 0, 0, 0)).save(tmp_path / "2.jpg")
    Image.new("LA", (3, 3), (77, 0)).save(tmp_path / "3.png")
    Image.new("1", (3, 3), 1).save(tmp_path / "4.png")
    pixels = [frame.image_hwc[0, 0].tolist() for frame in read_all(tmp_path) if frame.image_hwc is not None]
    assert pixels == [[10, 20, 30], [9, 8, 7], [255, 255, 255], [77, 77, 77], [255, 255, 255]]


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(
    tmp_path: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo.save(tmp_path / "0.png")
    whole = (tmp_path / "0.png").read_bytes()
    (tmp_path / "1_cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2_garbage.jpg").write_bytes(b"not a picture" * 50)
    (tmp_path / "3_empty.png").write_bytes(b"")
    photo.resize((200, 200)).save(tmp_path / "4_bomb.png")
    photo.save(tmp_path / "5_secret.png")
    photo.save(tmp_path / "6_gone.png")
    photo.save(tmp_path / "7.png")
    monkeypatch.setenv("EDGE_AD_MAX_MEGAPIXELS", "0.005")
    really_open = Image.open

    def open_but_one(path: str, **options: Any) -> Image.Image:
        if path.endswith("secret.png"):
            raise PermissionError(13, "Permission denied", path)
        return really_open(path, **options)

    monkeypatch.setattr(Image, "open", open_but_one)
    with open_source(str(tmp_path)) as source:
        (tmp_path / "6_gone.png").unlink()
        frames = [source.read() for _ in range(8)]
        assert source.read() is None
    errors = [frame.error for frame in frames if frame is not None]
    assert [frame.frame_id for frame in frames if frame is not None] == list(range(8))
    assert errors[0] is None and errors[7] is None
    reasons = ["cannot be decoded", "not a picture", "is empty", "too large", "permission denied", "is gone"]
    names = ["1_cut.png", "2_garbage.jpg", "3_empty.png", "4_bomb.png", "5_secret.png", "6_gone.png"]
    for error, reason, name in zip(errors[1:7], reasons, names, strict=True):
        assert error is not None and "\n" not in error
        assert reason in error and name in error
    assert all(frame.image_hwc is None for frame in frames[1:7] if frame is not None)


def test_warnings_of_pillow_do_not_leak(tmp_path: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    photo.save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(tmp_path / "large.png").close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_one(tmp_path / "large.png")
    assert caught == []
