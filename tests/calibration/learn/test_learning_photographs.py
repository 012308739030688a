"""Lessons on real photographs: three falsely rejected cookies, three falsely rejected ball screws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.specs import Thresholds
from edge_ad.calibration.learn.learn import learn, unlearn
from edge_ad.calibration.learn.options import LearnOptions
from edge_ad.cli.main import main
from edge_ad.errors import GateError

GLASS = "--backbone mobilenet_v2 --layers features.6,features.13 --imgsz 256 --pretrain-embed-dim 512"
GLASS += " --embed-dim 512 --hidden-dim 256 --resize-mode shorter_side_crop"
ROUNDED = 1e-6


@pytest.fixture(scope="module")
def glass(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained with the authors' code."""
    output, files = tmp_path_factory.mktemp("glass") / "cookies.edgead", shared / "checkpoints" / "cookies"
    given = [str(files / "ckpt_best.pth"), "--backbone-weights", str(files / "backbone.pth"), *GLASS.split()]
    assert main(["export", *given, "-o", str(output)]) == 0
    return output


@pytest.fixture(scope="module")
def fitted(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """PatchCore with 1 % of the patches of a data set."""

    def made(data: str) -> Path:
        folder = tmp_path_factory.mktemp(data)
        told = ["--family", "patchcore", "--preset", "fast", "--resize-mode", "stretch", "-o", str(folder / "run")]
        assert main(["train", str(shared / "data" / data), *told]) == 0
        assert main(["export", str(folder / "run"), "-o", str(folder / "made.edgead")]) == 0
        return folder / "made.edgead"

    return made


@pytest.mark.parametrize(
    ("family", "data", "defect"), [("glass", "cookies", "cracked"), ("patchcore", "cookies", "cracked")]
)
def test_rejected_cookies_are_learned_at_no_cost(
    family: str, data: str, defect: str, shared: Path, request: Any, scores: Any, tools: Any, tmp_path: Path
) -> None:
    source = request.getfixturevalue("glass") if family == "glass" else request.getfixturevalue("fitted")(data)
    start, learned = lesson_of_three(source, shared / "data" / data / "test", defect, 0.02, scores, tools, tmp_path)
    (lesson,) = learned.manifest.learned
    assert lesson.recall_before is not None and lesson.recall_before > 0
    back = LearnOptions(bundle=learned.path, output=tmp_path / "back.edgead", undo=lesson.id)
    made = unlearn(learned, back)
    assert made.files["model.onnx"] == start.read_file("model.onnx")


def test_rejected_ball_screws_cost_two_of_55_defects(
    shared: Path, fitted: Any, scores: Any, tools: Any, tmp_path: Path
) -> None:
    """Pitting is hard to tell from dirt here: what the lesson costs is said, and refused unless it is allowed."""
    source, test = fitted("ballscrew"), shared / "data" / "ballscrew" / "test"
    _, learned = lesson_of_three(source, test, "pitting", 0.05, scores, tools, tmp_path)
    (lesson,) = learned.manifest.learned
    assert lesson.defective == 55
    assert lesson.recall_before is not None and lesson.recall_after is not None
    assert 0 <= lesson.recall_before - lesson.recall_after <= 0.05
    if lesson.recall_after < lesson.recall_before:
        with pytest.raises(GateError, match="lost: "):
            lesson_of_three(source, test, "pitting", 0.0, scores, tools, tmp_path / "strict")


def lesson_of_three(
    source: Path, test: Path, defect: str, allowed: float, scores: Any, tools: Any, folder: Path
) -> tuple[Bundle, Bundle]:
    """The bundle that rejects three good pictures, and the one that has learned them; no other good one rises."""
    folder.mkdir(exist_ok=True)
    before = scores(Bundle.read(source), test / "good")
    ranked = sorted(before.values(), reverse=True)
    threshold = (ranked[2] + ranked[3]) / 2
    start = write_changed(Bundle.read(source), folder / "start.edgead", {"thresholds": Thresholds(threshold)})
    told = LearnOptions(
        bundle=start.path,
        output=folder / "learned.edgead",
        good=test / "good",
        bad=test / defect,
        max_recall_drop=allowed,
    )
    made = learn(start, told, tools(start, []))
    learned = write_changed(start, told.destination, made.changes, files=made.files, without=made.without)
    after = scores(learned, test / "good")
    rejected = {name for name, score in before.items() if score >= threshold}
    assert len(rejected) == 3 and {picture.name for picture in learned.manifest.learned[0].pictures} == rejected
    assert all(after[name] < threshold for name in rejected)
    assert [name for name in before if after[name] > before[name] * (1 + ROUNDED)] == []
    return start, learned
