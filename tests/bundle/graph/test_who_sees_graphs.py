"""Every place at which a library of others is handed a graph: none of them gets one that was not checked."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import onnx
import pytest
from hostile_graphs import OPERATORS, with_part
from PIL import Image
from sealed_bundles import with_graph

from edge_ad.bundle.bundle import Bundle
from edge_ad.cli.main import main
from edge_ad.errors import BundleError
from edge_ad.runtime.engines.tensorrt.builder.build import graph_of

ROOT = Path(__file__).resolve().parents[3]
READERS = frozenset(
    {"read_model", "import_model", "compile_model", "InferenceSession", "OnnxParser", "load_model_from_string"}
)
OF_BUNDLES = {
    "calibration/evaluation/noise_seeds.py",
    "calibration/learn/graph.py",
    "runtime/engines/openvino.py",
    "runtime/engines/onnxruntime.py",
    "runtime/engines/tensorrt/builder/network.py",
    "runtime/instruments/bench/layers.py",
    "runtime/instruments/bench/macs.py",
}
"""They are given a `CheckedGraph`, which mypy holds."""
OF_OUR_OWN = {
    "calibration/learn/rehearsal.py",
    "calibration/quantize/graph.py",
    "calibration/quantize/half_arithmetic.py",
    "calibration/quantize/lint.py",
    "calibration/quantize/observe.py",
    "export/openvino_ir.py",
    "export/parity.py",
    "runtime/instruments/bench/gemm.py",
}
"""They are given what edge-ad has just made, of a graph that was checked or of a network."""


def readers(source: str) -> set[str]:
    """Names of calls that hand a graph to somebody, in the text of a module."""
    called = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = {call.attr for call in called if isinstance(call, ast.Attribute)}
    names |= {call.id for call in called if isinstance(call, ast.Name)} - {"read_model"}  # what an engine is given
    return names & READERS


def test_graphs_are_handed_out_at_known_places_alone() -> None:
    """A new place belongs into one of the two lists: with what keeps it from graphs that were not checked."""
    folders = ("edge_ad", "calibration", "export", "runtime")
    own = ROOT / "edge_ad" / "bundle" / "graph"  # whose `read_model` is the reader itself
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if own not in path.parents and readers(path.read_text("utf-8"))
    }
    assert found == OF_BUNDLES | OF_OUR_OWN


def test_a_new_place_would_be_seen() -> None:
    assert readers("def load(core):\n    core.read_model(path)") == {"read_model"}
    assert readers("from onnxruntime import InferenceSession\nInferenceSession(b'')") == {"InferenceSession"}


@pytest.fixture
def hostile(micro_bundle: Path, micro_graph: bytes, tmp_path: Path) -> Path:
    graph = with_part(micro_graph, OPERATORS["GatherND"](2**31))
    return with_graph(micro_bundle, graph, tmp_path / "hostile.edgead")


def test_calibration_refuses_it(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    def called(*_: object, **__: object) -> None:
        raise AssertionError("an engine was called")

    monkeypatch.setattr(onnxruntime, "InferenceSession", called)
    monkeypatch.setattr(onnx, "load_model_from_string", called)
    good = tmp_path / "data" / "train" / "good"
    good.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(good / f"{number}.png")
    arguments = ["--data", str(tmp_path / "data"), "--gate", "off", "--output", str(tmp_path / "new.edgead")]
    assert main(["calibrate", str(hostile), *arguments]) == 5
    assert "(GatherND): this operator is not among" in capsys.readouterr().err
    assert not (tmp_path / "new.edgead").exists()


def test_a_builder_of_engines_refuses_it(hostile: Path) -> None:
    with pytest.raises(BundleError, match=r"\(GatherND\): this operator is not among"):
        graph_of(Bundle.read(hostile), None).read()


def test_a_file_for_other_tools_is_never_read(
    micro_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """model.xml can hold anything: no engine of ours is given it."""
    from edge_ad.bundle.bundle import write_changed

    files = {"model.xml": b"<net><layers/></net>", "model.bin": b"\0" * 8}
    changes = {"openvino_ir": {"fp32": "model.xml"}}
    bundle = write_changed(Bundle.read(micro_bundle), tmp_path / "ir.edgead", changes, files=files).path
    folders = ["--engine-cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out")]
    assert main(["run", str(bundle), "--source", "sim:?frames=1", *folders]) == 0
    capsys.readouterr()
