"""The demonstration shows what it promises, on the base installation and with the extras."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edge_ad.cli import demo_training
from edge_ad.cli.main import main


def test_demo_judges_the_simulated_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "shown"
    assert main(["demo", "--quick", "--frames", "40", "--output", str(folder)]) == 0
    printed = capsys.readouterr().out
    records = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    assert len(records) == 40
    assert {record["status"] for record in records} == {"ok"}
    right = sum((record["verdict"] == "anomalous") == record["truth"]["anomalous"] for record in records)
    assert f"{right} of 40 right" in printed
    assert right >= 34  # 85 %; the bundle was chosen for 93 % on lines that it was not trained on
    assert len(list((folder / "overlays").glob("*.jpg"))) == len(list((folder / "masks").glob("*.png"))) == 40
    assert re.search(r"edge-ad run -c \S+line\.yaml", printed) and "NOT inspected" not in printed
    assert {tuple(record["inspected_box"]) for record in records} == {(282, 0, 1002, 720)}


def test_found_defects_are_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the parts that are rightly called anomalous, the highest peak lies at a true defect."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["demo", "--quick", "--frames", "60", "--seed", "5", "--output", str(tmp_path)]) == 0
    found = near = 0
    for line in (tmp_path / "verdicts.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["verdict"] != "anomalous" or not record["truth"]["anomalous"]:
            continue
        found += 1
        x, y = record["regions"][0]["peak_xy"]
        slack = 24  # pixels of a 1280x720 frame: one patch of the model
        near += any(
            left - slack <= x < right + slack and top - slack <= y < bottom + slack
            for left, top, right, bottom in record["truth"]["boxes_xyxy"]
        )
    assert found >= 5
    assert near >= 0.8 * found


TINY = demo_training.Plan(
    size=(320, 180),
    learned=(2, 4),
    chosen=(1, 8),
    reported=(1, 8),
    training=(
        *("--imgsz", "64", "--epochs", "2", "--layers", "features.4,features.7"),
        *("--pretrain-embed-dim", "16", "--embed-dim", "32", "--hidden-dim", "16"),
    ),
)


def test_with_the_extras_the_demo_trains_chooses_runs_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(demo_training, "PLAN", TINY)
    folder = tmp_path / "shown"
    assert main(["demo", "--frames", "6", "--output", str(folder)]) == 0
    printed = capsys.readouterr().out
    commands = re.findall(r"^\$ edge-ad (\w+)", printed, re.MULTILINE)
    assert commands == ["train", "export", "threshold", "run", "eval"]
    assert len((folder / "verdicts.jsonl").read_text().splitlines()) == 6
    assert (folder / "eval" / "report.html").stat().st_size > 10_000
    threshold = json.loads((folder / "verdicts.jsonl").read_text().splitlines()[0])["threshold"]
    assert threshold is not None and 0 < threshold < 1

    assert main(["demo", "--frames", "6", "--output", str(folder)]) == 0  # what an earlier one wrote is replaced
    assert capsys.readouterr().out.count("--force") >= 2


def test_a_folder_with_other_things_in_it_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_training, "PLAN", TINY)
    foreign = tmp_path / "run" / "precious.txt"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    assert main(["demo", "--frames", "6", "--output", str(tmp_path)]) == 11
    assert capsys.readouterr().err.count("\n") == 1
    assert foreign.read_text() == "mine"


def test_without_the_extras_the_demo_says_what_they_would_add(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(demo_training, "missing_extras", lambda: {"eval": ("jinja2",)})
    assert main(["demo", "--frames", "4", "--output", str(tmp_path / "shown")]) == 0
    printed = capsys.readouterr().out
    assert "pip install 'edge-ad[eval]' (not installed: jinja2)" in printed
    assert not (tmp_path / "shown" / "run").exists()


def test_a_line_file_that_is_not_the_demos_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "line.yaml").write_text("bundle: mine.edgead\n")
    assert main(["demo", "--quick", "--frames", "6", "--output", str(tmp_path)]) == 11
    assert "line.yaml exists and is not the demo's" in capsys.readouterr().err
    assert (tmp_path / "line.yaml").read_text() == "bundle: mine.edgead\n"
