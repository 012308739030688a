"""`edge-ad eval` as a user types it, on small generated data."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as oracle

import edge_ad
from edge_ad.calibration.evaluation.options import EvalOptions
from edge_ad.cli.eval import bundle_of
from edge_ad.cli.main import main

Capture = pytest.CaptureFixture[str]
CONFIG, SOURCE, IMAGE, MISSING, OUTPUT, UNAVAILABLE = 3, 7, 8, 10, 11, 18


def make_data(root: Path) -> Path:
    """MVTec layout, 70×90: 4 good images, 3 scratches with masks, 3 holes without, and 4 good ones for training."""
    rng = np.random.default_rng(2)
    for folder, count in (("train/good", 4), ("test/good", 4), ("test/scratch", 3), ("test/hole", 3)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            picture = rng.integers(90, 140, (70, 90, 3), dtype=np.uint8)
            if folder == "test/scratch":
                picture[30:36, 20:60] = rng.integers(0, 256, (6, 40, 3), dtype=np.uint8)
            if folder == "test/hole":
                picture[20:50, 30:60] = 0
            Image.fromarray(picture).save(root / folder / f"{index}.png")
    (root / "ground_truth" / "scratch").mkdir(parents=True)
    for index in range(3):
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


@pytest.fixture
def base(tiny_bundle: Path, engine_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments up to the data, in an empty folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return ["eval", str(tiny_bundle), "--engine-cache", str(engine_cache)]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def evaluate(arguments: list[Any], capsys: Capture, folder: str = "eval-tiny") -> tuple[dict[str, Any], str, str]:
    assert main([str(argument) for argument in arguments]) == 0
    captured = capsys.readouterr()
    return json.loads((Path(folder) / "results.json").read_text()), captured.out, captured.err


def test_figures_are_those_of_the_scores(base: list[str], data: Path, tiny_bundle: Path, capsys: Capture) -> None:
    content, out, _ = evaluate([*base, data], capsys)
    names = {entry.name for entry in Path("eval-tiny").iterdir()}
    assert names == {"results.json", "scores.csv", "report.html", "roc.csv", "pr.csv"}
    rows = table(Path("eval-tiny", "scores.csv"))
    assert [row["path"] for row in rows[:5]] == ["good/0.png", "good/1.png", "good/2.png", "good/3.png", "hole/0.png"]
    with edge_ad.open(tiny_bundle) as detector:
        for row in rows:
            verdict = detector.judge(np.asarray(Image.open(data / "test" / row["path"])))
            assert float(row["score"]) == verdict.score
    truth, scores = [row["truth"] == "anomalous" for row in rows], [float(row["score"]) for row in rows]
    assert content["image"]["auroc"] == pytest.approx(oracle.roc_auc_score(truth, scores), abs=1e-6)
    bundle = content["thresholds"]["bundle"]
    assert (bundle["threshold"], content["threshold_in_use"]) == (0.5, "bundle")
    assert bundle["hits"] == sum(score >= 0.5 for score, bad in zip(scores, truth, strict=True) if bad)
    assert content["pixel"]["regions"] == 3
    assert content["pixel"]["images_without_mask"] == 3
    assert f"{content['image']['auroc']:.3f}" in out
    assert {"hole", "scratch", "bundle", "AUROC"} <= set(out.split())
    page = Path("eval-tiny", "report.html").read_text("utf-8")
    assert f"{content['image']['auroc']:.3f}" in page
    mistakes = bundle["misses"] + bundle["false_alarms"]
    assert page.count("data:image/jpeg;base64,") == 2 * min(mistakes, 12) > 0


def test_json_alone_on_standard_output(base: list[str], data: Path, capsys: Capture) -> None:
    content, out, err = evaluate([*base, data, "--json", "-o", "out", "--threshold", "0.3"], capsys, "out")
    assert json.loads(out) == content
    assert content["thresholds"]["given"]["threshold"] == 0.3
    assert content["threshold_in_use"] == "given"
    assert err == "wrote out (report.html)\n"


def test_the_study_protocol(base: list[str], data: Path, capsys: Capture) -> None:
    content, _, _ = evaluate([*base, data, "--protocol", "study", "--seed", "4"], capsys)
    rows = table(Path("eval-tiny", "scores.csv"))
    half = [row for row in rows if row["half"] == "validation"]
    assert len(half) == 5
    truth, scores = [row["truth"] == "anomalous" for row in half], np.array([float(row["score"]) for row in half])
    best = max(oracle.f1_score(truth, scores >= score) for score in scores)
    assert content["validation"]["f1"] == pytest.approx(best, abs=1e-6)
    assert content["validation"]["threshold"] == content["thresholds"]["study"]["threshold"]
    assert content["images"]["reported"] == 5


def test_plain_folders(base: list[str], data: Path, capsys: Capture) -> None:
    folders = ["--good", data / "train" / "good", "--bad", data / "test" / "scratch", "--masks"]
    content, out, _ = evaluate([*base, *folders, data / "ground_truth" / "scratch"], capsys)
    assert content["about"]["layout"] == "plain"
    assert (content["images"]["good"], content["images"]["defective"]) == (1, 3)  # a fifth of the good ones, but one
    assert "held out" in out


def test_images_that_cannot_be_judged_are_said(base: list[str], own_data: Path, capsys: Capture) -> None:
    (own_data / "test" / "hole" / "1.png").write_bytes(b"")
    Image.fromarray(np.zeros((70, 90, 3), np.uint8)).save(own_data / "test" / "good" / "2.png")
    content, out, _ = evaluate([*base, own_data], capsys)
    lost = [(entry["path"], entry["status"]) for entry in content["images"]["not_judged"]]
    assert lost == [("good/2.png", "unusable"), ("hole/1.png", "error")]
    assert (content["images"]["good"], content["images"]["defective"]) == (3, 5)
    assert "2 of 10 images could not be judged (1 good, 1 defective)" in out
    assert "hole/1.png" in Path("eval-tiny", "report.html").read_text("utf-8")
    rows = table(Path("eval-tiny", "scores.csv"))
    assert [row["score"] for row in rows if row["status"] != "ok"] == ["", ""]


def test_earlier_results_are_replaced_on_demand_only(base: list[str], data: Path, capsys: Capture) -> None:
    assert main([*base, str(data)]) == 0
    before = Path("eval-tiny", "results.json").stat().st_mtime_ns
    assert main([*base, str(data)]) == OUTPUT
    assert "--force" in capsys.readouterr().err
    assert Path("eval-tiny", "results.json").stat().st_mtime_ns == before
    assert main([*base, str(data), "--force"]) == 0
    assert [entry.name for entry in Path().iterdir()] == ["eval-tiny"]


def fails(code: int, arguments: list[Any], capsys: Capture) -> str:
    capsys.readouterr()
    before = sorted(Path().rglob("*"))
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1, captured.err
    assert sorted(Path().rglob("*")) == before, "something was left behind"
    return captured.err


def test_bad_options_all_at_once(base: list[str], capsys: Capture) -> None:
    line = fails(CONFIG, [*base, "--seed", "x", "--protocol", "half", "--masks", "m", "--threshold", "nan"], capsys)
    for fault in ("seed: wanted a whole number", "protocol: wanted", "masks: belongs to --good", "threshold: wanted"):
        assert fault in line
    assert "data: wanted either DATA or --good, got neither" in line
    assert "got data and good" in fails(CONFIG, [*base, "d", "--good", "g"], capsys)
    assert "bad: wanted a folder of defective images" in fails(CONFIG, [*base, "--good", "g"], capsys)
    assert "seed: belongs to --protocol study" in fails(CONFIG, [*base, "d", "--seed", "1"], capsys)


def test_bad_places(base: list[str], data: Path, own_data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert "does not exist" in fails(UNAVAILABLE, ["eval", "nowhere", data], capsys)
    fails(SOURCE, [*base, tmp_path / "nowhere"], capsys)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("x")
    assert "diary.txt" in fails(OUTPUT, [*base, data, "-o", tmp_path / "mine", "--force"], capsys)
    assert "unknown" in fails(CONFIG, [*base, data, "--engine", "abacus"], capsys)
    shutil.rmtree(own_data / "test")
    assert "no test image" in fails(SOURCE, [*base, own_data], capsys)


def test_data_that_define_nothing(base: list[str], own_data: Path, capsys: Capture) -> None:
    shutil.rmtree(own_data / "test" / "good")
    assert "no good image was judged" in fails(SOURCE, [*base, own_data], capsys)


def test_a_mask_of_another_size(base: list[str], own_data: Path, capsys: Capture) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(own_data / "ground_truth" / "scratch" / "1_mask.png")
    line = fails(IMAGE, [*base, own_data], capsys)
    assert "1_mask.png is 9×9" in line
    assert "1.png is 90×70" in line


@pytest.mark.parametrize("module", ["scipy", "matplotlib", "jinja2"])
def test_a_missing_extra_is_said_before_any_work(
    base: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert f"'{module}', which is not installed: pip install 'edge-ad[eval]'" in fails(
        MISSING, [*base, "nowhere"], capsys
    )


def test_a_run_is_exported_first(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the export of a run takes: the folder as checkpoint, and a place for the bundle."""
    import edge_ad.export.options
    import edge_ad.export.to_bundle
    from edge_ad.bundle.bundle import Bundle

    run = tmp_path / "bottle"
    run.mkdir()
    assert bundle_of(run, tmp_path) == run  # negative control: without run.yaml it is taken for a bundle
    (run / "run.yaml").write_text("{}")
    seen: list[Any] = []
    monkeypatch.setattr(edge_ad.export.options, "export_options", lambda values, where: (values, where))

    def export_bundle(options: Any) -> Bundle:
        seen.append(options)
        return Bundle.read(tiny_bundle)

    monkeypatch.setattr(edge_ad.export.to_bundle, "export_bundle", export_bundle)
    assert bundle_of(run, tmp_path / "scratch") == tiny_bundle
    ((values, where),) = seen
    assert values == {"checkpoint": run, "output": tmp_path / "scratch" / "bottle.edgead"}
    assert str(run) in where


