"""Bundles of earlier releases are read, judge as they did, and become new ones when something is written into them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from sealed_bundles import seal

from edge_ad.bundle.bundle import MANIFEST, Bundle
from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.cli.main import main

DEMO = Path(str(resources.files("edge_ad.demo") / "disc.edgead"))
SCHEMA_1 = Path(__file__).parent / "schema_1" / MANIFEST
"""As edge-ad 0.1 wrote it: no activation, no smoothing, no order of channels, one threshold."""


@pytest.fixture
def old_bundle(tmp_path: Path) -> Path:
    """The graph that ships today under the manifest of then."""
    graph = (DEMO / "model.onnx").read_bytes()
    hashed = f"model.onnx: {hashlib.sha256(graph).hexdigest()}"
    text, replaced = re.subn(r"model\.onnx: [0-9a-f]{64}", hashed, SCHEMA_1.read_text())
    assert replaced == 1
    return seal(tmp_path / "old.edgead", text.encode(), graph)


def test_the_first_schema_is_read(old_bundle: Path) -> None:
    manifest = Bundle.read(old_bundle).manifest
    assert manifest.schema_version == 1
    assert manifest.postprocess == PostprocessSpec()
    assert manifest.preprocess.channel_order == "rgb"
    assert (manifest.thresholds.image, manifest.thresholds.pixel, manifest.thresholds.pixels) == (0.253, None, 0.253)


def test_the_first_schema_judges_as_the_shipped_one(old_bundle: Path, tmp_path: Path, engine_cache: Path) -> None:
    scores = []
    for bundle in (old_bundle, DEMO):
        output = tmp_path / bundle.stem
        arguments = [
            "--source",
            "sim:?frames=12&seed=5&defects=0.4",
            "--threshold",
            "0.253",
            "--engine-cache",
            str(engine_cache),
        ]
        assert main(["run", str(bundle), *arguments, "--output", str(output)]) == 0
        records = [json.loads(line) for line in (output / "verdicts.jsonl").read_text().splitlines()]
        assert {record["status"] for record in records} == {"ok"}
        scores.append([record["score"] for record in records])
        right = sum((record["verdict"] == "anomalous") == record["truth"]["anomalous"] for record in records)
        assert len(records) == 12 and right >= 10
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_what_is_written_has_the_second_schema(old_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Bundle.read(old_bundle).manifest
    assert main(["threshold", str(old_bundle), "--value", "0.3", "--in-place"]) == 0
    after = Bundle.read(old_bundle).manifest
    assert after.schema_version == 2
    assert after.thresholds.image == 0.3
    assert replace(after, schema_version=1, thresholds=before.thresholds, usability=before.usability) == before
    written = (old_bundle / MANIFEST).read_text()
    for said in ("activation: sigmoid", "smoothing: gaussian", "resize: bilinear", "channel_order: rgb"):
        assert said in written


@pytest.mark.parametrize("command", ["info", "run"])
def test_the_third_schema_is_refused(
    old_bundle: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (old_bundle / MANIFEST).read_text().replace("schema_version: 1", "schema_version: 3\nbank: memory.bin")
    newer = seal(tmp_path / "newer.edgead", text.encode(), (old_bundle / "model.onnx").read_bytes())
    assert main([command, str(newer), *(["--source", "sim:?frames=1"] if command == "run" else [])]) == 5
    told = capsys.readouterr()
    assert told.out == "" and "schema version 3, this edge-ad reads 2; update edge-ad" in told.err
