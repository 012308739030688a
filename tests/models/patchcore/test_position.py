"""Where in the picture a patch lies: coordinates by hand, nearest entries in float64, in tiles and in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from command_line import called
from numpy.typing import NDArray
from training_runs import Drawing, write_data_set

import edge_ad
from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.graph.check import checked_graph
from edge_ad.bundle.graph.contract import GraphContract
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, Thresholds
from edge_ad.bundle.tiles import TileGrid
from edge_ad.calibration.quantize import quantized
from edge_ad.cli.main import main
from edge_ad.errors import CheckpointError, ConfigError
from edge_ad.export.onnx_graph import graph_from_module
from edge_ad.export.parity import probe_images
from edge_ad.image.pictures import read_picture
from edge_ad.models.contract import fast_module, published_module
from edge_ad.models.family import LoadedNetwork
from edge_ad.models.patchcore.family import FAMILY
from edge_ad.models.patchcore.network import PatchCore
from edge_ad.models.patchcore.options import PatchCoreOptions
from edge_ad.models.patchcore.specs import OUTPUT, SCORES
from edge_ad.models.patchcore.training.options import PatchCoreTrainOptions
from edge_ad.models.training import turned

Make = Callable[..., PatchCore]
Train = Callable[..., Any]
SIDE, CELLS = 64, 16  # of a tile: pixels, patches
PREPROCESS = PreprocessSpec(SIDE, SIDE, resize_mode="stretch")
GRID = TileGrid(2, 3, SIDE, SIDE, 32)
POSITION = {"tile_position": 1.5, "spread": 2.0, "canvas_hw": (96, 128), "distance": "root"}


def placed(make: Make) -> PatchCore:
    network = make(40, **POSITION)
    network.places = torch.rand(40, 2, generator=torch.Generator().manual_seed(4))
    return network


def coordinates(corners: Sequence[tuple[int, int]], canvas_hw: tuple[int, int], longer: float) -> NDArray[np.float64]:
    """(T, 16, 16, 2), patch by patch. Args: longer: side whose length is 1, in pixels of `corners`."""
    found = np.zeros((len(corners), CELLS, CELLS, 2))
    for tile, (top, left) in enumerate(corners):
        for row in range(CELLS):
            for column in range(CELLS):
                found[tile, row, column] = (top + 4 * row + 2) / longer, (left + 4 * column + 2) / longer
    return found


def by_hand(network: PatchCore, tile: NDArray[np.uint8], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """(16, 16) distances of a tile (64, 64, 3) whose patches lie at `places` (16, 16, 2)."""
    pixels = torch.from_numpy((tile / 255 - PREPROCESS.mean) / PREPROCESS.std).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        looks = network.embedding(network.backbone(pixels))[0].permute(1, 2, 0).double().numpy()
    scale = POSITION["tile_position"] * POSITION["spread"]  # type: ignore[operator]
    rows = np.concatenate([looks, scale * places], axis=2)
    bank = np.concatenate([network.bank.double().numpy(), scale * network.places.double().numpy()], axis=1)
    found: NDArray[np.float64] = np.sqrt(((rows[:, :, None] - bank) ** 2).sum(3).min(2))
    return found


def computed(network: PatchCore, spec: PostprocessSpec, tiles: TileGrid | None, images: Any, batch: int | None) -> Any:
    """What the checked graph says under ONNX Runtime, and what the published network says."""
    loaded, size_hw = LoadedNetwork(network, {}, ""), PREPROCESS.size_hw if tiles is None else tiles.canvas_hw
    module = fast_module(FAMILY, loaded, PREPROCESS, spec, tiles)
    graph = graph_from_module(module, size_hw, batch=batch, opset=17)
    checked_graph(graph.data, GraphContract(graph.image, graph.outputs, graph.opset, FAMILY.operators))
    session = onnxruntime.InferenceSession(graph.data, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = published_module(FAMILY, loaded, PREPROCESS, spec, tiles)(torch.from_numpy(images))
    return session.run(None, {"image": images}), [value.numpy() for value in wanted]


@pytest.mark.parametrize("fixed", [False, True], ids=["dynamic", "fixed"])
@pytest.mark.parametrize("count", [1, 3])
def test_places_in_tiles(make: Make, count: int, fixed: bool) -> None:
    network = placed(make)
    images = probe_images(GRID.canvas_hw, count, 3)
    corners = [(top, left) for top in (0, 32) for left in (0, 32, 64)]
    places = coordinates(corners, (96, 128), 128)
    wanted, unplaced = np.zeros((2, count, 24, 32))
    for picture in range(count):
        for tile, (top, left) in enumerate(corners):
            pixels = images[picture, top : top + SIDE, left : left + SIDE]
            rows = slice(0 if top == 0 else 4, 12 if top == 0 else 16)  # of 8 that neighbours share, each says 4
            columns = slice(0 if left == 0 else 4, 16 if left == 64 else 12)
            down, across = top // 4, left // 4
            on_canvas = (
                picture,
                slice(down + rows.start, down + rows.stop),
                slice(across + columns.start, across + columns.stop),
            )
            wanted[on_canvas] = by_hand(network, pixels, places[tile])[rows, columns]
            unplaced[on_canvas] = by_hand(network, pixels, places[0])[rows, columns]
    found, published = computed(network, OUTPUT, GRID, images, count if fixed else None)
    for said in (found, published):
        np.testing.assert_allclose(said[0], wanted, rtol=1e-4)
        np.testing.assert_allclose(said[2], wanted.max((1, 2)), rtol=1e-4)
    assert np.abs(unplaced - wanted).max() > 0.01 * wanted.max(), "another tile's places would be noticed"


@pytest.mark.parametrize("count", [1, 3])
def test_places_in_one_tile(make: Make, count: int) -> None:
    network = placed(make)
    network.config = replace(network.config, canvas_hw=(SIDE, SIDE))
    images = probe_images((SIDE, SIDE), count, 3)
    (places,) = coordinates([(0, 0)], (SIDE, SIDE), SIDE)
    found, published = computed(network, OUTPUT, None, images, None)
    for said in (found, published):
        for picture in range(count):
            np.testing.assert_allclose(said[0][picture], by_hand(network, images[picture], places), rtol=1e-4)


def test_places_are_those_of_the_bank_whatever_the_tiles(make: Make) -> None:
    """A stretched picture seen in one tile by a bank of 96x128: its lower edge lies at 0.75, not at 1."""
    network = placed(make)
    images = probe_images((SIDE, SIDE), 1, 3)
    (places,) = coordinates([(0, 0)], (SIDE, SIDE), SIDE)
    found, _ = computed(network, OUTPUT, None, images, None)
    np.testing.assert_allclose(found[0][0], by_hand(network, images[0], places * (0.75, 1)), rtol=1e-4)


@pytest.mark.parametrize("tiles", [None, GRID], ids=["whole", "tiled"])
def test_the_reweighted_score_sees_places(make: Make, tiles: TileGrid | None) -> None:
    network = placed(make)
    images = probe_images((SIDE, SIDE) if tiles is None else tiles.canvas_hw, 2, 3)
    found, published = computed(network, OUTPUT.with_score("reweighted", SCORES), tiles, images, None)
    np.testing.assert_allclose(found[2], published[2], rtol=1e-4)


@pytest.fixture(scope="module")
def fixed_part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec layout, 64×64: noise, with checks that belong to the right; on the defective ones they are on the left."""
    rng, x = np.random.default_rng(5), np.arange(SIDE)
    checks = np.where(np.add.outer(x // 2, x // 2) % 2, 20, 235)

    def draw(defective: bool) -> Drawing:
        grey = 110 + rng.normal(0, 6, (SIDE, SIDE))
        mask = np.zeros((SIDE, SIDE), np.bool_)
        top = int(rng.integers(18, 26))
        left = 8 if defective else 40
        mask[top : top + 16, left : left + 16] = True
        return np.where(mask, checks, grey), mask if defective else None

    counts = {"train/good": 8, "test/good": 6, "test/misplaced": 6}
    return write_data_set(tmp_path_factory.mktemp("fixed") / "part", "misplaced", counts, draw)


@pytest.fixture(scope="module")
def placed_run(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in 1x2 tiles that knows places. Do not change it."""
    folder = tmp_path_factory.mktemp("placed") / "run"
    train(folder, tiles="1x2", imgsz="64x48", tile_position=1.0)
    return folder


@pytest.mark.parametrize("tiles", [{}, {"tiles": "1x2", "imgsz": "64x48"}], ids=["whole", "tiled"])
def test_what_is_good_elsewhere_is_found(train: Train, fixed_part: Path, tmp_path: Path, tiles: dict[str, Any]) -> None:
    told = {"data": fixed_part, "eval_every": 1, **tiles}
    ranks = {x: train(tmp_path / str(x), tile_position=x, **told).best for x in (0.0, 2.0)}
    assert ranks[2.0].image_auroc == 1.0
    assert ranks[2.0].pixel_auroc > 0.95 and ranks[0.0].pixel_auroc < 0.9


def test_the_bank_holds_where_its_patches_lie(placed_run: Path, parts: Path, backbone: Path, make: Make) -> None:
    data = torch.load(placed_run / "ckpt_best_0.pth", weights_only=True)
    network, looks = make(), []
    for path in sorted((parts / "train" / "good").iterdir()):
        pixels = (read_picture(str(path)) / 255 - PREPROCESS.mean) / PREPROCESS.std
        for left in (0, 16):
            tile = torch.from_numpy(pixels[:, left : left + 48]).float().permute(2, 0, 1)[None]
            looks.append(network.embed(tile)[0].permute(1, 2, 0).double().numpy())
    every = np.stack(looks)  # (16, 16, 12, D)
    assert data["config"]["spread"] == pytest.approx(np.sqrt(every.reshape(-1, 192).var(0).sum()), rel=1e-4)
    assert data["config"]["canvas_hw"] == [64, 64] and data["config"]["tile_position"] == 1.0
    for entry, place in zip(data["memory_bank"].double().numpy(), data["places"].numpy(), strict=True):
        differences = np.abs(every - entry).max(3)
        picture, row, column = np.unravel_index(differences.argmin(), differences.shape)
        assert differences.min() < 1e-3
        np.testing.assert_allclose(place, ((4 * row + 2) / 64, (16 * (picture % 2) + 4 * column + 2) / 64), atol=1e-6)


def test_it_is_quantized_and_places_have_a_range_of_their_own(
    placed_run: Path,
    parts: Path,
    tmp_path: Path,
    engine_cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantized, "_speed_up", lambda *_: 2.0)  # small models on busy machines vary
    bundle, cache = tmp_path / "b.edgead", ("--engine-cache", engine_cache)
    called(capsys, "export", placed_run, "-o", bundle)
    assert Bundle.read(bundle).manifest.model.config["tile_position"] == 1.0
    called(capsys, "threshold", bundle, parts, "--rule", "best-f1", "--in-place", *cache)
    given = ("--data", parts / "train" / "good", "--val", parts, "--calibration-cache", tmp_path / "kept")
    assert "gate passed" in called(capsys, "calibrate", bundle, *given, "--in-place", *cache)
    graph = onnx.load(bundle / "model.int8.onnx").graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    searches = [node for node in graph.node if "search/blocks" in node.name and node.op_type == "Conv"]
    assert [made_by.get(node.input[0]) for node in searches] == ["DequantizeLinear"] * 3


def test_it_learns(
    placed_run: Path, parts: Path, tmp_path: Path, engine_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called(capsys, "export", placed_run, "-o", tmp_path / "b.edgead")
    pictures = [read_picture(str(path)) for path in sorted((parts / "test" / "good").iterdir())]
    with edge_ad.open(tmp_path / "b.edgead", engine_cache=engine_cache) as detector:
        scores = sorted(detector.judge(image).score or 0.0 for image in pictures)
    told = {"thresholds": Thresholds((scores[-2] + scores[-1]) / 2)}
    start = write_changed(Bundle.read(tmp_path / "b.edgead"), tmp_path / "start.edgead", told).path
    given = ("--good", parts / "test" / "good", "-o", tmp_path / "new.edgead", "--engine-cache", engine_cache)
    assert "1 of 6 good pictures are rejected" in called(capsys, "learn", start, *given)
    with edge_ad.open(tmp_path / "new.edgead", engine_cache=engine_cache) as detector:
        assert [detector.judge(image).verdict for image in pictures] == ["normal"] * len(pictures)
    graph = onnx.load(tmp_path / "new.edgead" / "model.onnx").graph
    (learned,) = (tensor for tensor in graph.initializer if tensor.name == "learned.weight")
    assert learned.dims[1] == 192 + 2, "an entry that was learned has a place too"


@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf"), "far"])
def test_no_such_weight(value: object) -> None:
    with pytest.raises(ConfigError, match="tile_position"):
        PatchCoreTrainOptions.checked({"output": "r", "data": "d", "tile_position": value}, "train options")


def test_parts_at_any_angle_have_no_place(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="tile_position: parts at any angle have no place; leave it out"):
        train(tmp_path / "r", tile_position=1.0, rotate="any")
    monkeypatch.setattr(turned, "angles_of", lambda _: "any")
    with pytest.raises(ConfigError, match="tile_position: parts at any angle have no place; leave it out"):
        train(tmp_path / "r", tile_position=1.0, rotate="auto")


def test_export_weighs_places_otherwise_or_not_at_all(
    placed_run: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for value, wanted in ((0, None), (0.25, 0.25)):
        bundle = tmp_path / f"{value}.edgead"
        called(capsys, "export", placed_run, "-o", bundle, "--tile-position", value)
        assert Bundle.read(bundle).manifest.model.config.get("tile_position") == wanted
    for source, value, words in (
        (run, 1, "tile_position: the bank does not know where its patches lie"),
        (placed_run, -1, "tile_position"),
        (placed_run, "nan", "tile_position"),
    ):
        assert main([str(part) for part in ("export", source, "-o", tmp_path / "n", "--tile-position", value)]) == 3
        assert words in capsys.readouterr().err


def test_places_of_other_entries_are_refused(placed_run: Path, tmp_path: Path, backbone: Path) -> None:
    data = torch.load(placed_run / "ckpt_best_0.pth", weights_only=True)
    for change in ({"places": data["places"][1:]}, {"places": data["places"] * torch.nan}):
        torch.save({**data, **change}, tmp_path / "c.pth")
        with pytest.raises(CheckpointError, match="places"):
            load(tmp_path / "c.pth", backbone)
    del data["places"]
    torch.save(data, tmp_path / "c.pth")
    with pytest.raises(ConfigError, match="does not know where its patches lie"):
        load(tmp_path / "c.pth", backbone)


def load(path: Path, backbone: Path) -> Any:
    from edge_ad.models.patchcore.checkpoint import load_patchcore

    return load_patchcore(path, PatchCoreOptions(backbone_weights=backbone), PREPROCESS)
