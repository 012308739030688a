"""Families that need the good pictures beside a checkpoint, and that give maps and scores of their own."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import edge_ad
from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.cli.main import main
from edge_ad.errors import ConfigError, SourceError
from edge_ad.models import FAMILIES
from edge_ad.models.references import ReferenceOptions, References

SPEC = PreprocessSpec(64, 64, resize_mode="stretch")


@pytest.fixture(autouse=True)
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setitem(FAMILIES, "far", "reference_family")
    monkeypatch.delitem(sys.modules, "reference_family", raising=False)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Good pictures are noise around one picture, defective ones have a bright square."""
    rng = np.random.default_rng(5)
    usual = rng.integers(40, 160, (64, 64, 3))
    for folder, count in (("train/good", 8), ("test/good", 5), ("test/spot", 5)):
        (tmp_path / "disc" / folder).mkdir(parents=True)
        for index in range(count):
            picture = usual + rng.integers(-8, 9, (64, 64, 3))
            picture[0, 0] = 255 * (index == 3)  # as far from the mean as any defect, so that int8 has the range
            if folder == "test/spot":
                picture[20:40, 10 : 30 + index] = 250
            Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "disc" / folder / f"{index}.png")
    return tmp_path / "disc"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"far": {"marker": torch.zeros(1)}}, tmp_path / "far.pth")
    return tmp_path / "far.pth"


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    found = main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    assert found == code, told.err
    return told.out + told.err


def test_a_score_of_the_graph_goes_all_the_way(
    parts: Path, checkpoint: Path, tmp_path: Path, engine_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, cache, good = tmp_path / "far.edgead", ("--engine-cache", engine_cache), parts / "train" / "good"
    run(capsys, "export", checkpoint, "-o", bundle, "--references", good)
    manifest = Bundle.read(bundle).manifest
    assert manifest.postprocess.scores == (0.0, math.inf) and manifest.postprocess.frame_map == "anomaly_map"
    assert manifest.model.config["references"] == [f"{index}.png" for index in range(8)]
    run(capsys, "threshold", bundle, parts, "--rule", "best-f1", "--in-place", *cache)
    threshold = Bundle.read(bundle).manifest.thresholds.image
    assert threshold is not None and threshold > 1  # in hundredths of the whole range: no probability
    run(capsys, "calibrate", bundle, "--data", good, "--val", parts / "test", "--in-place", *cache)
    with edge_ad.open(bundle, engine_cache=engine_cache) as detector:
        defective = detector.judge(np.asarray(Image.open(parts / "test" / "spot" / "0.png")))
        normal = detector.judge(np.asarray(Image.open(parts / "test" / "good" / "0.png")))
    assert (defective.verdict, normal.verdict) == ("anomalous", "normal")
    assert detector.bundle.manifest.models.keys() == {"fp32", "int8"}
    assert defective.maps is not None
    assert not defective.maps.anomaly_map[:2].any() and defective.maps.patch_map[:2].any()


def test_another_score_is_taken_from_the_map(
    parts: Path, checkpoint: Path, tmp_path: Path, engine_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network then gives none of its own: it was told."""
    bundle, good = tmp_path / "far.edgead", parts / "train" / "good"
    run(capsys, "export", checkpoint, "-o", bundle, "--references", good, "--score", "map_max")
    with edge_ad.open(bundle, engine_cache=engine_cache) as detector:
        verdict = detector.judge(np.asarray(Image.open(parts / "test" / "spot" / "0.png")))
    assert verdict.maps is not None and verdict.score == verdict.maps.anomaly_map.max() < 1
    again = ("export", checkpoint, "-o", tmp_path / "b", "--references", good)
    told = run(capsys, *again, "--score", "reweighted", code=3)
    assert "score: wanted map_max, patch_max or family, as the family has them, got reweighted" in told


def test_references_that_lack_are_said_in_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, "export", checkpoint, "-o", tmp_path / "b", code=3)
    assert told.count("\n") == 1 and not (tmp_path / "b").exists()
    assert "references: a far checkpoint does not hold its mean; give --references DIR" in told
    told = run(capsys, "export", checkpoint, "-o", tmp_path / "b", "--references", tmp_path / "none", code=3)
    assert re.search(r"references: .*none: no such folder", told)
    told = run(capsys, "export", checkpoint, "-o", tmp_path / "b", "--references", checkpoint, code=3)
    assert re.search(r"references: .*far\.pth: is no folder", told)


def test_references_are_an_option_of_those_that_want_them(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, "export", checkpoint, "--family", "draem", "--references", tmp_path, "-o", "b", code=3)
    assert "references: family 'draem' has no such option; it is one of" in told


def test_references_that_nobody_needs_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"far": {"marker": torch.zeros(1)}, "mean": torch.zeros(64, 64, 3)}, tmp_path / "whole.pth")
    empty = tmp_path / "empty"
    empty.mkdir()
    told = run(capsys, "export", tmp_path / "whole.pth", "-o", tmp_path / "b.edgead", "--references", empty)
    assert "holds all that it needs" in told and "were not read" in told


def test_references_at_model_size(parts: Path) -> None:
    found = References(parts / "train" / "good", SPEC)
    assert found.required("why") is found and len(found) == 8
    wanted = [np.asarray(Image.open(parts / "train" / "good" / name)) for name in found.names]
    assert all((one == other).all() for one, other in zip(found, wanted, strict=True))
    assert found.notes == ()


def test_that_references_are_read_is_said_once(parts: Path) -> None:
    """What is computed of them may take minutes."""
    said: list[str] = []
    folder = parts / "train" / "good"
    found = References(folder, SPEC, said.append)
    assert said == []
    assert len(list(found)) == len(list(found)) == 8
    assert said == [f"computing what the checkpoint lacks of 8 pictures of {folder}"]


def test_no_references(tmp_path: Path) -> None:
    none = References.of(ReferenceOptions(), SPEC)
    assert len(none) == 0 and list(none) == [] and none.names == () and none.notes == ()
    with pytest.raises(ConfigError, match="references: for the bank; give --references DIR"):
        none.required("for the bank")
    with pytest.raises(SourceError):
        len(References(tmp_path, SPEC))


def test_what_is_wrong_with_references_is_said(parts: Path) -> None:
    folder = parts / "train" / "good"
    (folder / "0.png").write_bytes(b"no picture")
    (folder / "1.png").write_bytes((folder / "2.png").read_bytes())
    found = References(folder, SPEC)
    assert len(found) == 7 and found.names[0] == "1.png"
    assert re.search("1 pictures left out: .*0.png.*", found.notes[0]) and "are the same" in found.notes[1]
