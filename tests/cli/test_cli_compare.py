"""`edge-ad compare` as a user types it, on small generated data."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper
from PIL import Image
from sklearn import metrics as oracle

import edge_ad
from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.specs import contract
from edge_ad.cli.main import main

Capture = pytest.CaptureFixture[str]
CONFIG, BUNDLE, SOURCE, IMAGE, MISSING, OUTPUT, GATE, UNAVAILABLE = 3, 5, 7, 8, 10, 11, 13, 18
FILES = {"report.html", "report.json", "scores.csv"}


def make_data(root: Path) -> Path:
    """MVTec layout, 70×90: 6 good images, 5 scratches with masks, and 4 good ones for training."""
    rng = np.random.default_rng(3)
    for folder, count in (("train/good", 4), ("test/good", 6), ("test/scratch", 5)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            picture = rng.integers(90, 140, (70, 90, 3), dtype=np.uint8)
            if folder == "test/scratch":
                picture[30:36, 20:60] = rng.integers(0, 256, (6, 40, 3), dtype=np.uint8)
            Image.fromarray(picture).save(root / folder / f"{index}.png")
    (root / "ground_truth" / "scratch").mkdir(parents=True)
    for index in range(5):
        mask = np.zeros((70, 90), np.uint8)
        mask[30:36, 20:60] = 255
        Image.fromarray(mask).save(root / "ground_truth" / "scratch" / f"{index}_mask.png")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not change it."""
    return make_data(tmp_path_factory.mktemp("data") / "parts")


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "parts")


def scaled(graph: bytes, factor: float) -> bytes:
    """A graph whose second convolution has weights that are wrong by a factor."""
    model = onnx.load_from_string(graph)
    weights = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    (found,) = (tensor for tensor in model.graph.initializer if tensor.name == weights[1])
    found.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(found) * np.float32(factor), found.name))
    return model.SerializeToString()


def damage(bundle: Path, output: Path, factor: float = 3.0) -> Path:
    """A copy of a bundle with such a graph."""
    read = Bundle.read(bundle)
    name = read.model_file("fp32")
    return write_changed(read, output, {}, files={name: scaled(read.read_file(name), factor)}).path


def changed(bundle: Path, output: Path, **changes: Any) -> Path:
    """A copy of a bundle that preprocesses in another way."""
    read = Bundle.read(bundle)
    spec = replace(read.manifest.preprocess, **changes)
    image, outputs = contract(*spec.size_hw, (16, 16), None)
    return write_changed(read, output, {"preprocess": spec, "input": image, "outputs": outputs}).path


