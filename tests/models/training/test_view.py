"""Which part of the pictures a training sees: all of it by default, whatever their sizes are, and it says so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.datasets import Sample
from edge_ad.image.pictures import picture_size, read_picture
from edge_ad.models import FAMILIES, model_family
from edge_ad.models.training.view import MOST_LOOKED_AT, sizes_of, view_line, whole_view

SIZE = (256, 256)
GRAPH_ALONE = PostprocessSpec(activation="none", score="reweighted", score_range=(0.0, None))


@pytest.mark.parametrize(
    ("sizes", "mode"),
    [
        ([(480, 640)], "stretch"),
        ([(480, 640), (960, 1280)], "stretch"),
        ([(480, 640), (480, 660)], "stretch"),
        ([(480, 640), (640, 480)], "letterbox"),
        ([(500, 1260), (500, 1000)], "letterbox"),
        ([], "stretch"),
    ],
)
def test_pictures_of_one_shape_are_stretched_and_others_padded(sizes: list[tuple[int, int]], mode: str) -> None:
    assert whole_view(Counter(sizes), PostprocessSpec()) == mode
    assert whole_view(Counter(sizes), GRAPH_ALONE) == "stretch"


def test_the_line_says_what_is_seen_and_how_large() -> None:
    sizes = Counter({(460, 1130): 5, (100, 246): 2})
    stretched = view_line(PreprocessSpec(*SIZE, resize_mode="stretch"), sizes)
    assert stretched == (
        "the model sees all of 1130x460, stretched to 256x256: one of its pixels is 4.4x1.8 of theirs, and a defect"
        " shows from about 9x4 of them on (2 model pixels); 2 of 7 pictures looked at have other sizes"
    )
    padded = view_line(PreprocessSpec(*SIZE, resize_mode="letterbox"), sizes)
    assert padded is not None and "padded to 256x256: one of its pixels is 4.4 of theirs" in padded
    cropped = view_line(PreprocessSpec(*SIZE, resize=256), sizes)
    assert cropped is not None and "sees x 334..796, y 0..460 of 1130x460, cropped" in cropped
    assert view_line(PreprocessSpec(*SIZE), Counter()) is None


def test_sizes_are_those_of_the_upright_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    for name, told in (
        ("a.png", {}),
        ("b.jpg", {}),
        ("c.jpg", {"exif": exif}),
        ("d.png", {"exif": exif}),
        ("e.tif", {}),
    ):
        picture.save(tmp_path / name, **told)
        assert picture_size(str(tmp_path / name)) == read_picture(str(tmp_path / name)).shape[:2], name
    assert picture_size(str(tmp_path / "c.jpg")) == (30, 20)
    (tmp_path / "f.png").write_bytes(b"no picture")
    samples = [Sample(path, "good") for path in sorted(tmp_path.iterdir())]
    assert sizes_of(samples) == Counter({(20, 30): 3, (30, 20): 2}), "what cannot be read is left to whoever reads it"
    assert sum(sizes_of(samples[:1] * (3 * MOST_LOOKED_AT)).values()) == MOST_LOOKED_AT


@pytest.mark.parametrize("name", FAMILIES)
def test_every_preset_but_the_published_ones_sees_the_whole_picture(name: str, tmp_path: Path) -> None:
    options = model_family(name).train_options
    needed = {key: str(tmp_path) for key in ("data", "output", "teacher") if key in options.__dataclass_fields__}
    for preset in options.presets:
        told = options.checked({**needed, "preset": preset}, "test")
        if preset == "paper":
            assert told.resize_mode != "auto"
            continue
        assert told.resize_mode == "auto" and told.resize is None
        assert told.seeing("letterbox").preprocess.resize_mode == "letterbox"
        kept = options.checked({**needed, "preset": preset, "resize_mode": "shorter_side_crop"}, "test")
        assert kept.seeing("stretch").preprocess.resize_mode == "shorter_side_crop"
    if options.__dataclass_fields__["resize_mode"].default == "shorter_side_crop":
        cropped = options.checked({**needed, "preset": "fast", "resize": 300}, "test")
        assert cropped.preprocess.resize == 300
