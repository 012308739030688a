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
from edge_ad.bundle.bundle import MANIFEST, Bundle, write_changed
from edge_ad.cli.main import main

Capture = pytest.CaptureFixture[str]
CONFIG, BUNDLE, SOURCE, MISSING, OUTPUT, UNAVAILABLE = 3, 5, 7, 10, 11, 18


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
    from edge_ad.bundle.manifest import Manifest
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
        ("normal,0.1\n", ["--rule", "best-f1", "--in-place"], "output: give either --output BUNDLE, or --in-place"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    base: list[str], capsys: Capture, lines: str, options: list[str], fault: str
) -> None:
    write_scores(lines)
    assert fault in fails(CONFIG, [*base, "--scores", "scores.csv", *options, "-o", "new.edgead"], capsys)


def test_bad_places(base: list[str], data: Path, tmp_path: Path, capsys: Capture) -> None:
    rule = ["--rule", "quantile"]
    assert "does not exist" in fails(UNAVAILABLE, ["threshold", "nowhere", data, *rule, "-o", "new.edgead"], capsys)
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


@pytest.fixture
def on_two(base: list[str], two_precisions: Path) -> list[str]:
    """The command on a bundle of fp32 (threshold 0.5) and int8 (no thresholds of its own; its scores are halves)."""
    return [base[0], str(two_precisions), *base[2:]]


def thresholds_of(bundle: Bundle) -> dict[str, float | None]:
    return {precision: bundle.thresholds(precision).image for precision in bundle.manifest.models}


def test_a_threshold_belongs_to_the_precision_that_judged(
    on_two: list[str], tiny_bundle: Path, data: Path, capsys: Capture
) -> None:
    whole = sorted(scores_of(tiny_bundle, data / "test" / "good"))
    middle = (whole[2] + whole[3]) / 2
    rule = [data, "--rule", "quantile", "--quantile", "0.5", "-o", "new.edgead"]
    bundle, said = chosen([*on_two, *rule, "--precision", "int8"], capsys)
    own = bundle.manifest.precision_thresholds["int8"]
    assert own.image == pytest.approx(middle / 2, abs=1e-6)
    assert own.image_origin is not None and own.image_origin.images == "test"
    assert thresholds_of(bundle) == {"fp32": 0.5, "int8": own.image}
    assert bundle.manifest.thresholds == Bundle.read(tiny_bundle).manifest.thresholds
    assert said.splitlines()[-1] == "this is the threshold of int8; fp32 has 0.5"
    # int8 is not proven, so it is fp32 that judges; what int8 has stays.
    base = [on_two[0], "new.edgead", *on_two[2:]]
    rule[-1] = "other.edgead"
    other, said = chosen([*base, *rule], capsys, "other.edgead")
    assert thresholds_of(other) == {"fp32": pytest.approx(middle, abs=1e-6), "int8": own.image}
    assert other.manifest.precision_thresholds["int8"] == own
    assert said.splitlines()[-1] == f"this is the threshold of fp32; int8 has {own.image:.6g}"


def test_a_shared_threshold_stays_with_the_others(on_two: list[str], capsys: Capture) -> None:
    """What int8 is judged by must not change behind the user's back when fp32 gets another threshold."""
    bundle, said = chosen([*on_two, "--value", "0.75", "-o", "new.edgead"], capsys)
    assert thresholds_of(bundle) == {"fp32": 0.75, "int8": 0.5}
    assert "this is the threshold of fp32; int8 has 0.5" in said
    origin = bundle.manifest.thresholds.image_origin
    assert origin is not None and origin.rule == "value"


def test_where_there_was_no_threshold_the_one_of_fp32_is_for_all(
    on_two: list[str], two_precisions: Path, capsys: Capture
) -> None:
    write_changed(Bundle.read(two_precisions), "bare.edgead", {"thresholds": {}})
    bare = [on_two[0], "bare.edgead", *on_two[2:], "--value", "0.25"]
    bundle, said = chosen([*bare, "-o", "new.edgead"], capsys)
    assert thresholds_of(bundle) == {"fp32": 0.25, "int8": 0.25}
    assert "this is the threshold of fp32; int8 has 0.25" in said
    bundle, said = chosen([*bare, "--precision", "int8", "-o", "other.edgead"], capsys, "other.edgead")
    assert thresholds_of(bundle) == {"fp32": None, "int8": 0.25}
    assert "this is the threshold of int8; fp32 has none" in said