@pytest.fixture(scope="module")
def damaged(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damage(tiny_bundle, tmp_path_factory.mktemp("damaged") / "worse.edgead")


@pytest.fixture
def base(engine_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Arguments for two bundles, in an empty folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return lambda *arguments: ["compare", "--engine-cache", str(engine_cache), *map(str, arguments)]


def strict_json(text: str) -> Any:
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def fails(code: int, arguments: list[str], capsys: Capture) -> str:
    """Nothing on standard output, one line of error, nothing left behind."""
    capsys.readouterr()
    before = sorted(Path().rglob("*"))
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1, captured.err
    assert sorted(Path().rglob("*")) == before, "something was left behind"
    return captured.err


def test_a_bundle_agrees_with_itself(
    base: Callable[..., list[str]], tiny_bundle: Path, data: Path, capsys: Capture
) -> None:
    assert main(base(tiny_bundle, tiny_bundle, "--data", data, "-o", "out", "--json")) == 0
    captured = capsys.readouterr()
    assert captured.err == "wrote out (report.html)\n"
    content = strict_json(captured.out)
    assert {entry.name for entry in Path("out").iterdir()} == FILES
    assert content == strict_json(Path("out", "report.json").read_text())
    figures = content["agreement"]
    for key in ("map_error_max", "map_error_mean", "score_error_max", "score_error_mean", "score_bias"):
        assert figures[key] == 0, key
    assert (figures["images"], figures["good"], figures["defective"]) == (11, 6, 5)
    assert (figures["flips"], figures["flips_beyond_noise"], figures["lost"]) == ([], 0, [])
    assert figures["map_correlation"] == pytest.approx(1, abs=1e-9)
    assert figures["auroc"]["swapped"] == figures["pixel_auroc"]["swapped"] == 0
    assert (figures["threshold"], figures["threshold_of"]) == (0.5, "bundle")
    assert (content["verdict"], content["breaches"], content["schema_version"]) == ("passed", [], 1)
    assert all(check["ok"] for check in content["statements"])
    assert "A and B are the same model on the same engine" in content["notes"]
    page = Path("out", "report.html").read_text("utf-8")
    assert "<b>passed</b>" in page
    assert page.count("data:image/jpeg;base64,") == 6 * 4


def test_scores_are_those_of_the_two_models(
    base: Callable[..., list[str]], tiny_bundle: Path, damaged: Path, data: Path, capsys: Capture
) -> None:
    assert main(base(tiny_bundle, damaged, "--data", data, "-o", "out")) == GATE
    with Path("out", "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows[:2]] == ["good/0.png", "good/1.png"]
    truth = [row["truth"] == "anomalous" for row in rows]
    assert truth == [row["name"].startswith("scratch") for row in rows]
    assert {row["truth"] for row in rows} == {"normal", "anomalous"}
    figures = strict_json(Path("out", "report.json").read_text())["agreement"]
    for column, bundle, role in (("score_a", tiny_bundle, "reference"), ("score_b", damaged, "candidate")):
        with edge_ad.open(bundle) as detector:
            for row in rows:
                verdict = detector.judge(np.asarray(Image.open(data / "test" / row["name"])))
                assert float(row[column]) == verdict.score
        scores = [float(row[column]) for row in rows]
        assert figures["auroc"][role] == pytest.approx(oracle.roc_auc_score(truth, scores), abs=1e-9)


def test_a_damaged_graph_fails_and_the_report_says_so(
    base: Callable[..., list[str]], tiny_bundle: Path, damaged: Path, data: Path, capsys: Capture
) -> None:
    assert main(base(tiny_bundle, damaged, "--data", data, "-o", "out")) == GATE
    captured = capsys.readouterr()
    report, error = captured.err.splitlines()
    assert report == "wrote out (report.html)"
    assert error.startswith("edge-ad: error: worse.edgead (fp32, openvino) against tiny.edgead (fp32, openvino): ")
    content = strict_json(Path("out", "report.json").read_text())
    broken = [breach["key"] for breach in content["breaches"]]
    assert "map_correlation" in broken
    assert [check["key"] for check in content["statements"] if not check["ok"]] == broken
    page = Path("out", "report.html").read_text("utf-8")
    assert "<b>failed</b>" in page
    assert page.count("<b>no</b>") == len(broken)
    for words in ("worse.edgead", "tiny.edgead", Bundle.read(damaged).sha256, Bundle.read(tiny_bundle).sha256):
        assert words in page
    assert "correlation of the maps" in error
    assert "correlation of the maps" in captured.out
    assert Path("out", "report.html").name in error


def test_tolerances_decide(
    base: Callable[..., list[str]], tiny_bundle: Path, damaged: Path, data: Path, capsys: Capture
) -> None:
    lax = ["--max-flips", "1", "--max-auroc-drop", "1", "--max-pixel-auroc-drop", "1", "--min-map-correlation", "-1"]
    assert main(base(tiny_bundle, damaged, "--data", data, *lax)) == 0
    assert sorted(Path().rglob("*")) == []
    Path("tolerances.yaml").write_text(
        yaml.safe_dump({"max-flips": 1, "max_auroc_drop": 1, "max-pixel-auroc-drop": 1, "min-map-correlation": -1})
    )
    arguments = base(tiny_bundle, damaged, "--data", data, "-c", "tolerances.yaml")
    assert main(arguments) == 0
    assert main([*arguments, "--min-map-correlation", "0.999"]) == GATE  # the command line wins
    Path("all.yaml").write_text(yaml.safe_dump({"a": str(tiny_bundle), "b": str(tiny_bundle), "data": str(data)}))
    assert main(base("-c", "all.yaml")) == 0


def test_flips_at_a_given_threshold(
    base: Callable[..., list[str]], tiny_bundle: Path, damaged: Path, data: Path, capsys: Capture
) -> None:
    main(base(tiny_bundle, damaged, "--data", data, "--json"))
    pairs = [(row["reference"], row["candidate"]) for row in strict_json(capsys.readouterr().out)["scores"]]
    threshold = float(np.mean(np.mean(pairs, axis=0)))
    main(base(tiny_bundle, damaged, "--data", data, "--json", "--threshold", repr(threshold)))
    figures = strict_json(capsys.readouterr().out)["agreement"]
    flipped = sum((before >= threshold) != (after >= threshold) for before, after in pairs)
    assert flipped > 0
    assert len(figures["flips"]) == flipped
    assert (figures["threshold"], figures["threshold_of"]) == (threshold, "given")


def test_a_plain_folder_has_no_labels(
    base: Callable[..., list[str]], tiny_bundle: Path, data: Path, capsys: Capture
) -> None:
    arguments = base(tiny_bundle, tiny_bundle, "--data", data / "test" / "good", "--engine-b", "onnxruntime")
    assert main([*arguments, "--json", "-o", "out"]) == 0
    content = strict_json(capsys.readouterr().out)
    figures = content["agreement"]
    assert (figures["images"], figures["good"], figures["defective"]) == (6, 0, 0)
    assert (figures["auroc"], figures["pixel_auroc"]) == (None, None)
    assert [about["engine"] for about in (content["about"]["reference"], content["about"]["candidate"])] == [
        "openvino",
        "onnxruntime",
    ]
    assert 0 < figures["score_error_max"] < 1e-4
    assert "normal" not in Path("out", "scores.csv").read_text()
    assert "defective" not in Path("out", "report.html").read_text("utf-8")


def test_training_images_only_where_there_is_no_test(
    base: Callable[..., list[str]], tiny_bundle: Path, own_data: Path, capsys: Capture
) -> None:
    shutil.rmtree(own_data / "test")
    assert main(base(tiny_bundle, tiny_bundle, "--data", own_data, "--json")) == 0
    content = strict_json(capsys.readouterr().out)
    assert (content["agreement"]["images"], content["agreement"]["good"]) == (4, 4)
    assert "no test" in content["about"]["images"]


def test_without_a_threshold_a_quantile_takes_its_place(
    base: Callable[..., list[str]], tiny_bundle: Path, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    bare = write_changed(Bundle.read(tiny_bundle), tmp_path / "bare.edgead", {"thresholds": {}}).path
    assert main(base(bare, tiny_bundle, "--data", data, "--json")) == 0
    content = strict_json(capsys.readouterr().out)
    good = [row["reference"] for row in content["scores"] if row["defect"] == "good"]
    assert content["agreement"]["threshold"] == pytest.approx(np.quantile(good, 0.99), abs=1e-12)
    assert content["agreement"]["threshold_of"] == "quantile"
    assert content["thresholds"]["new"] == 0.5
    assert content["thresholds"]["shift"] == pytest.approx(0.5 - content["agreement"]["threshold"], abs=1e-12)


def test_padding_does_not_count(
    base: Callable[..., list[str]], tiny_bundle: Path, damaged: Path, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Against NumPy in float64 on the part of the maps that shows the frame, which is 50 of 64 rows."""
    how = {"resize_mode": "letterbox", "resize": None}
    first = changed(tiny_bundle, tmp_path / "a.edgead", **how)
    second = changed(damaged, tmp_path / "b.edgead", **how)
    main(base(first, second, "--data", data, "--json"))
    figures = strict_json(capsys.readouterr().out)["agreement"]
    maps: list[list[np.ndarray[Any, Any]]] = []
    for bundle in (first, second):
        with edge_ad.open(bundle) as detector:
            pictures = [np.asarray(Image.open(path)) for path in sorted((data / "test").rglob("*.png"))]
            judged = [detector.judge(picture).maps for picture in pictures]
        assert {each.geometry.content_box for each in judged if each is not None} == {(0, 7, 64, 57)}
        maps.append([each.anomaly_map.astype(np.float64) for each in judged if each is not None])
    whole = np.abs(np.subtract(maps[1], maps[0]))
    shown = whole[:, 7:57]
    assert shown.shape == (11, 50, 64)
    assert figures["map_error_mean"] == pytest.approx(shown.mean(), rel=1e-9)
    assert figures["map_error_max"] == pytest.approx(shown.max(), rel=1e-9)
    flat = [np.stack(each)[:, 7:57].ravel() for each in maps]
    assert figures["map_correlation"] == pytest.approx(np.corrcoef(flat)[0, 1], abs=1e-9)
    assert abs(whole.mean() - shown.mean()) > 1e-6 * shown.mean()  # control: the padding would have told


def test_images_that_cannot_be_judged_are_named(
    base: Callable[..., list[str]], tiny_bundle: Path, own_data: Path, capsys: Capture
) -> None:
    (own_data / "test" / "scratch" / "1.png").write_bytes(b"")
    Image.fromarray(np.zeros((70, 90, 3), np.uint8)).save(own_data / "test" / "good" / "2.png")
    assert main(base(tiny_bundle, tiny_bundle, "--data", own_data, "-o", "out")) == 0
    out = capsys.readouterr().out
    lost = strict_json(Path("out", "report.json").read_text())["agreement"]["lost"]
    assert [(each["name"], each["status"]) for each in lost] == [
        ("good/2.png", "unusable"),
        ("scratch/1.png", "error"),
    ]
    page = Path("out", "report.html").read_text("utf-8")
    rows = list(csv.DictReader(Path("out", "scores.csv").read_text().splitlines()))
    for name in ("good/2.png", "scratch/1.png"):
        assert f"not judged: {name}" in out
        assert name in page
        (row,) = (row for row in rows if row["name"] == name)
        assert (row["score_a"], row["score_b"]) == ("", "")


def test_bundles_that_cannot_be_compared(
    base: Callable[..., list[str]], tiny_bundle: Path, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    larger = changed(tiny_bundle, tmp_path / "larger.edgead", height=96, width=128)
    stretched = changed(tiny_bundle, tmp_path / "stretched.edgead", resize_mode="stretch", resize=None)
    wider = changed(tiny_bundle, tmp_path / "wider.edgead", resize=80)
    asked = ["--data", str(data), "-o", "out"]
    line = fails(CONFIG, base(tiny_bundle, larger, *asked), capsys)
    assert "model input: 64×64 pixels in A, 128×96 in B" in line
    line = fails(CONFIG, base(tiny_bundle, stretched, *asked), capsys)
    assert "resize mode: shorter_side_crop in A, stretch in B" in line
    line = fails(CONFIG, base(tiny_bundle, wider, *asked), capsys)
    assert "shorter side before the crop: 64 pixels in A, 80 in B" in line


def test_other_preprocessing_of_the_same_size_is_a_note(
    base: Callable[..., list[str]], tiny_bundle: Path, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = changed(tiny_bundle, tmp_path / "other.edgead", mean=(0.5, 0.5, 0.5))
    assert main(base(tiny_bundle, other, "--data", data)) == 0
    assert "note: preprocessing: mean is (0.485, 0.456, 0.406) in A and (0.5, 0.5, 0.5) in B" in capsys.readouterr().out


def test_bad_options_all_at_once(
    base: Callable[..., list[str]], tiny_bundle: Path, data: Path, capsys: Capture
) -> None:
    arguments = ["--precision-a", "fp8", "--max-flips", "2", "--min-map-correlation", "-3", "--seed", "-1"]
    line = fails(CONFIG, base("a", *arguments, "--threshold", "nan"), capsys)
    for fault in ("precision_a: wanted", "max_flips: wanted", "min_map_correlation: wanted", "seed: wanted"):
        assert fault in line
    for fault in ("threshold: wanted", "b: missing", "data: missing"):
        assert fault in line
    Path("c.yaml").write_text("max-flips: 0.1\nmax_flips: 0.2\ncolour: red\n")
    line = fails(CONFIG, base("a", "b", "--data", data, "-c", "c.yaml"), capsys)
    assert "c.yaml" in line and "max_flips: given twice" in line and "colour: unknown key" in line


def test_bad_places(
    base: Callable[..., list[str]], tiny_bundle: Path, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert "does not exist" in fails(UNAVAILABLE, base(tiny_bundle, "nowhere", "--data", data), capsys)
    fails(SOURCE, base(tiny_bundle, tiny_bundle, "--data", tmp_path / "nowhere"), capsys)
    fails(BUNDLE, base(tiny_bundle, tiny_bundle, "--data", data, "--precision-b", "int8"), capsys)
    fails(CONFIG, base(tiny_bundle, tiny_bundle, "--data", data, "--engine-b", "abacus"), capsys)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("x")
    line = fails(OUTPUT, base(tiny_bundle, tiny_bundle, "--data", data, "-o", tmp_path / "mine", "--force"), capsys)
    assert "diary.txt" in line


def test_nothing_to_compare(base: Callable[..., list[str]], tiny_bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "0.png").write_bytes(b"")
    assert "0.png" in fails(SOURCE, base(tiny_bundle, tiny_bundle, "--data", folder, "-o", "out"), capsys)


def test_a_mask_of_another_size(
    base: Callable[..., list[str]], tiny_bundle: Path, own_data: Path, capsys: Capture
) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(own_data / "ground_truth" / "scratch" / "1_mask.png")
    assert "1_mask.png" in fails(IMAGE, base(tiny_bundle, tiny_bundle, "--data", own_data, "-o", "out"), capsys)


def test_an_earlier_report_is_replaced_on_demand_only(
    base: Callable[..., list[str]], tiny_bundle: Path, damaged: Path, data: Path, capsys: Capture
) -> None:
    arguments = base(tiny_bundle, tiny_bundle, "--data", data, "-o", "out")
    assert main(arguments) == 0
    before = Path("out", "report.json").read_bytes()
    assert "--force" in fails(OUTPUT, arguments, capsys)
    assert Path("out", "report.json").read_bytes() == before
    assert main(base(tiny_bundle, damaged, "--data", data, "-o", "out", "--force")) == GATE
    assert strict_json(Path("out", "report.json").read_text())["verdict"] == "failed"
    assert [entry.name for entry in Path().iterdir()] == ["out"]


@pytest.mark.parametrize("module", ["scipy", "matplotlib", "jinja2"])
def test_a_missing_extra_is_said_before_any_work(
    base: Callable[..., list[str]], capsys: Capture, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    line = fails(MISSING, base("nowhere", "nowhere", "--data", "nowhere", "-o", "out"), capsys)
    assert f"'{module}', which is not installed: pip install 'edge-ad[eval]'" in line
    wanted = MISSING if module == "scipy" else UNAVAILABLE  # the page alone needs the other two
    fails(wanted, base("nowhere", "nowhere", "--data", "nowhere"), capsys)
