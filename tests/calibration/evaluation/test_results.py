"""The results folder: scores that are read back, JSON that is strict, nothing overwritten that is not ours."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from edge_ad.calibration.evaluation.evaluate import ImageResult, Judged
from edge_ad.calibration.evaluation.figures import Figures, measure
from edge_ad.calibration.evaluation.pictures import worst
from edge_ad.calibration.evaluation.report import report_html
from edge_ad.calibration.evaluation.results import (
    About,
    check_results_folder,
    curve_csvs,
    json_bytes,
    read_scores,
    results_json,
    scores_csv,
    write_results,
)
from edge_ad.datasets import Sample
from edge_ad.errors import ConfigError, OutputError

HOSTILE = '<script>alert("x")</script>&\udcff, "q"'
ABOUT = About(
    edge_ad="0",
    evaluated_at="2026-01-01 00:00 UTC",
    bundle="part.edgead",
    bundle_sha256="b" * 64,
    model_sha256="m" * 64,
    score="map_max",
    input_hw=(64, 64),
    engine="openvino",
    precision="fp32",
    data="parts",
    layout="mvtec",
    protocol="none",
    seed=0,
)


def result(name: str, defect: str, score: float | None) -> ImageResult:
    sample = Sample(Path("/data") / name, defect)
    if score is None:
        return ImageResult(name, sample, "error", reason="cut\noff")
    return ImageResult(name, sample, "ok", score)


@pytest.fixture
def results() -> tuple[ImageResult, ...]:
    rows = [("a", "good", 0.1), ("b", "good", 0.55), ("c", "good", None), ("d", "dent", 0.4), ("e", "dent", 0.8)]
    return (*(result(f"{name}.png", defect, score) for name, defect, score in rows), result("f.png", HOSTILE, 0.9))


@pytest.fixture
def figures(results: tuple[ImageResult, ...]) -> Figures:
    return measure(Judged(results, {}), {"bundle": 0.5})


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=20))
def test_scores_come_back_bit_for_bit(pairs: list[tuple[float, bool]]) -> None:
    rows = [result(f"{i}.png", "dent" if bad else "good", score) for i, (score, bad) in enumerate(pairs)]
    text = scores_csv([*rows, result(f'{HOSTILE}\n",', HOSTILE, None)], "m" * 64)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "scores.csv").write_bytes(text)
        scores, truth, lost, models = read_scores(Path(folder) / "scores.csv")
    assert scores == [score for score, _ in pairs]
    assert truth == [bad for _, bad in pairs]
    assert (lost, models) == (1, {"m" * 64})


def test_scores_of_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("\ufeffimage,score,truth\na,0.25,0\nb,0.5,Anomalous \n", encoding="utf-8")
    assert read_scores(path) == ([0.25, 0.5], [False, True], 0, set())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("truth,score\n0,nan\n", "row 2: score: wanted a finite number, got 'nan'"),
        ("truth,score\n0,inf\n", "row 2: score"),
        ("truth,score\n0,\n", "row 2: score: wanted a finite number, got ''"),
        ("truth,score\nmaybe,0.5\n", "row 2: truth: wanted normal or anomalous, got 'maybe'"),
        ("truth,score\n" + "0,x\n" * 8, "row 6: score.*; and 3 more"),
        ("image,points\na,1\n", "wanted the columns truth and score, got image, points"),
        ("truth,score\n", "no line of data"),
        ("", "no line of data"),
        ("truth,score\n0,\x00\n", "score|NUL"),
    ],
)
def test_scores_that_are_none(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ConfigError, match=fault) as caught:
        read_scores(tmp_path / "s.csv")
    assert "\n" not in str(caught.value)


def test_scores_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_bytes(b"truth,score\n\xff\xfe,1\n")
    for path in (tmp_path / "s.csv", tmp_path / "none.csv", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_scores(path)


def test_json_is_strict_and_says_null(results: tuple[ImageResult, ...], figures: Figures) -> None:
    text = json_bytes(results_json(ABOUT, results, figures, figures.notes))
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    truth, scores = [0, 0, 1, 1, 1], [0.1, 0.55, 0.4, 0.8, 0.9]
    assert content["image"]["auroc"] == pytest.approx(oracle.roc_auc_score(truth, scores), abs=1e-6)
    assert content["pixel"]["auroc"] is None
    assert content["pixel"]["undefined"] == "no defective image has a mask"
    assert content["images"]["not_judged"] == [
        {"path": "c.png", "type": "good", "status": "error", "reason": "cut\noff"}
    ]
    assert (content["images"]["total"], content["images"]["good"], content["images"]["defective"]) == (6, 2, 3)
    bundle = content["thresholds"]["bundle"]
    assert (bundle["hits"], bundle["misses"], bundle["false_alarms"], bundle["passed"]) == (2, 1, 1, 1)
    assert content["threshold_in_use"] == "bundle"
    assert content["about"]["bundle_sha256"] == "b" * 64


def test_curves_are_those_of_scikit_learn(figures: Figures) -> None:
    files = curve_csvs(figures)
    roc = list(csv.DictReader(io.StringIO(files["roc.csv"].decode())))
    rates = oracle.roc_curve([0, 0, 1, 1, 1], [0.1, 0.55, 0.4, 0.8, 0.9], drop_intermediate=False)
    columns = ("false_positive_rate", "true_positive_rate", "thresholds")
    found = [[float(row[column]) for row in roc] for column in columns]
    np.testing.assert_allclose(found, rates, rtol=0, atol=1e-6)
    assert files.keys() == {"roc.csv", "pr.csv"}


class Page(HTMLParser):
    """Balance of tags, and addresses of everything that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "br", "link", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_needs_no_network_and_runs_no_name(
    results: tuple[ImageResult, ...], figures: Figures
) -> None:
    page = report_html(ABOUT, results, figures, (), [HOSTILE])
    parsed = Page()
    parsed.feed(page.decode("utf-8"))
    assert (parsed.open, parsed.faults) == ([], [])
    assert len(parsed.addresses) == 2 + 2  # two curves, a histogram for each of the two kinds
    assert all(address.startswith("data:image/svg+xml;base64,") for address in parsed.addresses)
    assert b"<script" not in page
    text = "".join(parsed.text)
    assert text.count('<script>alert("x")</script>&\\udcff, "q"') == 3  # table, histogram, note
    for words in ("image AUROC", "1 of 6 images could not be judged", "c.png", "error: cut", "0.833", "b" * 64):
        assert words in text