def test_a_proven_precision_is_the_one_that_judges(on_two: list[str], two_precisions: Path, capsys: Capture) -> None:
    from edge_ad.bundle.manifest import Quantization

    passed = Quantization("mse", 300, "a" * 64, 0, 9, (), "passed", 60, 0, None, None, None)
    write_changed(Bundle.read(two_precisions), "proven.edgead", {"quantization": {"int8": passed}})
    proven = [on_two[0], "proven.edgead", *on_two[2:], "--value", "0.25", "-o", "new.edgead"]
    bundle, _ = chosen(proven, capsys)
    assert thresholds_of(bundle) == {"fp32": 0.5, "int8": 0.25}
    assert bundle.manifest.quantization == {"int8": passed}


def test_a_bundle_of_one_precision_is_not_told_whose_threshold_it_is(base: list[str], capsys: Capture) -> None:
    _, said = chosen([*base, "--value", "0.25", "-o", "new.edgead"], capsys)
    assert "this is the threshold of" not in said


def test_a_model_that_is_not_there_gets_no_threshold(on_two: list[str], data: Path, capsys: Capture) -> None:
    for source in (["--value", "0.5"], [data, "--rule", "best-f1"]):
        arguments = [*on_two, *source, "--precision", "fp16", "-o", "new.edgead"]
        assert "holds no fp16 model, only fp32, int8" in fails(BUNDLE, arguments, capsys)


def test_scores_say_which_precision_they_are_of(on_two: list[str], two_precisions: Path, capsys: Capture) -> None:
    files = Bundle.read(two_precisions).manifest.files
    rule = ["--scores", "scores.csv", "--rule", "best-f1", "-o", "new.edgead", "--force"]

    def score(*models: str) -> None:
        rows = [("normal", 0.1), ("anomalous", 0.3)]
        lines = [f"{truth},{value},{model}" for model in models for truth, value in rows]
        Path("scores.csv").write_text("\n".join(["truth,score,model", *lines]))

    score(files["model.int8.onnx"])
    for option in ([], ["--precision", "int8"]):
        bundle, _ = chosen([*on_two, *rule, *option], capsys)
        assert thresholds_of(bundle) == {"fp32": 0.5, "int8": 0.2}
    line = fails(CONFIG, [*on_two, *rule, "--precision", "fp32"], capsys)
    assert "wanted scores of fp32, these are of int8" in line
    score(files["model.onnx"])
    assert thresholds_of(chosen([*on_two, *rule], capsys)[0]) == {"fp32": 0.2, "int8": 0.5}
    score(*(files[name] for name in ("model.onnx", "model.int8.onnx")))
    line = fails(CONFIG, [*on_two, *rule], capsys)
    assert "wanted scores of one model, got those of fp32 and int8" in line
    score("")  # a file that names no model
    assert thresholds_of(chosen([*on_two, *rule], capsys)[0]) == {"fp32": 0.2, "int8": 0.5}
    bundle, _ = chosen([*on_two, *rule, "--precision", "int8"], capsys)
    assert thresholds_of(bundle) == {"fp32": 0.5, "int8": 0.2}


def test_an_evaluation_counts_at_the_threshold_of_its_precision(
    on_two: list[str], data: Path, engine_cache: Path, capsys: Capture
) -> None:
    chosen([*on_two, "--value", "0.125", "--precision", "int8", "-o", "new.edgead"], capsys)
    for precision, threshold in (("int8", 0.125), ("fp32", 0.5)):
        command = ["eval", "new.edgead", str(data), "--precision", precision, "-o", precision, "--json"]
        assert main([*command, "--engine-cache", str(engine_cache)]) == 0
        content = json.loads(capsys.readouterr().out)
        assert content["thresholds"]["bundle"]["threshold"] == threshold
        assert content["about"]["precision"] == precision
        # The scores that it writes are those of the precision, and 'threshold' knows them again.
        rule = ["--scores", f"{precision}/scores.csv", "--rule", "best-f1", "-o", f"{precision}.edgead"]
        _, said = chosen([on_two[0], "new.edgead", *rule], capsys, f"{precision}.edgead")
        assert f"this is the threshold of {precision};" in said
