"""Bundles that have learned good pictures, to NVIDIA's builder: the bank beside the network is standard operators."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.specs import Thresholds
from edge_ad.cli.main import main
from edge_ad.image.pictures import read_picture
from edge_ad.runtime.judge.loader import open_detector

pytestmark = pytest.mark.rung(3)


@pytest.mark.parametrize("family", ["glass", "draem"])
def test_a_learned_bundle_becomes_an_engine(
    family: str,
    request: pytest.FixtureRequest,
    checked_parts: Path,
    build_engines: Callable[..., list[dict[str, Any]]],
    engine_cache: Path,
    tmp_path: Path,
) -> None:
    source, good = (
        request.getfixturevalue({"glass": "tiny_bundle"}.get(family, f"tiny_{family}")),
        checked_parts / "test" / "good",
    )
    with open_detector(source, precision="fp32", engine_cache=engine_cache) as detector:
        scores = sorted(detector.judge(read_picture(str(path))).score or 0.0 for path in good.iterdir())
    start, learned = tmp_path / "start.edgead", tmp_path / "learned.edgead"
    write_changed(Bundle.read(source), start, {"thresholds": Thresholds((scores[-2] + scores[-3]) / 2)})
    assert (
        main(["learn", str(start), "--good", str(good), "-o", str(learned), "--engine-cache", str(engine_cache)]) == 0
    )
    (built,) = build_engines(
        {
            "bundle": learned,
            "flavour": "rtx",
            "sm": "86",
            "batch": 2,
            "precision": "fp32",
            "engine_cache": tmp_path / "e",
        }
    )
    assert "error" not in built and built["notes"] == [], built
    fingerprint = json.loads(Path(built["path"]).with_suffix(".json").read_text())["fingerprint"]
    assert fingerprint["onnx_sha256"] == Bundle.read(learned).manifest.files["model.onnx"]
