"""Placing explicit Q/DQ with ONNX Runtime's quantizer, in the one form that every consumer takes.

Every quantized layer has Q/DQ pairs of its own on its input and on its weights (TensorRT 8 cannot share them and wants
the weights as float before them), symmetric int8 with zero point 0, float biases. A residual addition reads its skip
through a pair too, and its convolution straight: so TensorRT and OpenVINO add inside of the convolution, in int8.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from edge_ad.calibration.quantize.graph import Graph
from edge_ad.calibration.quantize.rounding import RoundedWeight
from edge_ad.errors import ExportError, one_line

OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": True,
    "OpTypesToExcludeOutputQuantization": ["Conv"],
}


FLOAT_READERS = frozenset({"Conv", "AveragePool", "Pow"})
"""What reads its input as it is, but for layers that are quantized. OpenVINO 2026.4 moves a pair behind an average with
padding and computes something else; and a square is part of a distance, which must not end where the good pictures that
gave the range do."""


def with_qdq(graph: Graph, ranges: Mapping[str, float], weights: Mapping[str, RoundedWeight]) -> bytes:
    """The graph with Q/DQ around some of its layers.

    Args:
        graph: float; it stays as it is.
        ranges: greatest representable value of every tensor that those layers read.
        weights: rounded weights of those layers, by their names.

    Raises: ExportError when ONNX Runtime's quantizer fails.
    """
    if not weights:
        return graph.serialized()  # the quantizer takes a list of no layers for all of them
    changed = graph.copy()
    overrides: dict[str, list[dict[str, object]]] = {}
    from onnxruntime.quantization import QuantType

    for layer in changed.layers:
        if layer.name not in weights:
            continue
        rounded = weights[layer.name]
        changed.replace(layer.weight, rounded.value)
        changed.add_to_bias(layer, rounded.bias_correction)
        overrides[layer.weight] = [
            {"quant_type": QuantType.QInt8, "axis": 0, "scale": scale, "zero_point": np.int8(0)}
            for scale in rounded.scale
        ]
    quantized = _placed(changed, ranges, list(weights), overrides)
    _unquantize_others(quantized, weights)
    _separate_pairs(quantized)
    return quantized.serialized()


def _placed(
    graph: Graph, ranges: Mapping[str, float], layers: Collection[str], overrides: dict[str, list[dict[str, object]]]
) -> Graph:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer

    span = {name: TensorData(lowest=np.float32(-reach), highest=np.float32(reach)) for name, reach in ranges.items()}
    try:
        with _quiet():
            quantizer = QDQQuantizer(
                save_and_reload_model_with_shape_infer(graph.model),
                True,  # per channel
                False,  # full range: AVX512-VNNI and newer do not overflow
                QuantType.QInt8,
                QuantType.QInt8,
                span,
                list(layers),
                [],
                ["Conv"],
                {**OPTIONS, "TensorQuantOverrides": overrides},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
            model = quantizer.model.model
    except Exception as exc:
        raise ExportError(f"ONNX Runtime's quantizer failed: {one_line(exc)}") from exc
    del model.metadata_props[:]
    return Graph(model)


def _unquantize_others(graph: Graph, layers: Collection[str]) -> None:
    """Let FLOAT_READERS that are no layers read their inputs as they are, and drop pairs that nobody reads then."""
    nodes = graph.model.graph.node
    produced = {out: node for node in nodes for out in node.output}
    for node in nodes:
        if node.op_type in FLOAT_READERS and node.name not in layers and node.input[0] in produced:
            pair_end = produced[node.input[0]]
            if pair_end.op_type == "DequantizeLinear":
                node.input[0] = produced[pair_end.input[0]].input[0]
    while unread := _unread_pairs(graph):
        for node in unread:
            nodes.remove(node)


def _separate_pairs(graph: Graph) -> None:
    """Give every reader a pair of its own; the quantizer does so for convolutions, not for additions beside them."""
    import onnx

    nodes = list(graph.model.graph.node)
    produced = {out: node for node in nodes for out in node.output}
    taken: set[str] = set()
    ordered = []
    for node in nodes:
        for index, name in enumerate(node.input):
            pair_end = produced.get(name)
            if pair_end is None or pair_end.op_type != "DequantizeLinear":
                continue
            if name not in taken:
                taken.add(name)
                continue
            for part in (produced[pair_end.input[0]], pair_end):
                copy = onnx.NodeProto()
                copy.CopyFrom(part)
                copy.name = f"{part.name}.{node.name}"
                copy.output[0] = f"{part.output[0]}.{node.name}"
                if part is pair_end:
                    copy.input[0] = f"{pair_end.input[0]}.{node.name}"
                ordered.append(copy)
            node.input[index] = f"{name}.{node.name}"
        ordered.append(node)
    kept = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.model.graph.node[:]
    graph.model.graph.node.extend(kept)


def _unread_pairs(graph: Graph) -> list[object]:
    read = {name for node in graph.model.graph.node for name in node.input} | graph.outputs
    return [
        node
        for node in graph.model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.output[0] not in read
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer advises on its root logger; what it says is about options that are chosen on purpose."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
