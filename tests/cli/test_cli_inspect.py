"""`edge-ad inspect` and `edge-ad cut`: what a bundle inspects, written, tried, changed and taken out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line_yaml import two_cameras, written
from PIL import Image

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.inspection import IGNORE_FILE, TEMPLATE_FILE
from edge_ad.cli.main import main
from edge_ad.image.pictures import read_picture
from edge_ad.runtime.judge.loader import open_detector

Capture = pytest.CaptureFixture[str]
HW = (120, 160)


def picture(path: Path, dx: int = 0, dy: int = 0) -> str:
    """A part of texture on a plain ground, moved."""
    image = np.full((*HW, 3), 60, np.uint8)
    image[30 + dy : 80 + dy, 40 + dx : 110 + dx] = np.random.default_rng(3).integers(0, 255, (50, 70, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return str(path)


@pytest.fixture
def files(here: Path) -> Path:
    """A frame, an ignore mask of its right half, one of another size, and a template of the part."""
    picture(here / "frame.png")
    ignored = np.zeros(HW, np.uint8)
    ignored[:, 80:] = 255
    Image.fromarray(ignored).save(here / "ignore.png")
    Image.fromarray(ignored[:50]).save(here / "small.png")
    Image.open(here / "frame.png").crop((60, 40, 90, 70)).save(here / "template.png")
    Image.new("L", (30, 30), 7).save(here / "flat.png")
    (here / "text.png").write_text("no picture")
    return here


def test_write_try_change_and_take_out(tiny_bundle: Path, files: Path, capsys: Capture, engine_cache: Path) -> None:
    first = ["inspect", str(tiny_bundle), "--ignore", "ignore.png", "--min-area-px", "30", "-o", "a.edgead"]
    assert main([*first, "--polygon", "10,10 150,10 150,110.5 10,110", "--frame", "frame.png"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == "a.edgead" and "frame.png: inspected: " in told.err and "min_area_px 30" in told.err
    a = Bundle.read("a.edgead")
    assert a.manifest.inspection is not None and a.manifest.inspection.ignore == IGNORE_FILE
    np.testing.assert_array_equal(np.asarray(Image.open(files / "a.edgead" / IGNORE_FILE)), Image.open("ignore.png"))
    align = ["--align", "template.png", "--at", "60,40", "--reach", "20", "--roi", "35,25,115,85"]
    assert main(["inspect", "a.edgead", *align, "--min-area-mm2", "2", "--mm-per-px", "0.5", "--in-place"]) == 0
    b = Bundle.read("a.edgead").manifest
    assert b.inspection is not None and b.inspection.align is not None and b.inspection.least_area_px == 8
    assert b.inspection.ignore == IGNORE_FILE and {IGNORE_FILE, TEMPLATE_FILE} < set(b.files)
    assert (b.inspection.min_area_px, b.inspection.roi, b.inspection.align.reach_px) == (None, (35, 25, 115, 85), 20)
    assert main(["inspect", "a.edgead", "--reach", "30", "--drop", "ignore", "--drop", "roi", "--in-place"]) == 0
    c = Bundle.read("a.edgead").manifest
    assert c.inspection is not None and c.inspection.align is not None and c.inspection.align.reach_px == 30
    assert c.inspection.ignore is None and c.inspection.polygons and IGNORE_FILE not in c.files
    assert main(["threshold", "a.edgead", "--value", "0.3", "-o", "t.edgead"]) == 0
    assert Bundle.read("t.edgead").manifest.inspection == c.inspection  # what other commands write keeps it
    capsys.readouterr()
    assert main(["inspect", "t.edgead", "--drop", "all", "-o", "d.edgead"]) == 0
    assert "the threshold was chosen before" in capsys.readouterr().err
    d = Bundle.read("d.edgead").manifest
    assert d.inspection is None and d.files == Bundle.read(tiny_bundle).manifest.files


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ([], 3, "output: give either --output BUNDLE, or --in-place"),
        (["--polygon", "1,1 2,2", "-o", "n"], 3, "polygon: wanted three or more corners"),
        (["--roi", "9,0,3,4", "-o", "n"], 3, "roi: wanted left, top, right, bottom"),
        (["--roi", "1,2,3", "-o", "n"], 3, "roi: wanted L,T,R,B"),
        (["--min-area-mm2", "2", "-o", "n"], 3, "min_area_mm2: needs mm_per_px"),
        (
            ["--min-area-mm2", "2", "--mm-per-px", "1e-300", "-o", "n"],
            3,
            "mm_per_px: wanted a number of at least",
        ),
        (["--min-area-px", "-1", "-o", "n"], 3, "min_area_px: wanted a number above 0"),
        (["--align", "template.png", "-o", "n"], 3, "at: missing"),
        (["--at", "60,40", "-o", "n"], 3, "align: missing"),
        (["--align", "template.png", "--at", "6,4", "--least-match", "2", "-o", "n"], 3, "least_match: wanted a num"),
        (["--drop", "everything", "-o", "n"], 3, "drop: wanted roi"),
        (["--ignore", "nowhere.png", "-o", "n"], 8, "nowhere.png"),
        (["--ignore", "text.png", "-o", "n"], 8, "text.png"),
        (["--align", "flat.png", "--at", "6,4", "-o", "n"], 8, "nearly one grey level"),
        (["--ignore", "ignore.png", "--polygon", "0,0 161,0 9,9", "-o", "n"], 8, "outside of the 160x120 frame"),
        (["--ignore", "small.png", "--frame", "frame.png", "-o", "n"], 8, "is 160x50, the frame 160x120 pixels"),
        (["--roi", "0,0,161,9", "--frame", "frame.png", "-o", "n"], 8, "outside of the 160x120 frame"),
        (["--polygon", "5,5 50,5 9,5", "--frame", "frame.png", "-o", "n"], 8, "polygon 1 of 1 holds the centre of no"),
        (["--min-area-px", "30000", "--frame", "frame.png", "-o", "n"], 8, "nothing that is inspected has so much"),
        (
            ["--align", "template.png", "--at", "0,90", "--reach", "9", "--frame", "frame.png", "-o", "n"],
            8,
            "not found",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    tiny_bundle: Path, files: Path, capsys: Capture, given: list[str], code: int, words: str
) -> None:
    assert main(["inspect", str(tiny_bundle), *given]) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line and not Path("n").exists()


def test_another_template_needs_its_own_place(tiny_bundle: Path, files: Path, capsys: Capture) -> None:
    align = ["--align", "template.png", "--at", "60,40"]
    assert main(["inspect", str(tiny_bundle), *align, "-o", "a.edgead"]) == 0
    assert main(["inspect", "a.edgead", "--align", "frame.png", "--in-place"]) == 3
    assert "at: missing" in capsys.readouterr().err


def test_what_was_inspected_otherwise_is_not_compared_pixel_by_pixel(
    tiny_bundle: Path, files: Path, capsys: Capture, engine_cache: Path
) -> None:
    picture(files / "data" / "train" / "good" / "a.png")
    picture(files / "data" / "test" / "good" / "b.png")
    told = ["compare", "--engine-cache", str(engine_cache), str(tiny_bundle)]
    assert main(["inspect", str(tiny_bundle), "--roi", "0,0,80,60", "-o", "box.edgead"]) == 0
    assert main(["inspect", str(tiny_bundle), "--polygon", "0,0 80,0 80,60", "-o", "part.edgead"]) == 0
    assert main([*told, "box.edgead", "--data", "data", "-o", "one"]) == 3
    assert "inspected box: all of the frame in A, [0, 0, 80, 60] in B" in capsys.readouterr().err
    main([*told, "part.edgead", "--data", "data", "-o", "two"])
    assert "polygons are not the same in A and B" in "".join(capsys.readouterr())


def test_cut_parts_are_what_the_line_shows_the_model(
    tiny_bundle: Path, files: Path, capsys: Capture, engine_cache: Path
) -> None:
    """From whole frames of a part that moves: cut for training, then judged whole, the score is that of the cut."""
    for name, (dx, dy) in {"a.png": (0, 0), "sub/b.png": (9, -7), "sub/c.png": (-12, 15)}.items():
        picture(files / "frames" / name, dx, dy)
    Image.new("RGB", HW[::-1], (60, 60, 60)).save(files / "frames" / "empty.png")
    place = ["--roi", "35,25,115,85", "--align", "template.png", "--at", "60,40"]
    assert main(["cut", "frames", *place, "-o", "cut"]) == 0
    told = capsys.readouterr()
    assert "left out: frames/empty.png: the part is not found" in told.err and "3 of 4 pictures are cut" in told.err
    cuts = sorted(path.relative_to("cut").as_posix() for path in Path("cut").rglob("*.png"))
    assert cuts == ["a.png", "sub/b.png", "sub/c.png"]
    pixels = [read_picture(f"cut/{name}") for name in cuts]
    assert all(np.array_equal(one, pixels[0]) for one in pixels) and pixels[0].shape == (60, 80, 3)
    assert main(["cut", "frames", *place, "-o", "cut"]) == 11
    assert "exists; nothing is replaced" in capsys.readouterr().err
    assert main(["inspect", str(tiny_bundle), *place, "-o", "p.edgead"]) == 0
    with (
        open_detector("p.edgead", engine_cache=engine_cache) as whole,
        open_detector(tiny_bundle, engine_cache=engine_cache) as plain,
    ):
        wanted = plain.judge(pixels[0]).score
        assert [whole.judge(read_picture(f"frames/{name}")).score for name in cuts] == [wanted] * 3
        assert whole.judge(read_picture("frames/empty.png")).status == "unusable"


def test_what_has_moved_beyond_the_frame_is_not_cut_with_a_repeated_edge(files: Path, capsys: Capture) -> None:
    picture(files / "frames" / "still.png")
    picture(files / "frames" / "moved.png", 9, 4)
    assert main(["cut", "frames", "--align", "template.png", "--at", "60,40", "-o", "cut"]) == 0
    assert "left out: frames/moved.png: the part has moved" in capsys.readouterr().err
    assert [path.name for path in Path("cut").iterdir()] == ["still.png"]


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (["frame.png", "-o", "out"], 3, "roi: wanted --roi or --align"),
        (["frame.png", "--roi", "0,0,9,9"], 3, "output: missing"),
        (["nowhere", "--roi", "0,0,9,9", "-o", "out"], 7, "nowhere: does not exist"),
        (["text.png", "--roi", "0,0,9,9", "-o", "out"], 7, "none of 1 pictures could be cut"),
    ],
)
def test_what_cannot_be_cut(files: Path, capsys: Capture, given: list[str], code: int, words: str) -> None:
    assert main(["cut", *given]) == code
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(files.glob("out/**/*.png"))


def test_a_camera_of_a_line_has_its_own(tiny_bundle: Path, files: Path, tmp_path: Path, capsys: Capture) -> None:
    line: dict[str, Any] = two_cameras(tiny_bundle, tmp_path)
    left, right = line["cameras"]
    left["roi"] = [[[8, 0], [40, 0], [40, 64], [8, 64]]]
    right["inspect"] = {"roi": [0, 0, 32, 32], "min_area_px": 4}
    path = written(tmp_path, line)
    assert main(["check", "-c", path]) == 0
    assert main(["run", "-c", path]) == 0
    entries = [json.loads(text) for text in (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()]
    by_name = {name: [entry for entry in entries if entry["source"] == name] for name in ("left", "right")}
    assert all(entry["polygons"] == [[[8, 0], [40, 0], [40, 64], [8, 64]]] for entry in by_name["left"])
    assert all(0 < entry["ignored_share"] < 1 for entry in by_name["left"])
    assert {(*entry["inspected_box"], entry["min_area_px"]) for entry in by_name["right"]} == {(0, 0, 32, 32, 4)}


@pytest.mark.parametrize(
    ("inspect", "code", "words"),
    [
        ({"ignore": "nowhere.png"}, 8, "cameras.1.inspect: picture nowhere.png"),
        ({"min_area_px": -3}, 3, "cameras.1.inspect.min_area_px: wanted a number above 0"),
        ({"polygons": [[[0, 0], [1, 1]]]}, 3, "cameras.1.inspect.polygons.0: wanted 3 or more entries"),
        ({"min_area": 3}, 3, "cameras.1.inspect.min_area: unknown key"),
    ],
)
def test_check_finds_what_is_wrong_with_it(
    tiny_bundle: Path, here: Path, tmp_path: Path, capsys: Capture, inspect: dict[str, Any], code: int, words: str
) -> None:
    line: dict[str, Any] = two_cameras(tiny_bundle, tmp_path)
    line["cameras"][1]["inspect"] = inspect
    assert main(["check", "-c", written(tmp_path, line)]) == code
    assert words in "".join(capsys.readouterr())
