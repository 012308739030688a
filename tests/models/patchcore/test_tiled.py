"""A bank of tiles all the way: what one tile misses is found, no seam alarms, int8 and learning take it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import called

import edge_ad
from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.specs import Thresholds
from edge_ad.bundle.tiles import TileGrid
from edge_ad.calibration.quantize import quantized
from edge_ad.cli.main import main
from edge_ad.image.pictures import read_picture
from edge_ad.runtime.sources.sim_scene import Scene

WIDTH, HEIGHT, GOOD, TRAINED = 1600, 400, 8, 6
DOT = 4  # pixels of each side
PLACES = ((880, 200), (745, 230), (840, 245), (762, 150))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long pictures of the simulated part in MVTec's layout; on the defective ones one spot of 4x4 pixels."""
    root = tmp_path_factory.mktemp("line")
    scene = Scene(WIDTH, HEIGHT, 7)
    for folder in ("train/good", "test/good", "test/dot", "ground_truth/dot"):
        (root / folder).mkdir(parents=True)
    for number in range(TRAINED + GOOD):
        image, _ = scene.paint(number, 0.0)
        folder = "train/good" if number < TRAINED else "test/good"
        cv2.imwrite(str(root / folder / f"{number:02}.png"), image)
    for number, (x, y) in enumerate(PLACES):
        image, _ = scene.paint(TRAINED + GOOD + number, 0.0)
        spot = image[y : y + DOT, x : x + DOT]
        spot[:] = 15 if spot.mean() > 110 else 240
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[y : y + DOT, x : x + DOT] = 255
        cv2.imwrite(str(root / "test" / "dot" / f"{number:02}.png"), image)
        cv2.imwrite(str(root / "ground_truth" / "dot" / f"{number:02}_mask.png"), mask)
    return root


