"""A square matrix product on OpenVINO, in a wanted arithmetic that is looked up afterwards, not believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EngineError
from edge_ad.openvino_core import load_openvino, openvino_core, openvino_reason

HINTS: Mapping[str, str] = {"fp32": "f32", "int8": "f32", "fp16": "f16", "bf16": "bf16"}
"""What OpenVINO is asked for; int8 lies in the graph."""
RUNS_AS: Mapping[str, frozenset[str]] = {
    "fp32": frozenset({"f32"}),
    "int8": frozenset({"i8", "u8"}),
    "fp16": frozenset({"f16"}),
    "bf16": frozenset({"bf16"}),
}
PRODUCTS = ("FullyConnected", "MatMul")
THREADS = "INFERENCE_NUM_THREADS"


class Gemm:
    """A (side, side) · (side, side) product with fixed weights, compiled as the engine `openvino` compiles a bundle.

    Args:
        side: rows and columns.
        arithmetic: a key of `HINTS`.
        depth: products one after the other, each of the last one's result; more than one in fp32 only.

    Attributes:
        macs: multiply-accumulates of one call.
        threads: that OpenVINO computes it with.
        kernel: name of the kernel that computes it.
        effective: arithmetic of that kernel, as OpenVINO names it, such as `i8`.

    Raises: EngineError when OpenVINO cannot compile it.
    """

    def __init__(self, side: int, arithmetic: str, *, depth: int = 1) -> None:
        try:
            openvino = load_openvino()
        except ModuleNotFoundError as exc:
            raise EngineError("the yardstick needs the package 'openvino': pip install openvino") from exc
        self.macs = depth * side**3
        rng = np.random.default_rng(0)
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_PRECISION_HINT": HINTS[arithmetic],
        }
        try:
            is_int8 = arithmetic == "int8"
            model = _int8_product(openvino, side, rng) if is_int8 else _products(openvino, side, depth, rng)
            wanted = np.uint8 if is_int8 else np.float32
            self._operand = rng.integers(0, 8, (side, side)).astype(wanted)
            core = openvino_core()
            self.kernel, self.effective = _what_runs(core, model, config, self._operand)
            self._compiled = core.compile_model(model, "CPU", config)
            self.threads = int(self._compiled.get_property(THREADS))
            self._request = self._compiled.create_infer_request()
        except (RuntimeError, UnicodeDecodeError) as exc:
            raise EngineError(f"OpenVINO cannot compile a {arithmetic} matrix product: {openvino_reason(exc)}") from exc
        self.is_as_asked = self.effective in RUNS_AS[arithmetic]

    def run(self) -> None:
        """Compute the product once."""
        self._request.infer({0: self._operand}, share_inputs=True)


def _opset() -> Any:
    try:
        return load_openvino("opset8")
    except ModuleNotFoundError:  # where it was before 2025
        return load_openvino("runtime.opset8")


def _products(openvino: Any, side: int, depth: int, rng: np.random.Generator) -> Any:
    opset = _opset()
    first = last = opset.parameter([side, side], np.float32)
    for _ in range(depth):
        weights = rng.standard_normal((side, side)).astype(np.float32) / np.float32(side**0.5)
        last = opset.relu(opset.matmul(last, opset.constant(weights), False, False))
    return openvino.Model([last], [first], "gemm")


def _int8_product(openvino: Any, side: int, rng: np.random.Generator) -> Any:
    """Bytes times bytes; the operand comes as bytes, so that quantizing it is no part of the time."""
    opset = _opset()
    left = opset.parameter([side, side], np.uint8)
    bounds = [np.float32(value) for value in (0, 255, 0, 2.55)]
    activation = opset.fake_quantize(opset.convert(left, "f32"), *bounds, 256)
    weights = opset.constant(rng.integers(-127, 128, (side, side)).astype(np.int8))
    right = opset.multiply(opset.convert(weights, "f32"), np.float32(0.01))
    return openvino.Model([opset.matmul(activation, right, False, False)], [left], "gemm")


def _what_runs(core: Any, model: Any, config: Mapping[str, str], operand: NDArray[Any]) -> tuple[str, str]:
    """Kernel and arithmetic of the product, by the account of a second instance, which is slower for keeping it."""
    request = core.compile_model(model, "CPU", {**config, "PERF_COUNT": "YES"}).create_infer_request()
    request.infer({0: operand}, share_inputs=True)
    for node in request.get_profiling_info():
        kernel = str(node.exec_type)
        if str(node.node_type).startswith(PRODUCTS) and kernel:
            return kernel, kernel.rpartition("_")[2].lower().replace("fp", "f")
    return "", ""
