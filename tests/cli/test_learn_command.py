"""`edge-ad learn`: what it prints, which exit codes it has, and that nothing is half written."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.specs import Thresholds
from edge_ad.cli.main import main
from edge_ad.image.pictures import read_picture
from edge_ad.runtime.judge.loader import open_detector


@pytest.fixture
def bundle(tiny_bundle: Path, checked_parts: Path, tmp_path: Path, engine_cache: Path) -> Path:
    """A bundle that rejects three good pictures."""
    with open_detector(tiny_bundle, engine_cache=engine_cache) as detector:
        pictures = sorted((checked_parts / "test" / "good").iterdir())
        scores = sorted((detector.judge(read_picture(str(path))).score or 0.0 for path in pictures), reverse=True)
    thresholds = {"thresholds": Thresholds((scores[2] + scores[3]) / 2)}
    return write_changed(Bundle.read(tiny_bundle), tmp_path / "part.edgead", thresholds).path


def test_learn_look_and_take_back(
    bundle: Path, checked_parts: Path, tmp_path: Path, engine_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old = tmp_path / "new.edgead", tmp_path / "old.edgead"
    given = ["learn", str(bundle), "--good", str(checked_parts / "test" / "good"), "--engine-cache", str(engine_cache)]
    assert (
        main([*given, "--bad", str(checked_parts / "test" / "checks"), "-o", str(new), "--max-recall-drop", "1"]) == 0
    )
    told = capsys.readouterr()
    assert told.out.strip() == str(new)
    assert "3 of 10 good pictures are rejected" in told.err and "recall on 8 defective pictures: " in told.err
    assert main(["info", str(new), "--json"]) == 0
    (lesson,) = json.loads(capsys.readouterr().out)["learned"]
    assert len(lesson["pictures"]) == 3 and all(len(picture["sha256"]) == 64 for picture in lesson["pictures"])
    assert main(["learn", str(new), "--undo", lesson["id"], "-o", str(old)]) == 0
    assert f"lesson {lesson['id']}" in capsys.readouterr().err
    assert Bundle.read(old).manifest.files["model.onnx"] == Bundle.read(bundle).manifest.files["model.onnx"]
    assert main(["learn", str(new), "--undo", lesson["id"], "--in-place"]) == 0
    assert Bundle.read(new).manifest.learned == ()


def test_what_is_inspected_stays_and_what_is_ignored_is_not_learned(
    bundle: Path, checked_parts: Path, tmp_path: Path, engine_cache: Path
) -> None:
    good = checked_parts / "test" / "good"
    height, width = read_picture(str(sorted(good.iterdir())[0])).shape[:2]
    ignored = np.zeros((height, width), np.uint8)
    ignored[:, : width // 4] = 255
    Image.fromarray(ignored).save(tmp_path / "ignore.png")
    new, masked = tmp_path / "new.edgead", tmp_path / "masked.edgead"
    assert main(["inspect", str(bundle), "--ignore", str(tmp_path / "ignore.png"), "-o", str(masked)]) == 0
    with open_detector(masked, engine_cache=engine_cache) as detector:
        scores = sorted((detector.judge(read_picture(str(path))).score or 0.0 for path in good.iterdir()), reverse=True)
    threshold = (scores[0] + scores[1]) / 2  # one picture is rejected, by what counts of it
    assert main(["threshold", str(masked), "--value", str(threshold), "--in-place"]) == 0
    assert main(["learn", str(masked), "--good", str(good), "--engine-cache", str(engine_cache), "-o", str(new)]) == 0
    before, after = Bundle.read(masked), Bundle.read(new)
    assert after.manifest.inspection == before.manifest.inspection is not None
    assert before.manifest.files["inspection/ignore.png"] == after.manifest.files["inspection/ignore.png"]
    with open_detector(new, engine_cache=engine_cache) as detector:
        assert max(detector.judge(read_picture(str(path))).score or 0.0 for path in good.iterdir()) < threshold


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (["-o", "new"], 3, "good: wanted either --good DIR"),
        (["--good", "g", "--undo", "x", "-o", "new"], 3, "good: wanted either --good DIR"),
        (["--undo", "x", "--bad", "b", "-o", "new"], 3, "bad: belongs to --good"),
        (["--good", "g"], 3, "output: give either --output BUNDLE, or --in-place"),
        (["--good", "g", "-o", "new", "--max-recall-drop", "2"], 3, "max_recall_drop"),
        (["--good", "nowhere", "-o", "new"], 7, "nowhere, which does not exist"),
        (["--undo", "0badcafe", "-o", "new"], 3, "holds no lesson '0badcafe'"),
        (["--good", "black", "-o", "new"], 7, "the float model rejects none of 0 pictures"),
    ],
)
def test_what_is_refused(
    given: list[str],
    code: int,
    words: str,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "black").mkdir()
    Image.fromarray(np.zeros((70, 90, 3), np.uint8)).save(tmp_path / "black" / "0.png")
    assert main(["learn", str(bundle), *given]) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_station_without_onnx_is_told_what_to_install(
    bundle: Path, checked_parts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "edge_ad.cli.extras.find_spec", lambda name: None if name == "onnx" else found(name), raising=True
    )
    assert main(["learn", str(bundle), "--good", str(checked_parts / "test" / "good"), "--in-place"]) == 10
    assert "pip install 'edge-ad[learn]'" in capsys.readouterr().err
