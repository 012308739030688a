"""The report of an agreement: a page that needs no network and runs no name, strict JSON, the worst frames."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.calibration.agreement.answers import Answer, Answers, Lost
from edge_ad.calibration.agreement.compute import agreement
from edge_ad.calibration.agreement.document import (
    AgreementAbout,
    LayerSensitivity,
    ModelAbout,
    ReportContent,
    RollbackStep,
    ThresholdShift,
    agreement_csv,
    image_scores,
    report_json,
)
from edge_ad.calibration.agreement.figures import Agreement, Flip, ScoreNoise
from edge_ad.calibration.agreement.pictures import FramePictures, draw_pairs, worst_frames
from edge_ad.calibration.agreement.report import agreement_html
from edge_ad.calibration.agreement.tolerances import Breach, Tolerances, breaches, statements
from edge_ad.calibration.evaluation.results import json_bytes
from edge_ad.datasets import Sample
from edge_ad.image.frame import ImageArray
from edge_ad.image.geometry import place
from edge_ad.record.verdict import Maps, Verdict

HOSTILE = '<script>alert("x")</script>&\udcff, "q"'
SPEC = PreprocessSpec(32, 32, "shorter_side_crop", 32)


def answers(scores: list[float | None], maps: list[NDArray[np.float32]], names: list[str]) -> Answers:
    samples = tuple(Sample(Path("/data") / name, "good" if "good" in name else HOSTILE) for name in names)
    found = tuple(
        None if score is None else Answer(score, values, 10.0) for score, values in zip(scores, maps, strict=True)
    )
    lost = tuple(Lost(name, "error", "cut\noff") for name, answer in zip(names, found, strict=True) if answer is None)
    return Answers(tuple(names), samples, found, lost)


NAMES = ["good/a.png", "good/b.png", f"bad/{HOSTILE}.png", "bad/d.png", "good/e.png"]


@pytest.fixture
def both() -> tuple[Answers, Answers]:
    """Image 1 flips beyond the noise of 0.02, image 2 within it; image 4 is lost; image 3 differs most."""
    rng = np.random.default_rng(5)
    maps = [rng.random((8, 9), dtype=np.float32) for _ in NAMES]
    steps = [0.01, 0.02, 0.03, 0.5, 0.0]
    moved = [values + np.float32(step) for values, step in zip(maps, steps, strict=True)]
    return (
        answers([0.1, 0.3, 0.51, 0.9, 0.2], maps, NAMES),
        answers([0.1, 0.6, 0.49, 0.8, None], moved, NAMES),
    )


@pytest.fixture
def agreed(both: tuple[Answers, Answers]) -> Agreement:
    noise = ScoreNoise(0.02, 2, 4)
    return agreement(*both, labelled=True, threshold=0.5, threshold_of="given", noise=noise)


@pytest.fixture
def content(both: tuple[Answers, Answers], agreed: Agreement) -> ReportContent:
    about = AgreementAbout(
        edge_ad="0",
        compared_at="2026-01-01 00:00 UTC",
        reference=ModelAbout("part.edgead", "a" * 64, "openvino", "fp32"),
        candidate=ModelAbout(HOSTILE, None, "openvino", "int8"),
        data=HOSTILE,
        images="5 held-out images",
        calibration_sha256="c" * 64,
        options={"ranges": HOSTILE, "seed": 4, "percentile": None},
    )
    return ReportContent(
        title=f"INT8 of {HOSTILE}",
        verdict="failed",
        why=f"label flips: {HOSTILE}",
        about=about,
        agreement=agreed,
        statements=statements(agreed, Tolerances()),
        breaches=breaches(agreed, Tolerances()),
        scores=image_scores(*both, labelled=True),
        steps=(
            RollbackStep(None, None, (Breach("flips", "too many flips"),), 40.0),
            RollbackStep(HOSTILE, 0.25, (Breach("flips", "still too many"),), 43.5),
            RollbackStep("layer3.conv", 0.125, (), 49.25),
        ),
        sensitivities=(LayerSensitivity(HOSTILE, 0.25), LayerSensitivity("layer3.conv", 0.125)),
        thresholds=ThresholdShift(0.5, 0.4375, HOSTILE),
        pixel_thresholds=ThresholdShift(0.25, 0.5, HOSTILE),
        notes=(HOSTILE,),
    )


class Page(HTMLParser):
    """Balance of tags, addresses of everything that a page loads, its text, its rows of tables."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.addresses: list[str] = []
        self.styles: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(page.decode("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.styles += [value or "" for name, value in attrs if name == "style"]
        if tag not in ("meta", "img", "br", "link", "hr"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return "".join(self.words)


ESCAPED = '<script>alert("x")</script>&\\udcff, "q"'


def test_the_page_is_whole_needs_no_network_and_runs_no_name(content: ReportContent) -> None:
    page = agreement_html(content)
    parsed = Page(page)
    assert (parsed.open, parsed.faults) == ([], [])
    assert len(parsed.addresses) == 1  # the scores
    assert all(address.startswith("data:image/svg+xml;base64,") for address in parsed.addresses)
    assert b"<script" not in page and b"http://" not in page and b"https://" not in page
    assert "default-src 'none'" in page.decode()
    # title of the page, heading, line below it, verdict, note, flips (name and kind), both thresholds,
    # rollback, sensitivity, candidate, data, option
    assert parsed.text.count(ESCAPED) == 14


def test_the_page_says_what_was_found(content: ReportContent) -> None:
    parsed = Page(agreement_html(content))
    cells = {row[0]: row[1:] for row in parsed.rows if row}
    assert cells["label flips"][0].startswith("1 of 4 images change their label beyond the score noise of 0.02")
    assert cells["label flips"][2] == "no"
    assert cells["correlation of the maps"][2] in ("yes", "no")
    assert cells["good/b.png"] == ["good", "0.3", "0.6", "normal → anomalous", "beyond it"]
    assert cells[f"bad/{ESCAPED}.png"][3] == "anomalous → normal"
    assert cells[f"bad/{ESCAPED}.png"][4].startswith("within it")
    assert cells["none yet"] == ["–", "too many flips", "40.0 ms", "–"]
    assert [row[1:] for row in parsed.rows if row[:1] == [ESCAPED]] == [
        ["0.25", "still too many", "43.5 ms", "+3.5 ms"],
        ["0.25", ""],
    ]
    assert [row[1:] for row in parsed.rows if row[:1] == ["layer3.conv"]] == [
        ["0.125", "it holds", "49.2 ms", "+5.8 ms"],
        ["0.125", ""],
    ]
    assert "width: 100.0%" in parsed.styles and "width: 50.0%" in parsed.styles
    assert ["frames", "0.5", "0.4375", "-0.0625", ESCAPED] in parsed.rows
    assert ["pixels", "0.25", "0.5", "+0.25", ESCAPED] in parsed.rows
    assert cells["good/e.png"] == ["error: cut\noff"]
    for words in (
        "failed",
        "Not judged by both models: 1 of 5 images.",
        "a" * 64,
        "c" * 64,
        "dotted: the candidate's own, 0.4375",
    ):
        assert words in parsed.text


def test_what_is_not_known_is_left_out(content: ReportContent, agreed: Agreement) -> None:
    words = ("AUROCreference", "Shaded", "Layers put back", "Sensitivity", "Not judged", "defective", "own, 0.4375")
    assert all(word in Page(agreement_html(content)).text for word in words)  # control
    bare = replace(agreed, good=0, defective=0, auroc=None, noise=None, flips=(), lost=(), map_correlation=None)
    parsed = Page(
        agreement_html(
            replace(
                content,
                agreement=bare,
                steps=(),
                sensitivities=(),
                thresholds=None,
                pixel_thresholds=None,
                notes=(),
            )
        )
    )
    assert (parsed.open, parsed.faults) == ([], [])
    assert [word for word in words if word in parsed.text] == []
    assert "None of 4 images" in parsed.text


def test_equal_contents_are_equal_pages(content: ReportContent) -> None:
    assert agreement_html(content) == agreement_html(content)


def test_json_is_strict_and_says_null(content: ReportContent) -> None:
    broken = replace(content, agreement=replace(content.agreement, map_correlation=float("nan")), thresholds=None)
    text = json_bytes(report_json(broken)).decode()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["agreement"]["map_correlation"] is None
    assert found["thresholds"] is None
    assert found["agreement"]["flips_beyond_noise"] == 1
    assert [step["layer"] for step in found["steps"]] == [None, ESCAPED, "layer3.conv"]
    assert found["about"]["candidate"] == {"name": ESCAPED, "sha256": None, "engine": "openvino", "precision": "int8"}
    assert found["about"]["options"] == {"ranges": ESCAPED, "seed": 4, "percentile": None}
    assert [row["candidate"] for row in found["scores"]] == [0.1, 0.6, 0.49, 0.8, None]
    assert "pictures" not in found
    whole = report_json(content)
    assert whole["thresholds"] == {"old": 0.5, "new": 0.4375, "by": ESCAPED, "shift": -0.0625}
    assert whole["pixel_thresholds"] == {"old": 0.25, "new": 0.5, "by": ESCAPED, "shift": 0.25}
    assert whole["schema_version"] == 1


def test_scores_as_csv(both: tuple[Answers, Answers]) -> None:
    lines = agreement_csv(image_scores(*both, labelled=True)).decode().splitlines()
    assert lines[:3] == ["name,truth,score_a,score_b", "good/a.png,normal,0.1,0.1", "good/b.png,normal,0.3,0.6"]
    assert lines[4:] == ["bad/d.png,anomalous,0.9,0.8", "good/e.png,normal,0.2,"]
    unknown = agreement_csv(image_scores(*both, labelled=False)).decode().splitlines()
    assert unknown[1] == "good/a.png,,0.1,0.1"


def test_the_worst_frames_are_the_flips_and_then_the_largest_differences(
    both: tuple[Answers, Answers], agreed: Agreement
) -> None:
    assert [flip.within_noise for flip in agreed.flips] == [False, True]
    assert worst_frames(*both, agreed.flips) == (1, 2, 3, 0)
    assert worst_frames(*both, agreed.flips, limit=1) == (1,)
    assert worst_frames(*both) == (3, 2, 1, 0)


def judge_of(step: float) -> Any:
    """A judge whose map has a step at column 16 of the model's grid."""

    def judge(image_hwc: ImageArray) -> Verdict:
        geometry = place(SPEC, (image_hwc.shape[0], image_hwc.shape[1]))
        patches = np.zeros((8, 8), np.float32)
        patches[:, 4:] = step
        whole = np.repeat(np.repeat(patches, 4, axis=0), 4, axis=1)
        return Verdict("ok", score=step, maps=Maps(patches, whole, geometry, PostprocessSpec(sigma=0.5), None))

    return judge


@pytest.fixture
def pictures_on_disk(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path in paths:
        Image.fromarray(np.full((600, 900, 3), 90, np.uint8)).save(path)
    return paths


def drawn(paths: list[Path], steps: tuple[float, float]) -> FramePictures:
    samples = tuple(Sample(path, "good") for path in paths)
    names = tuple(path.name for path in paths)
    found = []
    for step in steps:
        values = np.zeros((32, 32), np.float32)
        values[:, 16:] = step
        found.append(Answers(names, samples, tuple(Answer(step, values, 1.0) for _ in paths), ()))
    agreed = agreement(found[0], found[1], labelled=True, threshold=0.5, threshold_of="given", noise=None)
    paths[1].write_bytes(b"")  # after it was judged
    return draw_pairs((0, 1, 2), found[0], found[1], agreed, (judge_of(steps[0]), judge_of(steps[1])), labelled=True)


def pixels(data: bytes) -> NDArray[np.int64]:
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "JPEG"
        return np.asarray(picture).astype(np.int64)


def test_pairs_are_drawn_small_and_one_that_has_become_unreadable_is_left_out(pictures_on_disk: list[Path]) -> None:
    found = drawn(pictures_on_disk, (0.4, 0.7))
    assert [pair.name for pair in found.pairs] == ["0.png", "2.png"]
    pair = found.pairs[0]
    assert (pair.reference_score, pair.candidate_score) == (0.4, 0.7)
    assert pair.flip == Flip("0.png", "good", 0.4, 0.7, False)
    assert (pair.difference_mean, pair.difference_max) == pytest.approx((0.15, 0.3), abs=1e-6)
    assert found.heat == pytest.approx((0.3, 0.7), abs=1e-12)
    assert found.difference_heat == pytest.approx((0.0, 0.3), abs=1e-6)
    shown = [pixels(data) for data in (pair.picture, pair.reference_map, pair.candidate_map, pair.difference)]
    assert {picture.shape for picture in shown} == {(267, 400, 3)}
    plain, before, after, change = shown
    left, right = np.s_[100:160, 90:150], np.s_[100:160, 250:310]
    for picture in (before, after, change):
        assert np.abs(picture[left] - plain[left]).max() <= 6  # nothing there, so the image itself
    assert after[right][..., 0].mean() > before[right][..., 0].mean() + 20  # redder where the map is higher
    np.testing.assert_allclose(change[right], after[right], atol=8)  # each is full heat on its own scale
    darkened = pixels(pair.candidate_map)[:, :50]  # the crop takes 400 of 600 columns in the middle
    assert darkened[:, :40].mean() == pytest.approx(0.35 * 90, abs=2)


def test_two_models_that_agree_to_the_last_bit_are_drawn(pictures_on_disk: list[Path]) -> None:
    found = drawn(pictures_on_disk, (0.5, 0.5))
    assert found.difference_heat[1] > 0
    plain, change = pixels(found.pairs[0].picture), pixels(found.pairs[0].difference)
    assert np.abs(change[:, 100:300] - plain[:, 100:300]).max() <= 2


def test_the_pictures_stand_in_the_page(content: ReportContent, pictures_on_disk: list[Path]) -> None:
    pictures = drawn(pictures_on_disk, (0.4, 0.7))
    parsed = Page(agreement_html(replace(content, pictures=pictures)))
    assert sum(address.startswith("data:image/jpeg;base64,") for address in parsed.addresses) == 8
    assert "score 0.4 → 0.7; maps differ by 0.15 on average, 0.3 at most; labelled differently" in parsed.text
    assert (parsed.open, parsed.faults) == ([], [])
