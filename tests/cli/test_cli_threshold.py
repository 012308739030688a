"""`edge-ad threshold` as a user types it: what changes in the bundle, and that nothing else does."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn import metrics as oracle

import edge_ad
from edge_ad.bundle import MANIFEST, Bundle, write_changed
from edge_ad.cli.main import main

Capture = pytest.CaptureFixture[str]
CONFIG, BUNDLE, SOURCE, MISSING, OUTPUT = 3, 5, 7, 10, 11


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec layout: 6 good images and 4 defective ones to test, 5 good ones for training. Do not change it."""
    root = tmp_path_factory.mktemp("data") / "parts"
    rng = np.random.default_rng(5)
    for folder, count in (("train/good", 5), ("test/good", 6), ("test/hole", 4)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            picture = rng.integers(100 - 10 * index, 150, (64, 64, 3), dtype=np.uint8)
            if folder == "test/hole":
                picture[20:50, 30:60] = 0
            Image.fromarray(picture).save(root / folder / f"{index}.png")
    return root


@pytest.fixture
def base(tiny_bundle: Path, engine_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return ["threshold", str(tiny_bundle), "--engine-cache", str(engine_cache)]


def scores_of(bundle: Path, folder: Path) -> list[float]:
    with edge_ad.open(bundle) as detector:
        verdicts = [detector.judge(np.asarray(Image.open(path))) for path in sorted(folder.iterdir())]
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    assert len(scores) == len(verdicts)
    return scores


def chosen(arguments: list[Any], capsys: Capture, path: str = "new.edgead") -> tuple[Bundle, str]:
    assert main([str(argument) for argument in arguments]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{path}\n"
    return Bundle.read(path), captured.err


def fails(code: int, arguments: list[Any], capsys: Capture, *, notes: int = 0) -> str:
    before = sorted(Path().rglob("*"))
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1 + notes, captured.err
    assert sorted(Path().rglob("*")) == before, "something was left behind"
    return captured.err.splitlines()[-1]


def test_best_f1_on_a_data_set(base: list[str], tiny_bundle: Path, data: Path, capsys: Capture) -> None:
    bundle, said = chosen([*base, data, "--rule", "best-f1", "-o", "new.edgead"], capsys)
    good, bad = (scores_of(tiny_bundle, data / "test" / kind) for kind in ("good", "hole"))
    scores, truth = np.array(good + bad), [False] * 6 + [True] * 4
    origin, value = bundle.manifest.thresholds.image_origin, bundle.manifest.thresholds.image
    assert origin is not None and value is not None
    assert origin.f1 == pytest.approx(max(oracle.f1_score(truth, scores >= score) for score in scores), abs=1e-9)
    assert origin.f1 == pytest.approx(oracle.f1_score(truth, scores >= value), abs=1e-9)
    assert (origin.rule, origin.images, origin.good_images, origin.defective_images) == ("best-f1", "test", 6, 4)
    assert origin.false_alarm_rate == sum(score >= value for score in good) / 6
    assert value not in scores
    assert f"threshold {value:.6g} by best-f1, on 6 good and 4 defective images" in said


def test_quantile_and_false_alarm_look_at_good_images_alone(
    base: list[str], tiny_bundle: Path, data: Path, capsys: Capture
) -> None:
    good = sorted(scores_of(tiny_bundle, data / "test" / "good"))
    arguments = [*base, data, "--rule", "quantile", "--quantile", "0.5", "-o", "new.edgead"]
    by_quantile, _ = chosen(arguments, capsys)
    assert by_quantile.manifest.thresholds.image == (good[2] + good[3]) / 2
    arguments = [*base, data, "--rule", "false-alarm", "--rate", "0.2", "-o", "other.edgead"]
    by_rate, said = chosen(arguments, capsys, "other.edgead")
    assert by_rate.manifest.thresholds.image == (good[4] + good[5]) / 2
    origin = by_rate.manifest.thresholds.image_origin
    assert origin is not None and origin.interval is not None
    assert (origin.wanted_rate, origin.false_alarm_rate, origin.defective_images) == (0.2, 1 / 6, 0)
    assert "16.67% of good images (0.42% to 64.12% with 95% confidence)" in said  # tables of Clopper and Pearson


def test_a_quantile_above_the_highest_is_said(base: list[str], tiny_bundle: Path, data: Path, capsys: Capture) -> None:
    bundle, said = chosen([*base, data, "--rule", "quantile", "-o", "new.edgead"], capsys)
    good = sorted(scores_of(tiny_bundle, data / "test" / "good"))
    assert bundle.manifest.thresholds.image == pytest.approx(good[5] + (good[5] - good[4]) / 2, rel=1e-9)
    assert "quantile 0.99 of 6 scores lies above the highest" in said


def test_training_images_stand_in_with_a_warning(base: list[str], data: Path, capsys: Capture) -> None:
    arguments = [*base, "--good", data / "train" / "good", "--rule", "quantile", "-o", "new.edgead"]
    bundle, said = chosen(arguments, capsys)
    origin = bundle.manifest.thresholds.image_origin
    assert origin is not None and (origin.images, origin.good_images) == ("train", 5)
    assert "score too low" in said


def test_only_the_threshold_changes(base: list[str], tiny_bundle: Path, capsys: Capture) -> None:
    bundle, _ = chosen([*base, "--value", "0.375", "-o", "new.edgead"], capsys)
    before = Bundle.read(tiny_bundle)
    assert bundle.manifest.files == before.manifest.files  # SHA-256 of every file, checked on reading
    old, new = (yaml.safe_load((path / MANIFEST).read_text()) for path in (tiny_bundle, bundle.path))
    assert new.pop("thresholds")["image"] == 0.375
    old.pop("thresholds")
    assert new == old
    assert bundle.sha256 != before.sha256
    with edge_ad.open(bundle.path) as detector:
        assert detector.thresholds.image == 0.375
    assert main(["info", str(bundle.path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["thresholds"]
    assert (shown["image"], shown["image_origin"]["rule"]) == (0.375, "value")


def test_in_place(base: list[str], tiny_bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy.edgead"))
    base[1] = str(copy)
    bundle, _ = chosen([*base, "--value", "0.25", "--in-place"], capsys, str(copy))
    assert bundle.manifest.thresholds.image == 0.25
    assert [entry.name for entry in tmp_path.iterdir() if "edgead" in entry.name] == ["copy.edgead"]


def test_a_bundle_of_before_is_read(tiny_bundle: Path, tmp_path: Path) -> None:
    """Without the origin of its threshold, as edge-ad 0.1 wrote it."""
    from edge_ad.bundle import Manifest
    from edge_ad.validation import build

    data = yaml.safe_load((tiny_bundle / MANIFEST).read_text())
    data["thresholds"] = {"image": 0.5}
    assert build(Manifest, data, "manifest").thresholds.image_origin is None
    written = write_changed(Bundle.read(tiny_bundle), tmp_path / "b.edgead", {"thresholds": {"image": 0.5}})
    assert written.manifest.thresholds.image == 0.5


def test_scores_of_an_evaluation(
    base: list[str], tiny_bundle: Path, data: Path, engine_cache: Path, capsys: Capture
) -> None:
    assert main(["eval", str(tiny_bundle), str(data), "--engine-cache", str(engine_cache), "-o", "out"]) == 0
    capsys.readouterr()
    from_scores, _ = chosen([*base, "--scores", "out/scores.csv", "--rule", "best-f1", "-o", "new.edgead"], capsys)
    from_images, _ = chosen([*base, data, "--rule", "best-f1", "-o", "two.edgead"], capsys, "two.edgead")
    assert from_scores.manifest.thresholds.image == from_images.manifest.thresholds.image
    origin = from_scores.manifest.thresholds.image_origin
    assert origin is not None and origin.images == "scores"
    with Path("out/scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with Path("foreign.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([{**row, "model": "0" * 64} for row in rows])
    line = fails(CONFIG, [*base, "--scores", "foreign.csv", "--rule", "best-f1", "-o", "three.edgead"], capsys)
    assert "scores of another model" in line


def write_scores(lines: str) -> None:
    Path("scores.csv").write_text("truth,score\n" + lines)


@pytest.mark.parametrize(
    ("lines", "options", "fault"),
    [
        ("normal,0.1\nnormal,0.2\n", ["--rule", "best-f1"], "no defective one"),
        ("anomalous,0.1\n", ["--rule", "best-f1"], "no good one"),
        ("anomalous,0.1\n", ["--rule", "quantile"], "no good image"),
        ("normal,0.1\nnormal,0.2\n", ["--rule", "false-alarm", "--rate", "0.001"], "at least 1000 good images"),
        ("normal,nan\n", ["--rule", "best-f1"], "row 2: score: wanted a finite number, got 'nan'"),
        ("normal,0.1\n", ["--rule", "magic"], "rule: wanted 'best-f1', 'quantile' or 'false-alarm', got 'magic'"),
        ("normal,0.1\n", ["--rule", "quantile", "--quantile", "1.5"], "quantile: wanted a number of at most 1"),
        ("normal,0.1\n", ["--rule", "false-alarm", "--rate", "0"], "rate: wanted a number above 0"),
        ("normal,0.1\n", ["--rule", "best-f1", "--rate", "0.1"], "rate: belongs to --rule false-alarm"),
        ("normal,0.1\n", ["--rule", "best-f1", "--value", "1"], "rule: wanted either --rule"),
        ("normal,0.1\n", [], "rule: wanted either --rule"),
        ("normal,0.1\n", ["--value", "nan"], "value: wanted a finite number"),
        ("normal,0.1\n", ["--rule", "best-f1", "--good", "g"], "got good and scores"),
        ("normal,0.1\n", ["--rule", "best-f1", "--in-place"], "output: wanted either --output or --in-place"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    base: list[str], capsys: Capture, lines: str, options: list[str], fault: str
) -> None:
    write_scores(lines)
    assert fault in fails(CONFIG, [*base, "--scores", "scores.csv", *options, "-o", "new.edgead"], capsys)


def test_bad_places(base: list[str], data: Path, tmp_path: Path, capsys: Capture) -> None:
    rule = ["--rule", "quantile"]
    assert "does not exist" in fails(BUNDLE, ["threshold", "nowhere", data, *rule, "-o", "new.edgead"], capsys)
    fails(SOURCE, [*base, tmp_path / "nowhere", *rule, "-o", "new.edgead"], capsys)
    assert "--force" in fails(OUTPUT, [*base, "--value", "0.5", "-o", base[1]], capsys)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("x")
    line = fails(OUTPUT, [*base, "--value", "0.5", "-o", tmp_path / "mine", "--force"], capsys)
    assert "is no bundle" in line
    line = fails(SOURCE, [*base, "--good", data / "train" / "good", "--rule", "best-f1", "-o", "new.edgead"], capsys)
    assert "no test image" in line


def test_a_missing_extra_is_said(base: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    line = fails(MISSING, [*base, "--value", "0.5", "-o", "new.edgead"], capsys)
    assert "pip install 'edge-ad[eval]'" in line
