"""`edge-ad run` with several sources, deadlines and limits, as a user types it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from edge_ad.cli.main import main
from edge_ad.record.verdict import record_schema

Capture = pytest.CaptureFixture[str]
VALIDATOR = jsonschema.Draft202012Validator(record_schema())


@pytest.fixture
def base(tiny_bundle: Path, tmp_path: Path) -> list[str]:
    return ["run", str(tiny_bundle), "--engine", "fake", "--engine-cache", str(tmp_path)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("1.png", "2.png", "3.png", "4.png", "5.png"):
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(folder / name)
    return folder


def by_source(text: str) -> dict[str, list[dict[str, Any]]]:
    """Records of each source, whose numbers count from 0 without a gap."""
    sources: dict[str, list[dict[str, Any]]] = {}
    for line in text.splitlines():
        entry = json.loads(line)
        VALIDATOR.validate(entry)
        sources.setdefault(entry["source"], []).append(entry)
    for entries in sources.values():
        assert [entry["frame_id"] for entry in entries] == list(range(len(entries)))
    return sources


def test_several_sources_and_a_list_of_them(base: list[str], pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    streams = tmp_path / "line.streams"
    streams.write_text("# two simulated cameras\nsim:?size=96x64&seed=1&frames=4\nsim:?size=96x64&seed=2&frames=3\n")
    arguments = ["--source", str(pictures), "--source", str(streams), "--batch", "4", "--output", str(tmp_path / "out")]
    assert main([*base, *arguments]) == 0
    sources = by_source((tmp_path / "out" / "verdicts.jsonl").read_text())
    assert {name: len(entries) for name, entries in sources.items()} == {
        str(pictures): 5,
        "sim:?size=96x64&seed=1&frames=4": 4,
        "sim:?size=96x64&seed=2&frames=3": 3,
    }
    said = capsys.readouterr().err
    assert "12 frames captured: 12 ok" in said
    assert f"{pictures}: 5 frames captured: 5 ok" in said


def test_sources_of_one_name_are_told_apart(base: list[str], capsys: Capture) -> None:
    source = "sim:?size=64x64&frames=2"
    assert main([*base, "--source", source, "--source", source]) == 0
    assert set(by_source(capsys.readouterr().out)) == {source, f"{source} (2)"}


def test_every_second_frame_of_a_video_and_no_warning_of_damage(
    base: list[str], pictures: Path, capsys: Capture
) -> None:
    assert main([*base, "--source", str(pictures), "--vid-stride", "2"]) == 0
    captured = capsys.readouterr()
    (entries,) = by_source(captured.out).values()
    assert [Path(entry["path"]).name for entry in entries] == ["1.png", "3.png", "5.png"]
    assert "damaged" not in captured.err


@pytest.mark.parametrize(("limit", "code"), [("0.5", 14), ("1", 0)])
def test_too_many_missed_deadlines_have_a_code(
    base: list[str], pictures: Path, capsys: Capture, limit: str, code: int
) -> None:
    arguments = ["--source", str(pictures), "--budget-ms", "0.0001", "--max-miss-rate", limit]
    assert main([*base, *arguments]) == code
    captured = capsys.readouterr()
    (entries,) = by_source(captured.out).values()
    assert Counter(entry["status"] for entry in entries) == {"late": 5}
    assert ("5 of 5 frames were late or skipped" in captured.err) == (code == 14)


def test_a_limit_of_missed_deadlines_that_is_kept(base: list[str], pictures: Path) -> None:
    assert main([*base, "--source", str(pictures), "--budget-ms", "60000", "--max-miss-rate", "0"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--buffer", "newest"], "wanted one of auto, every_frame, freshest"),
        (["--buffer", "freshest"], "waits to be read"),
        (["--max-fps", "0"], "max_fps"),
        (["--vid-stride", "0"], "vid_stride"),
        (["--max-miss-rate", "1.5"], "max_miss_rate"),
        (["--silence", "0"], "silence"),
        (["--batch", "0"], "batch"),
    ],
)
def test_options_that_make_no_sense(
    base: list[str], pictures: Path, capsys: Capture, arguments: list[str], words: str
) -> None:
    assert main([*base, "--source", str(pictures), *arguments]) == 3
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_frames_beyond_the_limit_of_the_rate_leave_no_record(base: list[str], capsys: Capture) -> None:
    source = "sim:?size=64x64&fps=200&frames=60"
    assert main([*base, "--source", source, "--max-fps", "0.01", "--buffer", "every-frame"]) == 0
    captured = capsys.readouterr()
    (entries,) = by_source(captured.out).values()
    assert [entry["status"] for entry in entries] == ["ok"]
    assert "1 frames captured" in captured.err
