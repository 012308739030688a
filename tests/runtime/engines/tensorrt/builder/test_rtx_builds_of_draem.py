"""DRAEM's bundle, in float and in int8, to NVIDIA's builder: aligned corners, sums of parts, the mean of a square."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_ad.bundle.bundle import Bundle

pytestmark = pytest.mark.rung(3)

Builds = Callable[..., list[dict[str, Any]]]
ELEMENT = {"fp32": ("float", 4), "int8": ("int8", 1)}
PADDED = {"fp32": 1.05, "int8": 1.6}
"""Most bytes that constants may take, of the weights': kernels pad the few channels of the first blocks."""
LEFT_FLOAT = 0.1
"""Most that biases, scales, the last convolution and the tail may take, of the float weights' bytes."""


def weights_of(bundle: Path) -> int:
    """How many weights the convolutions of the float graph have."""
    model = onnx.load(bundle / "model.onnx")
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return sum(prod(shapes[node.input[1]]) for node in model.graph.node if node.op_type == "Conv")


def test_every_precision_becomes_an_engine_of_that_type(
    tiny_draem: Path, build_engines: Builds, tmp_path: Path
) -> None:
    """With its own tail and without, for any batch up to four."""
    wanted = list(product(ELEMENT, ("graph", "kernel")))
    common = {"bundle": tiny_draem, "flavour": "rtx", "sm": "86", "batch": 4, "engine_cache": tmp_path}
    results = build_engines(*({"precision": precision, "tail": tail, **common} for precision, tail in wanted))
    weights, files = weights_of(tiny_draem), Bundle.read(tiny_draem).manifest.files
    floats = {}
    for (precision, tail), built in zip(wanted, results, strict=True):
        case = (precision, tail, built)
        assert "error" not in built and built["notes"] == [], case
        fingerprint = json.loads(Path(built["path"]).with_suffix(".json").read_text())["fingerprint"]
        assert fingerprint["onnx_sha256"] == files["model.onnx" if precision == "fp32" else "model.int8.onnx"], case
        (element, width), payload = ELEMENT[precision], built["payload"]
        assert 0.95 * width * weights <= payload[element] <= PADDED[precision] * width * weights, case
        assert set(payload) <= {"float", element}, case
        if precision == "int8":
            assert payload["float"] <= LEFT_FLOAT * 4 * weights, case
        floats[precision, tail] = payload["float"]
    for precision in ELEMENT:
        assert floats[precision, "kernel"] < floats[precision, "graph"], "the matrices of the smoothing"