def test_equal_evaluations_are_equal_pages(results: tuple[ImageResult, ...], figures: Figures) -> None:
    pages = [report_html(ABOUT, results, figures, (), []) for _ in range(2)]
    assert pages[0] == pages[1]


def test_the_worst_are_those_furthest_on_the_wrong_side() -> None:
    good = [result(f"good/{i}.png", "good", score) for i, score in enumerate((0.1, 0.6, 0.9, 0.7))]
    bad = [result(f"dent/{i}.png", "dent", score) for i, score in enumerate((0.4, 0.2, 0.8))]
    judged = Judged((*good, *bad), {})
    names = [(one.name, kind) for one, kind in worst(measure(judged, {"given": 0.5}), 2)]
    assert names == [
        ("dent/1.png", "missed"),
        ("dent/0.png", "missed"),
        ("good/2.png", "false alarm"),
        ("good/3.png", "false alarm"),
    ]
    right = Judged((good[0], bad[0], bad[2]), {})
    assert [(one.name, kind) for one, kind in worst(measure(right, {"given": 0.3}), 2)] == [
        ("dent/0.png", "closest"),
        ("good/0.png", "closest"),
    ]


FILES = {"results.json": b"{}", "scores.csv": b"x", "report.html": b"y"}


def test_results_appear_whole_and_are_replaced_on_demand_only(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "eval-part"
    write_results(folder, FILES, force=False)
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == FILES
    with pytest.raises(OutputError, match="--force"):
        write_results(folder, {**FILES, "scores.csv": b"z"}, force=False)
    write_results(folder, {**FILES, "scores.csv": b"z"}, force=True)
    assert (folder / "scores.csv").read_bytes() == b"z"
    assert [entry.name for entry in folder.parent.iterdir()] == ["eval-part"]


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write_results(tmp_path / "mine", FILES, force=False)
    assert (tmp_path / "mine" / "report.html").exists()


@pytest.mark.parametrize("foreign", ["diary.txt", "sub/results.json", "results.json"])
def test_what_is_not_ours_is_never_replaced(tmp_path: Path, foreign: str) -> None:
    folder = tmp_path / "mine"
    (folder / foreign).parent.mkdir(parents=True)
    (folder / foreign).write_text("precious")
    for force in (False, True):
        with pytest.raises(OutputError, match="choose another --output"):
            write_results(folder, FILES, force=force)
    assert (folder / foreign).read_text() == "precious"


def test_a_file_beside_our_results_keeps_them(tmp_path: Path) -> None:
    write_results(tmp_path / "mine", FILES, force=False)
    (tmp_path / "mine" / "diary.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"diary\.txt, which is no result of edge-ad"):
        check_results_folder(tmp_path / "mine", force=True)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "link", Path("/")):
        with pytest.raises(OutputError):
            check_results_folder(path, force=True)