def test_the_folder_is_named_after_the_model() -> None:
    assert EvalOptions(Path("models/bottle.edgead")).folder == Path("eval-bottle")
    assert EvalOptions(Path("runs/bottle.2")).folder == Path("eval-bottle.2")
    assert EvalOptions(Path("b"), output=Path("x")).folder == Path("x")


def test_the_reference_checkpoint_on_photographs(
    shared: Path, tmp_path: Path, engine_cache: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authors' own image figures of this checkpoint (its README), three decimals given there."""
    monkeypatch.chdir(tmp_path)
    checkpoint = shared / "checkpoints" / "cookies"
    network = ["--backbone", "mobilenet_v2", "--backbone-weights", str(checkpoint / "backbone.pth")]
    shape = ["--layers", "features.6,features.13", "--imgsz", "256", "--score", "patch_max"]
    assert main(["export", str(checkpoint / "ckpt_best.pth"), *network, *shape, "-o", "cookies.edgead"]) == 0
    arguments = ["eval", "cookies.edgead", shared / "data" / "cookies", "--engine-cache", engine_cache]
    content, _, _ = evaluate(arguments, capsys, "eval-cookies")
    cracked = next(kind for kind in content["types"] if kind["type"] == "cracked")
    assert content["image"]["auroc"] == pytest.approx(0.888, abs=5e-4)
    assert cracked["auroc"] == pytest.approx(0.893, abs=5e-4)
    assert cracked["average_precision"] == pytest.approx(0.889, abs=5e-4)
    assert content["pixel"]["images_without_mask"] == 8


def test_pixel_figures_of_coarse_masks_are_marked(base: list[str], tmp_path: Path, data: Path, capsys: Capture) -> None:
    """DAGM's labels are ellipses around the defects: whoever sees the figures has to know."""
    half = tmp_path / "Class1" / "Test"
    (half / "Label").mkdir(parents=True)
    shutil.copytree(data / "train" / "good", tmp_path / "Class1" / "Train")
    for index in range(3):
        shutil.copy(data / "test" / "good" / f"{index}.png", half / f"{index:04}.png")
        shutil.copy(data / "test" / "scratch" / f"{index}.png", half / f"{index + 5:04}.png")
        mask = data / "ground_truth" / "scratch" / f"{index}_mask.png"
        shutil.copy(mask, half / "Label" / f"{index + 5:04}_label.png")
    assert main([*base, str(tmp_path / "Class1"), "-o", "out"]) == 0
    assert "note: masks are coarse ellipses" in capsys.readouterr().out
    content = json.loads(Path("out/results.json").read_text())
    assert content["pixel"]["auroc"] is not None
    assert any("coarse ellipses" in note for note in content["notes"])
    assert "coarse ellipses" in Path("out/report.html").read_text()
