"""Float16 arithmetic written out in float32, against NumPy."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_ad.calibration.quantize.half_arithmetic import rounded_to_half


def half_graph(weights: np.ndarray, last: np.ndarray) -> bytes:
    """x float32 → float16: convolution, its double by an addition, ReLU, convolution → y float32."""
    nodes = [
        helper.make_node("Cast", ["x"], ["xh"], "in", to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["xh", "W"], ["a"], "first"),
        helper.make_node("Add", ["a", "a"], ["b"], "sum"),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        helper.make_node("Conv", ["c", "V"], ["d"], "second"),
        helper.make_node("Shape", ["d"], ["size"], "shape"),
        helper.make_node("Cast", ["d"], ["y"], "out", to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4]),
            helper.make_tensor_value_info("size", TensorProto.INT64, [4]),
        ],
        [
            numpy_helper.from_array(weights.astype(np.float16), "W"),
            numpy_helper.from_array(last.astype(np.float16), "V"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def run(data: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    y, size = session.run(None, {"x": x})
    assert size.tolist() == [1, 2, 4, 4]
    return np.asarray(y)


def by_numpy(x: np.ndarray, weights: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The same, rounded after each operation; sums in float32."""

    def half(value: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return value.astype(np.float16).astype(np.float32)

    first = half(np.einsum("oi,nihw->nohw", half(weights[:, :, 0, 0]), half(x)))
    hidden = np.maximum(half(first + first), 0)
    with np.errstate(invalid="ignore"):
        return half(np.einsum("oi,nihw->nohw", half(last[:, :, 0, 0]), hidden))


def test_every_result_is_rounded() -> None:
    rng = np.random.default_rng(0)
    x, weights, last = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((1, 3, 4, 4), (5, 3, 1, 1), (2, 5, 1, 1))
    )
    data = half_graph(weights, last)
    rounded = rounded_to_half(data)
    onnx.checker.check_model(onnx.load_model_from_string(rounded), full_check=True)
    wanted = by_numpy(x, weights, last)
    # A sum whose order differs may end on the other side of a rounding: one unit in the last place of float16.
    np.testing.assert_allclose(run(rounded, x), wanted, rtol=2**-10, atol=2**-12)
    exact = np.maximum(2 * np.einsum("oi,nihw->nohw", weights[:, :, 0, 0], x), 0)
    assert np.abs(np.einsum("oi,nihw->nohw", last[:, :, 0, 0], exact) - wanted).max() > 2**-12  # control


@pytest.mark.parametrize(("factor", "overflows"), [(3e4, False), (6e4, True)])
def test_overflow_is_infinite(factor: float, overflows: bool) -> None:
    """The convolution itself stays below 65504, its double does not."""
    x, weights, last = np.zeros((1, 3, 4, 4), np.float32), np.zeros((5, 3, 1, 1)), np.full((2, 5, 1, 1), 1e-4)
    x[0, 0], weights[0, 0] = 1.0, factor
    wanted = by_numpy(x, weights, last)
    found = run(rounded_to_half(half_graph(weights, last)), x)
    assert np.isfinite(found).all() != overflows
    np.testing.assert_allclose(found, wanted, rtol=2**-10)
