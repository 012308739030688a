"""`edge-ad train DATA` without a word of what to train: configurations are tried, and one is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_ad.calibration.choose import candidates, trial
from edge_ad.calibration.choose.candidates import Candidate
from edge_ad.cli.choosing import is_auto
from edge_ad.cli.main import main
from edge_ad.training_run import read_run

pytestmark = pytest.mark.usefixtures("here")

Capture = pytest.CaptureFixture[str]
CONFIG, SOURCE, CHECKPOINT = 3, 7, 4
GOOD = 13


def _picture(rng: np.random.Generator, stain: bool) -> Image.Image:
    pixels = rng.integers(90, 140, (70, 90, 3), dtype=np.uint8)
    if stain:
        pixels[25:45, 30:60] = (255, 0, 0)
    return Image.fromarray(pixels)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """MVTec layout: good pictures to learn from, two good and two defective ones for the test."""
    rng = np.random.default_rng(2)
    root = tmp_path / "parts"
    for folder, count in (("train/good", GOOD), ("test/good", 2), ("test/blot", 2)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            _picture(rng, "blot" in folder).save(root / folder / f"{index}.png")
    return root


@pytest.fixture(autouse=True)
def tiny(tiny_checkpoint: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Small candidates in place of the real ones."""
    bank = {"backbone": "resnet18", "backbone_weights": str(tiny_checkpoint[1]), "coreset": 8, "imgsz": 64}
    monkeypatch.setattr(
        candidates,
        "CANDIDATES",
        (
            Candidate("bank", "a bank", "patchcore", {**bank, "layers": ["layer1", "layer2"]}),
            Candidate("coarse", "a coarse bank", "patchcore", {**bank, "layers": ["layer2"]}),
            Candidate("tiles", "a bank in tiles", "patchcore", {**bank, "tiles": "auto"}, wants_tiles=True),
        ),
    )


@pytest.fixture
def fails(capsys: Capture) -> Callable[..., str]:
    def run(code: int, *arguments: object) -> str:
        assert main(["train", *map(str, arguments)]) == code
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "edge-ad: error" in line]
        assert not Path("run").exists()
        return line

    return run


def test_configurations_are_tried_and_one_is_trained(data: Path, capsys: Capture) -> None:
    assert main(["train", str(data), "-o", "run"]) == 0
    said = capsys.readouterr().err
    assert "trying 2 configurations" in said and "7 good pictures to learn from, 6 held out, 24 defects" in said
    assert said.count("tried ") == 2 and "taken: " in said and "by --take " in said
    record = read_run(Path("run"))
    choice = record.facts["choice"]
    assert record.status == "finished" and record.family == "patchcore"
    assert [one["name"] for one in choice["tried"]] == ["bank", "coarse"] and choice["chosen_by"] == "drawn"
    assert record.facts["dataset"]["good"] == GOOD, "the one that is taken learns from all"
    layers = {"bank": ["layer1", "layer2"], "coarse": ["layer2"]}
    assert record.options["layers"] == layers[choice["taken"]]
    assert sorted(path.name for path in Path().iterdir()) == ["run"], "nothing of the trial is left"


def test_another_may_be_taken_by_name_and_resumed(data: Path, capsys: Capture) -> None:
    assert main(["train", str(data), "-o", "run", "--take", "coarse"]) == 0
    assert "trying" not in capsys.readouterr().err
    assert read_run(Path("run")).options["layers"] == ["layer2"]
    assert main(["train", str(data), "-o", "run", "--resume"]) == 0
    assert "trying" not in capsys.readouterr().err


def test_labels_choose_where_asked(data: Path, capsys: Capture) -> None:
    assert main(["train", str(data), "-o", "run", "--choose-by", "labels"]) == 0
    said = capsys.readouterr().err
    assert "on 4 labelled pictures" in said
    choice = read_run(Path("run")).facts["choice"]
    assert choice["chosen_by"] == "labels" and choice["tried"][0]["image_auroc"] == 1.0


