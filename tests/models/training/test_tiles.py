"""Training on tiles: which ones are chosen, what is refused, and that each is a picture of its own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_ad.bundle.consistency import MAX_SIDE
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.bundle.tiles import TileGrid
from edge_ad.datasets import open_dataset, plain_dataset
from edge_ad.errors import ConfigError
from edge_ad.models import FAMILIES, model_family
from edge_ad.models.glass.training.batches import Batches
from edge_ad.models.glass.training.options import GlassTrainOptions
from edge_ad.models.patchcore.training.options import PatchCoreTrainOptions
from edge_ad.models.synthesis.textures import ProceduralTextures
from edge_ad.models.training.labelled import LabelledPictures
from edge_ad.models.training.pictures import GoodPictures
from edge_ad.models.training.tiles import MOST_CHOSEN, chosen_tiles, too_large, with_view
from edge_ad.models.training.view import view_line

GRID = TileGrid(1, 2, 64, 64, 32)
CANVAS = PreprocessSpec(64, 96, resize_mode="stretch")
TILE = (256, 256)


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ([(576, 768)], None),
        ([(380, 550)], None),
        ([(500, 1260)], (1, 3)),
        ([(1000, 4000)], (1, 5)),
        ([(4000, 1000)], (5, 1)),
        ([(3000, 4000)], (3, 4)),
        ([(100, 300)], None),
        ([(480, 640), (640, 480)], None),
        ([], None),
    ],
)
def test_tiles_are_chosen_by_the_pictures(sizes: list[tuple[int, int]], wanted: tuple[int, int] | None) -> None:
    assert chosen_tiles(Counter(sizes), TILE, 32) == wanted


@pytest.mark.parametrize("size", [(2000, 6000), (1000, 12000), (100_000, 2048), (8000, 8000), (40, 12000)])
def test_however_large_the_pictures_the_tiles_stay_few(size: tuple[int, int]) -> None:
    tiles = chosen_tiles(Counter([size]), TILE, 32)
    assert tiles is not None and 2 <= tiles[0] * tiles[1] <= MOST_CHOSEN


@pytest.mark.parametrize("side", [512, 768, 1024])
def test_a_canvas_is_no_longer_than_a_model_input_may_be(side: int) -> None:
    tiles = chosen_tiles(Counter([(1000, 12000)]), (side, side), 32)
    assert tiles is not None and max(TileGrid(*tiles, side, side, 32).canvas_hw) <= MAX_SIDE


def test_what_is_chosen_is_never_what_is_refused() -> None:
    for size in [(100, 400), (250, 500), (380, 550), (120, 240), (300, 300)]:
        tiles = chosen_tiles(Counter([size]), TILE, 32)
        assert tiles is None or not too_large(TileGrid(*tiles, *TILE, 32), Counter([size]))


@pytest.mark.parametrize("tile_hw", [(32, 64), (32, 32), (16, 256)])
def test_a_model_no_larger_than_the_overlap_gets_no_tiles(tile_hw: tuple[int, int]) -> None:
    assert chosen_tiles(Counter([(1000, 4000)]), tile_hw, 32) is None
    assert chosen_tiles(Counter([(1000, 4000)]), TILE, 32) is not None, "control"


def test_tiles_that_would_only_enlarge_are_refused() -> None:
    sizes = Counter([(380, 550)])
    assert too_large(TileGrid(2, 2, *TILE, 32), sizes) == [], "in one direction there is more to see"
    (told,) = too_large(TileGrid(3, 3, *TILE, 32), sizes)
    assert told == (
        "tiles: 3x3 tiles of 256x256 that share 32 pixels make 704x704 pixels of pictures that have 550x380; at most"
        " 1x2 fit"
    )
    assert "one tile holds all of them" in too_large(TileGrid(1, 2, *TILE, 32), Counter([(100, 120)]))[0]


def test_the_line_says_tiles_cost_and_the_smallest_defect() -> None:
    grid = TileGrid(1, 5, *TILE, 32)
    spec = grid.canvas(PreprocessSpec(*TILE, resize_mode="stretch"))
    assert view_line(spec, Counter([(1000, 4000)]), grid) == (
        "the model sees all of 4000x1000, stretched to 1152x256, in 1x5 tiles of 256x256 that share 32 pixels, which"
        " takes about 5 times as long as one: one of its pixels is 3.5x3.9 of theirs, and a defect shows from about"
        " 7x8 of them on (2 model pixels)"
    )


def options(**values: Any) -> PatchCoreTrainOptions:
    family = model_family("patchcore")
    told = {"data": "d", "output": "o", "preset": "fast", **values}
    checked = family.train_options.checked(told, "test", family.size_faults, family.tile_faults)
    assert isinstance(checked, PatchCoreTrainOptions)
    return checked


@pytest.mark.parametrize("value", ["1x3", "1X3", [1, 3], (1, 3)])
def test_options_tell_the_canvas_and_what_exporting_takes(value: Any) -> None:
    told = options(tiles=value).seeing("stretch")
    assert told.grid == TileGrid(1, 3, *TILE, 32)
    assert told.preprocess.size_hw == (256, 704) and told.tile.size_hw == told.imgsz == TILE
    assert (told.export["imgsz"], told.export["tiles"], told.export["tile_overlap"]) == ([256, 256], [1, 3], 32)


@pytest.mark.parametrize("value", [None, "off", "1x1"])
def test_without_tiles_nothing_is_new(value: Any) -> None:
    told = options(tiles=value).seeing("stretch")
    assert told.grid is None and told.preprocess == told.tile and "tiles" not in told.export


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tiles": "3"}, "tiles: wanted auto, off, or rows and columns such as 1x3"),
        ({"tiles": "0x3"}, "tiles: wanted 1 to 256 tiles"),
        ({"tiles": "99x99"}, "tiles: wanted 1 to 256 tiles"),
        ({"tiles": "1x200"}, "wanted sides of at most 8192"),
        ({"tiles": "1x2", "tile_overlap": 40}, "tile_overlap: wanted a multiple of 32"),
        ({"tiles": "1x2", "tile_overlap": 256}, "tile_overlap: wanted less than a tile"),
        ({"tiles": "auto", "tile_overlap": 40}, "tile_overlap: wanted a multiple of 32"),
    ],
)
def test_what_is_refused_before_any_file_is_read(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        options(**values)


def test_families_say_whether_they_have_tiles(tmp_path: Path) -> None:
    needed = {"data": str(tmp_path), "output": str(tmp_path / "run"), "teacher": "t", "tiles": "1x2"}
    untiled = [name for name in FAMILIES if model_family(name).untiled is not None]
    assert untiled == ["cpr"]
    for name in FAMILIES:
        family = model_family(name)
        known = {key: value for key, value in needed.items() if key in family.train_options.__dataclass_fields__}

        def checked(family: Any = family, known: dict[str, str] = known, **more: Any) -> Any:
            return family.train_options.checked({**known, **more}, "t", family.size_faults, family.tile_faults)

        if name in untiled:
            with pytest.raises(ConfigError, match="tiles: family 'cpr' has none, for it compares whole pictures"):
                checked()
        else:
            assert checked().tile_overlap > 2 * family.border
    family = model_family("efficientad")
    known = {key: needed[key] for key in ("data", "output", "teacher", "tiles")}
    with pytest.raises(ConfigError, match="tile_overlap: family 'efficientad' wants 64 pixels or more, got 32"):
        family.train_options.checked({**known, "tile_overlap": 32}, "t", family.size_faults, family.tile_faults)


def test_the_view_is_chosen_once_and_kept_by_a_run_that_goes_on() -> None:
    said: list[str] = []
    sizes = Counter([(1000, 4000)])
    auto = with_view(options(tiles="auto"), sizes, None, None, said.append)
    assert auto.tiles == (1, 5) and auto.resize_mode == "stretch" and "1x5 tiles" in said[0] and len(said) == 1
    begun = {"tiles": [2, 2], "resize_mode": "letterbox"}
    again = with_view(options(tiles="auto"), sizes, None, begun, said.append)
    assert (again.tiles, again.resize_mode) == ((2, 2), "letterbox")
    whole = with_view(options(tiles="auto"), sizes, None, {"resize_mode": "stretch"}, said.append)
    assert whole.tiles == "off"
    said.clear()
    assert with_view(options(), sizes, None, None, said.append).tiles == "off"
    assert "--tiles auto takes 1x5 of them" in said[1]
    said.clear()
    assert with_view(options(tiles="auto"), sizes, "it sees all", None, said.append).tiles == "off" and len(said) == 1
    with pytest.raises(ConfigError, match=r"tiles: 8x22 tiles .* at most 4x17 fit"):
        with_view(options(tiles="8x22"), sizes, None, None, said.append)


@pytest.fixture
def long_pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    for index in range(3):
        (tmp_path / "good").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(tmp_path / "good" / f"{index}.png")
    return tmp_path / "good"


@pytest.mark.parametrize("cache_bytes", [1 << 30, 20_000, 1])
def test_each_tile_is_a_picture(long_pictures: Path, cache_bytes: int) -> None:
    samples = plain_dataset(long_pictures).train
    whole = GoodPictures(samples, CANVAS, "none", 1 << 30)
    tiles = GoodPictures(samples, CANVAS, "none", cache_bytes, tiles=GRID)
    assert (len(tiles), len(tiles.samples), tiles.different, tiles.notes) == (6, 3, 3, [])
    for index, tile in enumerate(tiles):
        left = 32 * (index % 2)
        assert np.array_equal(tile.image_hwc, whole[index // 2].image_hwc[:, left : left + 64])
    assert tiles.of_samples([0, 2]) == [0, 1, 4, 5]
    assert np.array_equal(tiles[5].image_hwc, whole[2].image_hwc[:, 32:]), "in any order"


def test_padding_of_the_canvas_is_no_foreground_of_a_tile(long_pictures: Path) -> None:
    spec = PreprocessSpec(64, 160, resize_mode="letterbox")
    (left, middle, *_) = GoodPictures(
        plain_dataset(long_pictures).train, spec, "none", 1 << 30, tiles=TileGrid(1, 4, 64, 64, 32)
    )
    assert left.foreground is not None and not left.foreground[:, :32].any() and left.foreground[:, 32:].all()
    assert middle.foreground is not None and middle.foreground.all()


def test_nothing_is_drawn_on_a_tile_beside_the_object(long_pictures: Path) -> None:
    spec, told = PreprocessSpec(64, 224, resize_mode="letterbox"), {"imgsz": (64, 64), "batch": 3, "overlay_share": 1}
    grid = TileGrid(1, 6, 64, 64, 32)
    pictures = GoodPictures(plain_dataset(long_pictures).train, spec, "none", 1 << 30, tiles=grid)
    empty = [index for index, each in enumerate(pictures) if each.foreground is not None and not each.foreground.any()]
    assert empty == [0, 5, 6, 11, 12, 17]
    glass = GlassTrainOptions(output=Path("run"), **told)
    batches = list(Batches(pictures, ProceduralTextures(), glass, (16, 16))(0))
    drawn = {batch.indices[each.place] for batch in batches for each in batch.overlaid}
    assert sorted({*drawn, *empty}) == list(range(18)) and not drawn & {*empty}


def test_labelled_pictures_are_ranked_whole(own_parts: Path) -> None:
    samples = open_dataset(own_parts).test
    rng = np.random.default_rng(1)
    canvas = [rng.random((8, 12), dtype=np.float32) for _ in samples]
    for kind in ("map_max", "patch_max"):
        spec = PostprocessSpec(score=kind)
        whole, tiled = LabelledPictures(samples, CANVAS, spec), LabelledPictures(samples, CANVAS, spec, GRID)
        assert len(tiled.images) == 2 * len(whole.images) == 2 * len(tiled)
        assert np.array_equal(tiled.images[3], whole.images[1][:, 32:])
        parts = [part for one in canvas for part in (one[:, :8], one[:, 4:])]
        assert tiled.ranked(parts) == whole.ranked(canvas)
