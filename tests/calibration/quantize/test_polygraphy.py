"""NVIDIA's polygraphy, a second reader of the Q/DQ graphs, finds nothing wrong with them and folds them unharmed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edge_ad.calibration.quantize.lint import qdq_faults
from edge_ad.export.parity import probe_images

pytestmark = pytest.mark.rung(2)

SIZE_HW = (64, 64)
Quantizer = Callable[[bytes, tuple[int, int]], bytes]
Polygraphy = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def polygraphy() -> Polygraphy:
    """polygraphy's command line: arguments → finished process."""
    missing = [name for name in ("polygraphy", "onnx_graphsurgeon") if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"{' and '.join(missing)} not installed: pip install polygraphy onnx-graphsurgeon"
        if os.environ.get("EDGE_AD_REQUIRE_LADDER"):
            pytest.fail(reason)
        pytest.skip(reason)
    # Left alone it would install what it misses.
    environment = os.environ | {"POLYGRAPHY_AUTOINSTALL_DEPS": "0"}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        # Its entry point is a script without a module.
        program = "import sys; from polygraphy.tools import main; sys.exit(main())"
        command = [sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)

    return run


@pytest.fixture(scope="module")
def resnet18_quantized(resnet18_float: bytes, quantized: Quantizer) -> bytes:
    return quantized(resnet18_float, SIZE_HW)


@pytest.fixture(scope="module")
def mobilenet_quantized(mobilenet_float: bytes, quantized: Quantizer) -> bytes:
    return quantized(mobilenet_float, SIZE_HW)


@pytest.fixture(scope="module", params=["resnet18", "mobilenet"])
def quantized_file(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    path.write_bytes(request.getfixturevalue(f"{request.param}_quantized"))
    return path


def test_lint_passes(polygraphy: Polygraphy, quantized_file: Path) -> None:
    done = polygraphy("check", "lint", quantized_file)
    assert done.returncode == 0 and "PASSED" in done.stdout, done.stdout + done.stderr


def test_lint_fails_on_a_cut_edge(polygraphy: Polygraphy, resnet18_quantized: bytes, tmp_path: Path) -> None:
    model = onnx.load_model_from_string(resnet18_quantized)
    model.graph.node.remove(next(node for node in model.graph.node if node.op_type == "DequantizeLinear"))
    onnx.save_model(model, tmp_path / "cut.onnx")
    assert polygraphy("check", "lint", tmp_path / "cut.onnx").returncode != 0


def test_inspect_counts_the_pairs(polygraphy: Polygraphy, quantized_file: Path) -> None:
    done = polygraphy("inspect", "model", quantized_file, "--show", "layers")
    assert done.returncode == 0, done.stdout + done.stderr
    model = onnx.load_model(quantized_file)
    for kind in ("QuantizeLinear", "DequantizeLinear"):
        wanted = sum(node.op_type == kind for node in model.graph.node)
        assert done.stdout.count(f"[Op: {kind}]") == wanted > 20


def test_folding_constants_keeps_pairs_and_results(
    polygraphy: Polygraphy, quantized_file: Path, tmp_path: Path
) -> None:
    folded = tmp_path / "folded.onnx"
    done = polygraphy("surgeon", "sanitize", "--fold-constants", quantized_file, "-o", folded)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = onnx.load_model(quantized_file), onnx.load_model(folded)
    assert qdq_faults(after) == []
    counts = [sum(node.op_type == "QuantizeLinear" for node in model.graph.node) for model in (before, after)]
    assert counts[0] == counts[1]
    images = probe_images(SIZE_HW, count=2)
    results = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": images})
        for path in (quantized_file, folded)
    ]
    for one, other in zip(*results, strict=True):
        # Only Identity nodes go; the arithmetic is the same.
        np.testing.assert_allclose(one, other, atol=1e-6)
