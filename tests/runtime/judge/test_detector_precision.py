"""Which graph of a bundle judges, against which threshold; and graphs that are in no bundle yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_ad
from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.manifest import Quantization
from edge_ad.bundle.specs import Precision, Thresholds
from edge_ad.errors import BundleError, ConfigError
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_graph

ATOL = 1e-6  # of a probability, between graphs that differ by an exact factor
IMAGE = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
PASSED = Quantization("mse", 300, "a" * 64, 0, 9, (), "passed", 60, 0, None, 0.999, 3.0)


@pytest.fixture
def two(two_precisions: Path) -> Bundle:
    return Bundle.read(two_precisions)


def judged(detector: Detector) -> tuple[float, str | None]:
    with detector:
        verdict = detector.judge(IMAGE)
    assert verdict.score is not None
    return verdict.score, verdict.verdict


@pytest.fixture
def whole_score(tiny_bundle: Path, engine_cache: Path) -> float:
    """What the float graph says of the picture; the other graph says half of it."""
    return judged(edge_ad.open(tiny_bundle, engine_cache=engine_cache))[0]


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_the_proven_precision_judges_unless_told(
    two: Bundle, tmp_path: Path, engine_cache: Path, whole_score: float, engine: str
) -> None:
    proven = write_changed(two, tmp_path / "proven.edgead", {"quantization": {"int8": PASSED}})
    unsaid: Precision | None = None
    cases = ((two, unsaid, 1.0), (proven, unsaid, 0.5), (two, "int8", 0.5), (proven, "fp32", 1.0))
    assert whole_score > 0.1  # so that a half of it is something else
    for bundle, precision, factor in cases:
        detector = edge_ad.open(bundle, engine=engine, precision=precision, engine_cache=engine_cache)
        assert judged(detector)[0] == pytest.approx(factor * whole_score, abs=ATOL)
        assert detector.provenance.precision == ("int8" if factor == 0.5 else "fp32")


def test_a_precision_is_judged_by_its_own_threshold(
    two: Bundle, tmp_path: Path, engine_cache: Path, whole_score: float
) -> None:
    changes: dict[str, Any] = {
        "thresholds": Thresholds(0.9 * whole_score),
        "precision_thresholds": {"int8": Thresholds(0.4 * whole_score)},
    }
    own = write_changed(two, tmp_path / "own.edgead", changes)
    shared = write_changed(two, tmp_path / "shared.edgead", changes | {"precision_thresholds": {}})
    cases = ((own, "fp32", "anomalous"), (own, "int8", "anomalous"), (shared, "int8", "normal"))
    for bundle, precision, label in cases:
        assert judged(edge_ad.open(bundle, precision=precision, engine_cache=engine_cache))[1] == label
    told = edge_ad.open(own, precision="int8", threshold=0.6 * whole_score, engine_cache=engine_cache)
    assert judged(told)[1] == "normal"


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_graph_judges_as_its_bundle_does(
    tiny_bundle: Path, halved_graph: bytes, engine_cache: Path, whole_score: float, engine: str
) -> None:
    bundle = Bundle.read(tiny_bundle)
    same = open_graph(bundle, bundle.read_file("model.onnx"), "fp32", engine=engine)
    reference = edge_ad.open(bundle, engine=engine, engine_cache=engine_cache)
    with same, reference:
        one, other = same.judge(IMAGE[:50]), reference.judge(IMAGE[:50])  # preprocessing has something to do
    assert (one.score, one.threshold, one.inspected_box) == (other.score, 0.5, other.inspected_box)
    halved = open_graph(bundle, halved_graph, "int8", engine=engine)
    assert judged(halved)[0] == pytest.approx(whole_score / 2, abs=ATOL)
    assert halved.provenance.precision == "int8"
    assert halved.provenance.bundle == bundle.sha256


def test_a_graph_is_judged_by_the_threshold_of_its_precision(
    two: Bundle, tmp_path: Path, halved_graph: bytes, whole_score: float
) -> None:
    own = {"int8": Thresholds(0.4 * whole_score)}
    bundle = write_changed(two, tmp_path / "own.edgead", {"precision_thresholds": own, "thresholds": Thresholds(0.99)})
    assert judged(open_graph(bundle, halved_graph, "int8"))[1] == "anomalous"
    assert judged(open_graph(bundle, halved_graph, "fp32"))[1] == "normal"


def test_a_graph_is_kept_only_where_that_is_asked_for(
    tiny_bundle: Path, halved_graph: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    bundle = Bundle.read(tiny_bundle)
    for _ in range(2):
        with open_graph(bundle, halved_graph, "int8") as detector:
            assert not detector.from_cache
    assert list(tmp_path.iterdir()) == []
    whole_graph = bundle.read_file("model.onnx")
    # The last is another graph: nothing of the first one's may stand in for it.
    for graph, from_cache in ((halved_graph, False), (halved_graph, True), (whole_graph, False)):
        with open_graph(bundle, graph, "int8", engine_cache=tmp_path / "kept") as detector:
            assert detector.from_cache == from_cache
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


def test_what_cannot_be_opened_says_so(tiny_bundle: Path, halved_graph: bytes) -> None:
    bundle = Bundle.read(tiny_bundle)
    with pytest.raises(BundleError, match="wire type 6"):
        open_graph(bundle, b"no graph", "int8")
    with pytest.raises(ConfigError, match="'openvno' is unknown"):
        open_graph(bundle, halved_graph, "int8", engine="openvno")
    with pytest.raises(BundleError, match="holds no fp16 model, only fp32"):
        edge_ad.open(bundle, precision="fp16")
