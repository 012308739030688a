"""DiffusionAD's bundle, in float and in int8, to NVIDIA's builder: groups, attention, the mean of the top."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_ad.bundle.bundle import Bundle

pytestmark = pytest.mark.rung(3)

Builds = Callable[..., list[dict[str, Any]]]
ELEMENT = {"fp32": ("float", 4), "int8": ("int8", 1)}


def weights_of(bundle: Path) -> int:
    """How many weights the convolutions of the float graph have, those of both passes once."""
    model = onnx.load(bundle / "model.onnx")
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return sum(prod(shapes[name]) for name in {node.input[1] for node in model.graph.node if node.op_type == "Conv"})


def test_every_precision_becomes_an_engine_of_that_type(
    tiny_diffusionad: Path, build_engines: Builds, tmp_path: Path
) -> None:
    """For any batch up to four."""
    common = {"bundle": tiny_diffusionad, "flavour": "rtx", "sm": "86", "batch": 4, "engine_cache": tmp_path}
    results = build_engines(*({"precision": precision, "tail": "graph", **common} for precision in ELEMENT))
    weights, files = weights_of(tiny_diffusionad), Bundle.read(tiny_diffusionad).manifest.files
    for precision, built in zip(ELEMENT, results, strict=True):
        case = (precision, built)
        assert "error" not in built and built["notes"] == [], case
        fingerprint = json.loads(Path(built["path"]).with_suffix(".json").read_text())["fingerprint"]
        assert fingerprint["onnx_sha256"] == files["model.onnx" if precision == "fp32" else "model.int8.onnx"], case
        (element, width), payload = ELEMENT[precision], built["payload"]
        assert payload[element] >= 0.95 * width * weights, case
        assert set(payload) <= {"float", element}, case
