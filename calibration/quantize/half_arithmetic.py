"""Float16 arithmetic on engines that do not have it.

On a CPU, ONNX Runtime and OpenVINO compute most of a float16 graph in float32 and leave out the casts that this makes
superfluous, so what overflows on the device (float16 ends at 65504) is harmless there. A pair of casts that stands in a
float32 graph is computed by ONNX Runtime as it is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import NodeProto

WITHOUT_VALUES = frozenset({"Shape"})  # reads a float16 tensor, but computes nothing in float16


def rounded_to_half(data: bytes) -> bytes:
    """The graph that computes in float32 what the given one computes in float16, and rounds every result to float16.

    Sums inside of one operation are those of float32, as tensor cores have them.

    Args:
        data: serialised ONNX with float16 initializers, and Cast to and from float16.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_model_from_string(data)
    half: set[str] = set()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            half.add(tensor.name)
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        wanted = _cast_to(node)
        reads_half = any(name in half for name in node.input)
        if wanted == TensorProto.FLOAT16:
            nodes += _rounding(node.input[0], node.output[0])
            half.add(node.output[0])
        elif wanted == TensorProto.FLOAT and reads_half:
            nodes.append(helper.make_node("Identity", node.input, node.output, node.name))
        elif wanted is None and reads_half and node.op_type not in WITHOUT_VALUES:
            outputs = list(node.output)
            node.output[:] = [f"{name}.exact" for name in outputs]
            nodes.append(node)
            for name in outputs:
                nodes += _rounding(f"{name}.exact", name)
            half.update(outputs)
        else:
            nodes.append(node)
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    del model.graph.value_info[:]
    model.graph.node.extend(kept)
    rounding: bytes = model.SerializeToString()
    return rounding


def _cast_to(node: NodeProto) -> Any:
    """Type that a Cast makes; None for another operation."""
    return next((each.i for each in node.attribute if each.name == "to"), None) if node.op_type == "Cast" else None


def _rounding(source: str, output: str) -> list[NodeProto]:
    from onnx import TensorProto, helper

    between = f"{output}.rounded"
    return [
        helper.make_node("Cast", [source], [between], f"{between}.cast", to=TensorProto.FLOAT16),
        helper.make_node("Cast", [between], [output], f"{output}.cast", to=TensorProto.FLOAT),
    ]