def test_too_few_pictures_to_try_on(data: Path, capsys: Capture) -> None:
    for path in sorted((data / "train" / "good").iterdir())[5:]:
        path.unlink()
    assert main(["train", str(data), "-o", "run"]) == 0
    assert "5 good pictures are too few to hold some out (wanted 12); bank is taken untried" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["--budget-ms", "0.001"], "no configuration judges a frame in 0.001 ms here; the fastest, "),
        (["--budget-ms", "soon"], "budget_ms: wanted a number, got 'soon'"),
        (["--minutes", "0"], "minutes: "),
        (["--choose-by", "luck"], "choose_by: "),
        (["--take", "bnak"], "take: wanted one of bank, coarse, got bnak"),
        (["--take", "bank", "--budget-ms", "5"], "budget_ms: belongs to a trial, and --take has none"),
        (["--family", "patchcore", "--minutes", "3"], "minutes: belongs to --preset auto"),
        (["--preset", "auto", "--family", "draem"], "auto chooses between no configurations of family 'draem'"),
        (["--preset", "auto", "--imgsz", "0"], "imgsz: "),
    ],
)
def test_bad_options(data: Path, fails: Callable[..., str], told: list[str], words: str) -> None:
    assert words in fails(CONFIG, data, "-o", "run", *told)


def test_textures_go_to_those_that_lay_them(data: Path, tmp_path: Path) -> None:
    _picture(np.random.default_rng(0), stain=True).save(tmp_path / "texture.png")
    assert main(["train", str(data), "-o", "run", "--textures", str(tmp_path)]) == 0
    assert read_run(Path("run")).status == "finished"


def test_a_run_among_the_pictures_is_refused_before_anything_is_tried(data: Path, capsys: Capture) -> None:
    good = data / "train" / "good"
    assert main(["train", "--good", str(good), "-o", str(good / "run")]) == CONFIG
    assert "trying" not in capsys.readouterr().err


def test_a_run_goes_on_with_what_it_took(data: Path, capsys: Capture) -> None:
    assert main(["train", str(data), "-o", "run", "--take", "coarse"]) == 0
    assert main(["train", str(data), "-o", "run", "--resume", "--take", "bank"]) == CONFIG
    assert "take: the run goes on with coarse" in capsys.readouterr().err


def test_files_that_are_no_pictures_do_not_count(data: Path, capsys: Capture) -> None:
    for path in sorted((data / "train" / "good").iterdir())[9:]:
        path.write_bytes(b"no picture")
    assert main(["train", str(data), "-o", "run"]) == 0
    assert "9 good pictures are too few to hold some out" in capsys.readouterr().err


def test_of_many_pictures_the_bank_is_no_larger_than_in_the_trial(
    data: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "MOST_LEARNED", 5)
    monkeypatch.setattr(trial, "MOST_HELD_OUT", 6)
    shares = [replace(one, options={**one.options, "coreset": 0.1}) for one in candidates.CANDIDATES]
    monkeypatch.setattr(candidates, "CANDIDATES", tuple(shares))
    assert main(["train", str(data), "-o", "run"]) == 0
    assert read_run(Path("run")).options["coreset"] == pytest.approx(0.1 * 5 / GOOD)
    assert "keeps as many patches as of 5 pictures" in capsys.readouterr().err


def test_a_folder_that_is_taken_is_refused_before_anything_is_tried(data: Path, capsys: Capture) -> None:
    Path("run").mkdir()
    Path("run/notes.txt").write_text("mine")
    assert main(["train", str(data), "-o", "run"]) != 0
    assert "trying" not in capsys.readouterr().err


def test_labels_that_are_not_there(data: Path, fails: Callable[..., str]) -> None:
    assert "choose_by: labels wants good and defective" in fails(
        CONFIG, "--good", data / "train" / "good", "-o", "run", "--choose-by", "labels"
    )


def test_when_a_configuration_is_chosen() -> None:
    assert is_auto({"data": "d", "output": "o", "minutes": "3", "seed": "1"})
    assert is_auto({"data": "d", "preset": "auto", "family": "patchcore", "imgsz": "64"})
    assert not is_auto({"data": "d", "family": "glass"})
    assert not is_auto({"data": "d", "epochs": "3"})
    assert not is_auto({"data": "d", "preset": "fast"})
