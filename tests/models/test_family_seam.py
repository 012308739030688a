"""Any detector moves in: a family that the project does not know goes from good pictures to verdicts and figures."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edge_ad
from edge_ad.bundle.bundle import Bundle
from edge_ad.cli.main import main
from edge_ad.models import FAMILIES, model_family
from edge_ad.models.family import ModelFamily, option_names

ROOT = Path(__file__).resolve().parents[2]
GLASS = re.compile(r"glass", re.IGNORECASE)


@pytest.fixture
def brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    """One folder (here: one file) and one line."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setitem(FAMILIES, "brightness", "constant_family")
    monkeypatch.delitem(sys.modules, "constant_family", raising=False)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """MVTec layout; defects are large and bright, and their masks say where."""
    rng = np.random.default_rng(3)
    root = tmp_path / "disc"
    for folder, count in (("ground_truth/spot", 0), ("train/good", 12), ("test/good", 6), ("test/spot", 6)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            picture = rng.integers(40, 90, (64, 64, 3), dtype=np.uint8)
            picture[:8, :8] = rng.integers(
                215, 256, (8, 8, 3)
            )  # as bright as any defect, so that int8 has the range; but small
            if folder == "test/spot":
                top, left = (int(edge) for edge in rng.integers(0, 40, 2))
                picture[top : top + 20, left : left + 20] = rng.integers(205, 256, (20, 20, 3))
                mask = np.zeros((64, 64), np.uint8)
                mask[top : top + 20, left : left + 20] = 255
                Image.fromarray(mask).save(root / "ground_truth" / "spot" / f"{index}_mask.png")
            Image.fromarray(picture).save(root / folder / f"{index}.png")
    return root


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    assert code == 0, told.err
    return told.out + told.err


def test_a_family_of_forty_lines_goes_all_the_way(
    brightness: None, parts: Path, tmp_path: Path, engine_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, bundle = tmp_path / "run", tmp_path / "disc.edgead"
    run(capsys, "train", parts, "--family", "brightness", "--imgsz", 64, "-o", folder)
    run(capsys, "export", folder, "-o", bundle)
    recognised = run(capsys, "export", folder / "ckpt_best_0.pth", "-o", tmp_path / "again.edgead")
    assert "taken for a checkpoint of brightness" in recognised
    cache = ("--engine-cache", engine_cache)
    run(capsys, "threshold", bundle, parts, "--rule", "best-f1", "--in-place", *cache)
    manifest = Bundle.read(bundle).manifest
    assert manifest.model.family == "brightness" and manifest.postprocess.top_pixels == 300
    assert manifest.thresholds.image is not None
    run(capsys, "calibrate", bundle, "--data", parts / "train" / "good", "--val", parts / "test", "--in-place", *cache)
    run(capsys, "eval", bundle, parts, "-o", tmp_path / "eval", *cache)
    figures = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert figures["image"]["auroc"] == 1.0
    with edge_ad.open(bundle, engine_cache=engine_cache) as detector:
        picture = np.asarray(Image.open(parts / "test" / "spot" / "0.png"))
        verdict = detector.judge(picture)
        assert verdict.verdict == "anomalous" and verdict.mask_frame.any()
        assert detector.judge(np.asarray(Image.open(parts / "test" / "good" / "0.png"))).verdict == "normal"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_says_what_it_is(name: str) -> None:
    family = model_family(name)
    assert family.name == name
    assert all(vars(family.about).values())
    assert family.known_by and family.train_options.presets["paper"] == {}
    assert family.size_faults(family.preprocess.size_hw) == []


def test_a_size_that_a_family_does_not_take_is_refused_before_a_picture_is_looked_for(
    brightness: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Of any family, by what it declares: the trainer of this one says nothing of sizes."""
    monkeypatch.setattr(type(model_family("brightness")), "multiple", 8)
    train = ["train", str(tmp_path / "nowhere"), "--family", "brightness", "-o", str(tmp_path / "run"), "--imgsz"]
    assert main([*train, "64x60"]) == 3
    assert "imgsz: family 'brightness' wants multiples of 8, got 64x60" in capsys.readouterr().err
    assert main([*train, "64"]) != 3 and "nowhere" in capsys.readouterr().err, "control: the next thing is the data"
    assert not (tmp_path / "run").exists()


def test_an_option_of_another_family_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = main(["train", str(tmp_path), "--family", "draem", "--layers", "a,b", "-o", str(tmp_path / "run")])
    assert code == 3
    assert "layers: family 'draem' has no such option; it is one of glass, simplenet" in capsys.readouterr().err


def test_help_shows_the_options_of_the_family_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*arguments: str) -> set[str]:
        main(["train", *arguments, "--help"])
        return set(re.findall(r"--([a-z][a-z-]+)", capsys.readouterr().out))

    def own(family: ModelFamily) -> set[str]:
        return {name.replace("_", "-") for name in option_names(family.train_options)} - {"data", "output"}

    glass, draem = own(model_family("glass")), own(model_family("draem"))
    assert glass <= shown() and not (draem - glass) & shown()
    assert draem <= shown("--family", "draem") and not (glass - draem - {"amp"}) & shown("--family=draem")


def sources() -> list[Path]:
    """Everything that is Python, but the family itself, tests and benchmarks."""
    folders = ("edge_ad", "export", "calibration", "runtime", "scripts")
    files = [ROOT / "setup.py", *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    return [path for path in files if not path.is_relative_to(ROOT / "edge_ad" / "models" / "glass")]


REGISTRY = {
    "edge_ad/models/__init__.py": {'"glass": "edge_ad.models.glass.family",', 'DEFAULT_FAMILY = "glass"'},
}
"""Lines that may name the first family: the registry of families, and which of them is the default."""
CITATION = re.compile(r"GLASS,\s+arXiv\s+2407\.09359")
"""In any file: a citation is the name with its paper."""


def lines_with_its_name(text: str, path: str) -> list[str]:
    """Lines of code, docstrings, comments and help texts that name the first family and are none of these."""
    lines = [line.strip() for line in CITATION.sub("", text).splitlines() if GLASS.search(line)]
    return [line for line in lines if line not in REGISTRY.get(path, set())]


def test_nothing_outside_knows_the_first_family_by_name() -> None:
    files = sources()
    assert len(files) > 400
    named = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in files}
    found = {path: lines_with_its_name(text, path) for path, text in named.items()}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert all(line in named[path] for path, lines in REGISTRY.items() for line in lines), "none is allowed in vain"


@pytest.mark.parametrize(
    "text",
    [
        '"""What GLASS and others have in common."""',
        "x = 1  # as GLASS has it",
        'help="Model family (default: glass)."',
        "from edge_ad.models.glass.network import Glass",
        '"glass": ANY_BACKBONE,',
        'if family == "glass":',
        '"""Sec. 3.4 of GLASS."""',
        '"""GLASS, arXiv 2407.09359, and what GLASS does besides."""',
    ],
)
def test_a_planted_name_is_found(text: str) -> None:
    assert lines_with_its_name(text, "edge_ad/cli/train.py") != []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("edge_ad/models/__init__.py", 'DEFAULT_FAMILY = "glass"'),
        ("edge_ad/image/geometry.py", '"""Eq. 4 of GLASS, arXiv\n2407.09359."""'),
    ],
)
def test_a_default_and_a_citation_are_not(path: str, text: str) -> None:
    assert lines_with_its_name(text, path) == []