@pytest.fixture(scope="module")
def bundles(line: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One bundle that sees a picture whole, one that sees it in tiles. Do not change them."""
    folder, made = tmp_path_factory.mktemp("bundles"), {}
    fast = ("--family", "patchcore", "--preset", "fast", "--device", "cpu", "--imgsz", "160")
    for name, tiles in {"whole": "off", "tiled": "3x9"}.items():
        run, made[name] = folder / name, folder / f"{name}.edgead"
        assert main(["train", str(line), *fast, "--tiles", tiles, "-o", str(run)]) == 0
        assert main(["export", str(run), "-o", str(made[name])]) == 0
    return made


def test_all_the_way(
    bundles: dict[str, Path],
    line: Path,
    tmp_path: Path,
    engine_cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = [read_picture(str(path)) for path in sorted((line / "test" / "good").iterdir())]
    dots = [read_picture(str(path)) for path in sorted((line / "test" / "dot").iterdir())]
    scores: dict[str, tuple[list[float], list[float]]] = {}
    for name, path in bundles.items():
        with edge_ad.open(path, engine_cache=engine_cache) as detector:
            scores[name] = tuple([detector.judge(image).score for image in side] for side in (good, dots))  # type: ignore[assignment]
    assert min(scores["tiled"][1]) > max(scores["tiled"][0]), "each dot of 4x4 pixels is found"
    assert min(scores["whole"][1]) < max(scores["whole"][0]), "and missed where the picture is one tile"

    tiled, cache = tmp_path / "tiled.edgead", ("--engine-cache", engine_cache)
    copytree(bundles["tiled"], tiled)
    assert Bundle.read(tiled).manifest.tiles == TileGrid(3, 9, 160, 160, 32)
    assert "in 3x9 tiles of 160x160 that share 32 pixels, which takes about 27 times as long as one" in called(
        capsys, "info", tiled
    ).replace("\n  ", " ")
    called(capsys, "threshold", tiled, line, "--rule", "best-f1", "--in-place", *cache)
    called(capsys, "eval", tiled, line, "-o", tmp_path / "eval", *cache)
    figures = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert figures["image"]["auroc"] == 1.0 and figures["pixel"]["auroc"] > 0.99
    with edge_ad.open(tiled, engine_cache=engine_cache) as detector:
        for (x, y), image in zip(PLACES, dots, strict=True):
            verdict = detector.judge(image)
            assert verdict.verdict == "anomalous"
            boxes = [region.box_xyxy for region in verdict.regions]
            assert any(b[0] <= x + DOT and x <= b[2] and b[1] <= y + DOT and y <= b[3] for b in boxes)
        assert [detector.judge(image).verdict for image in good] == ["normal"] * GOOD


def test_it_is_quantized_like_any_other(
    run: Path,
    parts: Path,
    tmp_path: Path,
    engine_cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantized, "_speed_up", lambda *_: 2.0)  # small models on busy machines vary
    bundle, cache = tmp_path / "b.edgead", ("--engine-cache", engine_cache)
    called(capsys, "export", run, "-o", bundle, "--tiles", "1x2")
    called(capsys, "threshold", bundle, parts, "--rule", "best-f1", "--in-place", *cache)
    given = ("--data", parts / "train" / "good", "--val", parts, "--calibration-cache", tmp_path / "kept")
    assert "gate passed" in called(capsys, "calibrate", bundle, *given, "--in-place", *cache)


def test_it_learns_and_takes_back(
    bundles: dict[str, Path], line: Path, tmp_path: Path, engine_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Bundle.read(bundles["tiled"])
    pictures = [read_picture(str(path)) for path in sorted((line / "test" / "good").iterdir())]
    with edge_ad.open(bundle.path, engine_cache=engine_cache) as detector:
        scores = sorted(detector.judge(image).score or 0.0 for image in pictures)
    told = {"thresholds": Thresholds((scores[-2] + scores[-1]) / 2)}
    start = write_changed(bundle, tmp_path / "start.edgead", told).path
    given = ("--good", line / "test" / "good", "-o", tmp_path / "new.edgead", "--engine-cache", engine_cache)
    assert "1 of 8 good pictures are rejected" in called(capsys, "learn", start, *given)
    with edge_ad.open(tmp_path / "new.edgead", engine_cache=engine_cache) as detector:
        assert [detector.judge(image).verdict for image in pictures] == ["normal"] * GOOD
    (lesson,) = Bundle.read(tmp_path / "new.edgead").manifest.learned
    called(capsys, "learn", tmp_path / "new.edgead", "--undo", lesson.id, "--in-place")
    files = [Bundle.read(path).manifest.files["model.onnx"] for path in (start, tmp_path / "new.edgead")]
    assert files[0] == files[1]


def test_by_hand_at_the_export(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called(capsys, "export", run, "-o", tmp_path / "b.edgead", "--tiles", "2x3", "--tile-overlap", 32)
    manifest = Bundle.read(tmp_path / "b.edgead").manifest
    assert manifest.tiles == TileGrid(2, 3, 64, 64, 32) and manifest.preprocess.size_hw == (96, 128)
    for wrong, words in (
        (("--tile-overlap", 32), "tile_overlap: belongs to --tiles RxC"),
        (("--tiles", "auto"), "tiles: wanted rows and columns such as 1x3"),
        (("--tiles", "2x2", "--tile-overlap", 64), "tile_overlap: wanted less than a tile"),
    ):
        assert main([str(part) for part in ("export", run, "-o", tmp_path / "c.edgead", *wrong)]) == 3
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("score", ["reweighted", "patch_max"])
def test_every_score_is_exported(score: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = called(capsys, "export", run, "-o", tmp_path / "b.edgead", "--tiles", "1x2", "--score", score)
    assert "largest difference from the published network" in said


def test_looks_while_training_are_at_whole_pictures(train: Callable[..., Any], tmp_path: Path, parts: Path) -> None:
    record = train(tmp_path / "run", tiles="1x2", imgsz="64x48", tile_overlap=32, eval_every=1)
    assert record.export["tiles"] == [1, 2] and record.best.image_auroc == 1.0
    assert record.facts["dataset"]["good"] == 8 and record.facts["patches"] == 2 * 8 * 16 * 12
