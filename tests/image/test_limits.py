"""Small files that unpack to gigabytes are refused by their heads."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from jpegs import encoded, scene
from PIL import Image

from edge_ad.errors import ConfigError, ImageError
from edge_ad.image.limits import DEFAULT_MEGAPIXELS, VARIABLE, check_size, limited_to, max_megapixels
from edge_ad.image.pictures import read_picture


def write_bomb(path: Path, width: int, height: int) -> None:
    """A grey PNG of any size and few bytes, whose rows are not even there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))))


@pytest.mark.parametrize("size", [(13_000, 13_000), (8200, 8200), (1, 200_000), (2_000_000_000, 2_000_000_000)])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.png"
    write_bomb(path, *size)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=r"bomb\.png: too large: .*scale it down"):
            read_picture(str(path))
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_a_jpeg_is_refused_by_its_head_too(tmp_path: Path) -> None:
    data = encoded(scene(0, (32, 32)))
    place = data.index(b"\xff\xc0") + 5
    (tmp_path / "a.jpg").write_bytes(data[:place] + struct.pack(">HH", 60_000, 60_000) + data[place + 4 :])
    with pytest.raises(ImageError, match="60000x60000 are 3600 megapixels, wanted 66 at most"):
        read_picture(str(tmp_path / "a.jpg"))


def test_sensors_and_line_scans_are_within_the_default() -> None:
    assert max_megapixels() == DEFAULT_MEGAPIXELS
    for size in [(9344, 7000), (4096, 3000), (2048, 32_000), (512, 100_000)]:
        check_size(*size)
    with pytest.raises(ImageError, match="no pixel"):
        check_size(0, 7)


def test_the_limit_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (2000, 1000), 9).save(tmp_path / "a.png")
    assert read_picture(str(tmp_path / "a.png")).shape == (1000, 2000, 3)
    with limited_to(1.9), pytest.raises(ImageError, match=r"wanted 1\.9 at most; .*--max-megapixels.*EDGE_AD_MAX"):
        read_picture(str(tmp_path / "a.png"))
    monkeypatch.setenv(VARIABLE, "0.5")
    with pytest.raises(ImageError, match=r"wanted 0\.5 at most"):
        read_picture(str(tmp_path / "a.png"))
    with limited_to(3.0):
        assert read_picture(str(tmp_path / "a.png")).shape == (1000, 2000, 3)
    with limited_to(None):
        assert max_megapixels() == 0.5
    for nonsense in ("many", "-3", "1e9", "nan"):
        monkeypatch.setenv(VARIABLE, nonsense)
        with pytest.raises(ConfigError, match="wanted a number of megapixels"):
            read_picture(str(tmp_path / "a.png"))


def test_pillows_own_limit_is_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (200, 100), 9).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert read_picture(str(tmp_path / "a.png")).shape == (100, 200, 3)
    assert Image.MAX_IMAGE_PIXELS == 50
