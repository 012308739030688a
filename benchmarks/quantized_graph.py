"""What can be said of a quantized graph: its types and faults, what it computes, and how far that is from float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from ways_to_quantize import Image

from edge_ad.calibration.quantize.lint import qdq_faults
from edge_ad.openvino_core import openvino_core

KINDS = {
    "operator set": "opset",
    "its type is": "type",
    "zero point": "zero point",
    "dequantizes int32": "int32 bias",
    "stored quantized": "weights without a pair",
    "not quantized": "half a pair",
    "has no Dequantize": "half a pair",
    "shared by": "shared pairs",
    "scales": "scales",
    "float": "tail",
}
"""Words of the lint and what the table calls them; the first that fits."""


def compiled(
    path: Path, shape: tuple[int, ...], *, logits: bool = False
) -> Callable[[Image], list[NDArray[np.float32]]]:
    """The graph on OpenVINO in float32 or int8: image → patch_map, pred_score, and the patch logits when wanted."""
    model = onnx.load_model(path)
    names = ["patch_map", "pred_score"]
    if logits:
        sigmoid = next(node for node in model.graph.node if "patch_map" in node.output)
        names.append(sigmoid.input[0])
        model.graph.output.append(onnx.helper.make_tensor_value_info(names[-1], onnx.TensorProto.FLOAT, None))
    core = openvino_core()
    network = core.read_model(model.SerializeToString())
    network.reshape(list(shape))
    options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(network, "CPU", options).create_infer_request()

    def run(image: Image) -> list[NDArray[np.float32]]:
        request.infer({0: image}, share_inputs=True)
        return [np.array(request.get_tensor(name).data) for name in names]

    return run


def sqnr_db(reference: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    """Variance of the reference over the mean squared difference, in dB."""
    wanted = reference.astype(np.float64)
    return float(10 * np.log10(wanted.var() / ((got - wanted) ** 2).mean()))


def activation_types(model: onnx.ModelProto) -> str:
    """Types that activations are quantized to, by the zero points of their QuantizeLinear nodes."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    types = {
        onnx.TensorProto.DataType.Name(stored[node.input[2]].data_type).lower()
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in stored and node.input[2] in stored
    }
    return "/".join(sorted(types)) or "–"


def lint_summary(model: onnx.ModelProto) -> str:
    """Kinds of faults with their number, or `ok`."""
    kinds = Counter(next((k for words, k in KINDS.items() if words in f), "other") for f in qdq_faults(model))
    return ", ".join(f"{kind} ×{count}" for kind, count in kinds.items()) or "ok"
