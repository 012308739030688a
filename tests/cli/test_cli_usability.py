"""What good pictures teach a bundle of blur and darkness, and what runs do with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from edge_ad.bundle.bundle import Bundle
from edge_ad.cli.main import main

Capture = pytest.CaptureFixture[str]
BLURRED = "test/good/blurred.png"


def checkered(seed: int) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(60, 200, (22, 22))
    return np.repeat(np.kron(blocks, np.ones((3, 3)))[:64, :64, None], 3, axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec layout: 8 good images for training; 5 good ones, a blurred one and 3 defective ones to test."""
    root = tmp_path_factory.mktemp("data") / "parts"
    for folder, count in (("train/good", 8), ("test/good", 5), ("test/hole", 3)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            picture = checkered(len(folder) * 100 + index)
            if folder == "test/hole":
                picture[20:44, 20:44] = 10 * index
            Image.fromarray(picture).save(root / folder / f"{index}.png")
    Image.fromarray(gaussian_filter(checkered(1), (4, 4, 0))).save(root / BLURRED)
    return root


def call(capsys: Capture, *arguments: object) -> tuple[str, str]:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


@pytest.fixture
def taught(tiny_bundle: Path, data: Path, engine_cache: Path, tmp_path: Path, capsys: Capture) -> tuple[Path, str]:
    """The bundle after `threshold` has seen the good images, and what was said."""
    output = tmp_path / "taught.edgead"
    rule = ("--rule", "quantile", "--quantile", "0.5")
    said = call(capsys, "threshold", tiny_bundle, data, *rule, "-o", output, "--engine-cache", engine_cache)[1]
    return output, said


def statuses(capsys: Capture, *arguments: object) -> dict[str, tuple[str, str | None]]:
    records = [json.loads(line) for line in call(capsys, "run", *arguments)[0].splitlines()]
    return {Path(record["path"]).name: (record["status"], record["reason"]) for record in records}


def test_threshold_teaches_what_blurred_is(
    taught: tuple[Path, str], data: Path, engine_cache: Path, capsys: Capture
) -> None:
    bundle, said = taught
    limits = Bundle.read(bundle).manifest.usability
    assert limits is not None
    assert limits.images == 14
    assert limits.sharpness_min is not None
    assert f"too blurred to be judged below sharpness {limits.sharpness_min:.2g}" in said
    assert "1 of 14 good images are far blurrier than the others" in said
    assert "blurred.png was not judged and counts nowhere" in said
    assert "on 5 good and 0 defective images" in said  # the blurred one is no good one
    shown = json.loads(call(capsys, "info", bundle, "--json")[0])
    assert shown["usability"]["sharpness_min"] == limits.sharpness_min
    good = data / "test" / "good"
    found = statuses(capsys, bundle, "--source", good, "--engine-cache", engine_cache)
    assert [name for name, (status, _) in found.items() if status == "unusable"] == ["blurred.png"]
    reason = found["blurred.png"][1]
    assert reason is not None
    assert "far blurrier than the line's good frames: sharpness" in reason
    defective = statuses(capsys, bundle, "--source", data / "test" / "hole", "--engine-cache", engine_cache)
    assert {status for status, _ in defective.values()} == {"ok"}
    off = statuses(capsys, bundle, "--source", good, "--engine-cache", engine_cache, "--blur-check", "off")
    assert {status for status, _ in off.values()} == {"ok"}


def test_eval_says_which_images_would_be_unusable(
    taught: tuple[Path, str], data: Path, engine_cache: Path, tmp_path: Path, capsys: Capture
) -> None:
    printed, _ = call(capsys, "eval", taught[0], data, "-o", tmp_path / "e", "--engine-cache", engine_cache, "--json")
    notes = json.loads(printed)["notes"]
    assert any(
        "1 of 9 images could not be judged (1 good, 0 defective) and count in no figure" in note for note in notes
    )
    assert any("1 of them would be unusable on the line: good/blurred.png: the frame is far" in note for note in notes)


def test_a_value_alone_keeps_what_was_learned(
    taught: tuple[Path, str], tiny_bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    for source in (taught[0], tiny_bundle):
        call(capsys, "threshold", source, "--value", "0.7", "-o", tmp_path / "next.edgead", "--force")
        written = Bundle.read(tmp_path / "next.edgead").manifest
        assert written.usability == Bundle.read(source).manifest.usability
        assert written.thresholds.image == 0.7


def test_a_dark_field_line_gets_a_threshold_and_verdicts(
    tiny_bundle: Path, engine_cache: Path, tmp_path: Path, capsys: Capture
) -> None:
    good = tmp_path / "good"
    good.mkdir()
    for index in range(6):
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[::8, index::9] = index  # dust, below what is black elsewhere
        Image.fromarray(picture).save(good / f"{index}.png")
    output = tmp_path / "dark.edgead"
    cache = ("--engine-cache", engine_cache)
    assert {status for status, _ in statuses(capsys, tiny_bundle, "--source", good / "*.png", *cache).values()} == {
        "unusable"
    }
    rule = ("--rule", "quantile", "--quantile", "0.5")
    said = call(capsys, "threshold", tiny_bundle, "--good", good, *rule, "-o", output, *cache)[1]
    assert "good frames are dark" in said
    assert "a covered lens is not seen" in said
    limits = Bundle.read(output).usability
    assert limits.black_below == 0
    assert {status for status, _ in statuses(capsys, output, "--source", good / "*.png", *cache).values()} == {"ok"}


def test_a_wrong_blur_check_is_said(tiny_bundle: Path, data: Path, capsys: Capture) -> None:
    assert main(["run", str(tiny_bundle), "--source", str(data), "--blur-check", "on"]) == 3
    assert "blur_check: wanted 'bundle' or 'off', got 'on'" in capsys.readouterr().err
