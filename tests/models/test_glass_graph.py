"""The graph that is exported of a GLASS network stays what it was, whatever other families bring.

Bundles that are exported again from the same checkpoint are the same files then, and what was calibrated or built for
them is found in the caches. Operators, their order and the tensors' names are compared as they are, constants by their
sums: their last bits may hang on the processor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

WAS = Path(__file__).with_name("glass_graph.json")
WRITTEN_BY_THE_TRACER = frozenset({"Constant", "Identity"})
"""Another version of PyTorch may write more or fewer of them."""


def described(model: onnx.ModelProto) -> dict[str, Any]:
    """Operators in their order, and the shape, the sum and the sum of squares of every constant."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {
        "operators": [node.op_type for node in model.graph.node if node.op_type not in WRITTEN_BY_THE_TRACER],
        "constants": {
            name: [
                list(value.shape),
                float(value.sum(dtype=np.float64)),
                float((value.astype(np.float64) ** 2).sum()),
            ]
            for name, value in constants.items()
        },
    }


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found["operators"] == wanted["operators"]
    assert list(found["constants"]) == list(wanted["constants"])
    for name, (shape, total, power) in wanted["constants"].items():
        got_shape, got_total, got_power = found["constants"][name]
        assert got_shape == shape, name
        assert got_total == pytest.approx(total, rel=1e-5, abs=1e-5 * max(power, 1)), name
        assert got_power == pytest.approx(power, rel=1e-5), name


def test_the_graph_of_glass_is_what_it_was(tiny_bundle: Path) -> None:
    wanted = json.loads(WAS.read_text())
    found = described(onnx.load(tiny_bundle / "model.onnx"))
    assert_same(found, wanted)
    for change in ("another order", "another weight"):
        other = json.loads(json.dumps(found))
        if change == "another order":
            other["operators"][2:4] = other["operators"][3:1:-1]
        else:
            last = next(reversed(other["constants"].values()))
            last[2] *= 1 + 1e-4
        with pytest.raises(AssertionError):
            assert_same(other, wanted)
