"""What commands say of pictures: damage is an error, and nothing is turned, dropped or passed over in silence."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jpegs import damaged, encoded, scene
from PIL import Image

from edge_ad.cli.main import main

Capture = pytest.CaptureFixture[str]
BUNDLE = str(resources.files("edge_ad") / "demo" / "disc.edgead")


def run(capsys: Capture, *arguments: object) -> tuple[int, list[dict[str, Any]], list[str]]:
    code = main(["run", BUNDLE, "--engine", "fake", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, [json.loads(line) for line in captured.out.splitlines()], captured.err.splitlines()


@pytest.mark.usefixtures("here")
def test_every_damaged_jpeg_of_a_folder_is_an_error_record(capsys: Capture) -> None:
    folder = Path("shots")
    folder.mkdir()
    whole = encoded(scene(1), quality=90)
    (folder / "0.jpg").write_bytes(whole)
    for number, (_, data) in enumerate(damaged(whole, 1)):
        (folder / f"{number + 1}.jpg").write_bytes(data)
    code, records, _ = run(capsys, "--source", folder)
    assert code == 0
    assert [record["status"] for record in records] == ["ok"] + ["error"] * 5
    assert all(record["score"] is None and record["verdict"] is None for record in records[1:])
    assert all("cut off" in record["reason"] or "damaged" in record["reason"] for record in records[1:])


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("source", ["mixed", "mixed/*"])
def test_files_that_are_passed_over_are_counted_aloud(capsys: Capture, source: str) -> None:
    Path("mixed").mkdir()
    for number, suffix in enumerate(("png", "jfif", "jpe", "gif", "tga")):
        form = {"jfif": "JPEG", "jpe": "JPEG"}.get(suffix)
        scene(number, (64, 64)).save(f"mixed/{number}.{suffix}", form)
    for name in ("6.heic", "7.heic", "8.raw"):
        (Path("mixed") / name).write_bytes(b"x")
    code, records, said = run(capsys, "--source", source)
    assert code == 0 and [record["status"] for record in records] == ["ok"] * 5
    (line,) = [line for line in said if "not taken for pictures" in line]
    assert ".heic (2), .raw (1)" in line


@pytest.mark.usefixtures("here")
def test_a_jpeg_is_the_same_picture_under_any_name(capsys: Capture) -> None:
    scores = []
    for name in ("a.jpg", "a.jfif", "a.png", "a"):
        Path(name).write_bytes(encoded(scene(3)))
        code, (record,), _ = run(capsys, "--source", name)
        assert code == 0
        scores.append(record["score"])
    assert len(set(scores)) == 1


@pytest.mark.usefixtures("here")
def test_the_limit_is_an_option_and_a_setting(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in").mkdir()
    scene(0, (400, 500)).save("in/large.png")
    scene(1, (64, 64)).save("in/small.png")
    assert [record["status"] for record in run(capsys, "--source", "in")[1]] == ["ok", "ok"]
    _, records, _ = run(capsys, "--source", "in", "--max-megapixels", "0.1")
    assert [record["status"] for record in records] == ["error", "ok"]
    assert "too large: 500x400" in records[0]["reason"]
    Path("line.yaml").write_text(f"bundle: {BUNDLE}\nengine: fake\nmax_megapixels: 0.1\ncameras: [{{source: in}}]\n")
    assert main(["run", "-c", "line.yaml"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["status"] for record in records] == ["error", "ok"]
    assert run(capsys, "--source", "in", "--max-megapixels", "-1")[0] == 3
    monkeypatch.setenv("EDGE_AD_MAX_MEGAPIXELS", "lots")
    code, records, said = run(capsys, "--source", "in")
    assert (code, records) == (3, []) and "EDGE_AD_MAX_MEGAPIXELS: wanted a number of megapixels" in said[-1]


def data_set(root: Path, mask: Image.Image) -> str:
    for number, part in enumerate(("train/good", "test/good", "test/cut", "ground_truth/cut")):
        (root / part).mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(60, 80, (128, 128, 3), dtype=np.uint8)
        if part == "test/cut":
            pixels[40:60, 50:80] = 200
        if part == "ground_truth/cut":
            mask.save(root / part / "0_mask.png")
        else:
            Image.fromarray(pixels).save(root / part / "0.png")
    return str(root)


@pytest.mark.usefixtures("here")
def test_a_transparent_mask_measures_what_the_plain_one_does(capsys: Capture) -> None:
    where = np.zeros((128, 128), np.uint8)
    where[40:60, 50:80] = 255
    masks = {"plain": Image.fromarray(where)}
    for name, paint in (("white", 255), ("black", 0)):
        layer = np.dstack([np.full((128, 128, 3), paint, np.uint8), where])
        masks[name] = Image.fromarray(layer)
    found = {}
    for name, mask in masks.items():
        assert main(["eval", BUNDLE, data_set(Path(name), mask), "--engine", "fake", "-o", f"o-{name}", "--json"]) == 0
        found[name] = json.loads(capsys.readouterr().out)["pixel"]["auroc"]
    assert found["white"] == found["black"] == found["plain"] is not None


@pytest.mark.usefixtures("here")
def test_eval_says_what_it_does_to_pictures_and_what_it_passes_over(capsys: Capture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    where = np.zeros((128, 128), np.uint8)
    where[40:60, 50:80] = 255
    root = Path(data_set(Path("data"), Image.fromarray(where)))
    scene(5, (128, 128)).save(root / "test" / "good" / "1.jpg", exif=exif)
    (root / "test" / "good" / "2.heic").write_bytes(b"x")
    assert main(["eval", BUNDLE, str(root), "--engine", "fake", "-o", "out", "--json"]) == 0
    said = capsys.readouterr().err
    assert "1.jpg: turned upright, as the orientation tag says" in said
    assert "not taken for pictures, by their endings: .heic (1)" in said
