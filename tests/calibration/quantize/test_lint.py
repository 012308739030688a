"""The lint of Q/DQ graphs: a good graph passes, and each fault planted into it is found alone and by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edge_ad.calibration.quantize.lint import check_qdq, qdq_faults
from edge_ad.errors import ExportError

pytestmark = pytest.mark.rung(2)

SIZE_HW = (64, 64)


@pytest.fixture(scope="module")
def good(resnet18_float: bytes, quantized: Callable[..., bytes]) -> bytes:
    return quantized(resnet18_float, SIZE_HW)


@pytest.fixture(scope="module")
def good_mobilenet(mobilenet_float: bytes, quantized: Callable[..., bytes]) -> bytes:
    return quantized(mobilenet_float, SIZE_HW)


def nodes(model: onnx.ModelProto, kind: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == kind]


def stored(model: onnx.ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def replace(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    stored(model, name).CopyFrom(numpy_helper.from_array(value, name))


def store(model: onnx.ModelProto, name: str, value: np.ndarray) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def pair(model: onnx.ModelProto, *, weights: bool) -> tuple[NodeProto, NodeProto]:
    """QuantizeLinear and DequantizeLinear of the first activation, or of the first weights with several channels."""
    names = {tensor.name for tensor in model.graph.initializer}
    quantize = next(node for node in nodes(model, "QuantizeLinear") if (node.input[0] in names) == weights)
    dequantize = next(node for node in nodes(model, "DequantizeLinear") if node.input[0] == quantize.output[0])
    return quantize, dequantize


def place(model: onnx.ModelProto, new: NodeProto, *, before: NodeProto) -> None:
    """Insert a node. Nodes that were taken from the model before do not belong to it any more: change them first."""
    order = list(model.graph.node)
    order.insert(order.index(before), new)
    del model.graph.node[:]
    model.graph.node.extend(order)


def reader(model: onnx.ModelProto, name: str) -> NodeProto:
    return next(node for node in model.graph.node if name in node.input)


def with_later_opset(model: onnx.ModelProto) -> str:
    model.opset_import[0].version = 19
    return "operator set ai.onnx 19: wanted 13 to 17"


def with_foreign_operators(model: onnx.ModelProto) -> str:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return "operator set com.microsoft 1: wanted ai.onnx alone"


def with_zero_point(model: onnx.ModelProto) -> str:
    quantize, _ = pair(model, weights=False)
    replace(model, quantize.input[2], np.full((), -3, np.int8))
    return f"QuantizeLinear {quantize.name}: zero point -3, wanted 0"


def with_uint8(model: onnx.ModelProto) -> str:
    quantize, _ = pair(model, weights=False)
    replace(model, quantize.input[2], np.zeros((), np.uint8))
    return f"QuantizeLinear {quantize.name}: its type is uint8, wanted int8"


def with_int16(model: onnx.ModelProto) -> str:
    quantize, _ = pair(model, weights=False)
    replace(model, quantize.input[2], np.zeros((), np.int16))
    return f"QuantizeLinear {quantize.name}: its type is int16, wanted int8"


def without_zero_point(model: onnx.ModelProto) -> str:
    quantize, dequantize = pair(model, weights=False)
    del quantize.input[2], dequantize.input[2]
    return f"QuantizeLinear {quantize.name}: its type is uint8, wanted int8"


def with_zero_point_of_one_half(model: onnx.ModelProto) -> str:
    _, dequantize = pair(model, weights=False)
    dequantize.input[2] = store(model, "planted", np.ones((), np.int8))
    return f"DequantizeLinear {dequantize.name}: zero point 1, wanted 0"


def with_int32_bias(model: onnx.ModelProto) -> str:
    convolution = nodes(model, "Conv")[1]
    channels = stored(model, convolution.input[2]).dims[0]
    scales = np.full(channels, 1e-3, np.float32)
    inputs = [store(model, "bias", np.ones(channels, np.int32)), store(model, "bias_scale", scales)]
    dequantize = helper.make_node("DequantizeLinear", inputs, ["bias_float"], "dequantize_bias", axis=0)
    convolution.input[2] = "bias_float"
    place(model, dequantize, before=convolution)
    return "DequantizeLinear dequantize_bias: dequantizes int32"


def with_one_weight_scale(model: onnx.ModelProto) -> str:
    quantize, dequantize = pair(model, weights=True)
    channels = stored(model, quantize.input[0]).dims[0]
    replace(model, quantize.input[1], np.ones((), np.float32))
    replace(model, quantize.input[2], np.zeros((), np.int8))
    return f"DequantizeLinear {dequantize.name}: 1 scales for {channels} output channels of Conv"


def with_scales_of_input_channels(model: onnx.ModelProto) -> str:
    names = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    square = {name for name, dims in names.items() if len(dims) == 4 and dims[0] == dims[1]}
    quantize = next(node for node in nodes(model, "QuantizeLinear") if node.input[0] in square)
    for node in (quantize, reader(model, quantize.output[0])):
        del node.attribute[:]
    return f"DequantizeLinear {reader(model, quantize.output[0]).name}: scales along axis 1 of the weights, wanted 0"


def with_activation_channels(model: onnx.ModelProto) -> str:
    quantize, _ = pair(model, weights=False)
    replace(model, quantize.input[1], np.full(64, 0.1, np.float32))
    replace(model, quantize.input[2], np.zeros(64, np.int8))
    return f"QuantizeLinear {quantize.name}: an activation with 64 scales, wanted one"


def with_weights_stored_quantized(model: onnx.ModelProto) -> str:
    quantize, dequantize = pair(model, weights=True)
    shape = stored(model, quantize.input[0]).dims
    dequantize.input[0] = store(model, "planted", np.ones(shape, np.int8))
    model.graph.node.remove(quantize)
    return f"DequantizeLinear {dequantize.name}: its input is stored quantized"


def without_dequantize(model: onnx.ModelProto) -> str:
    quantize, dequantize = pair(model, weights=False)
    reader(model, dequantize.output[0]).input[0] = quantize.input[0]
    model.graph.node.remove(dequantize)
    return f"QuantizeLinear {quantize.name}: has no DequantizeLinear"


def with_a_second_reader_of_int8(model: onnx.ModelProto) -> str:
    quantize, dequantize = pair(model, weights=False)
    cast = helper.make_node("Cast", [quantize.output[0]], ["planted"], "look", to=TensorProto.FLOAT)
    place(model, cast, before=dequantize)
    return f"QuantizeLinear {quantize.name}: read by Cast look"


def with_a_shared_pair(model: onnx.ModelProto) -> str:
    _, dequantize = pair(model, weights=False)
    first = reader(model, dequantize.output[0])
    place(model, helper.make_node("Relu", [dequantize.output[0]], ["planted"], "look"), before=first)
    return f"DequantizeLinear {dequantize.name}: shared by Relu look and {first.op_type} {first.name}"


def with_quantized_output(model: onnx.ModelProto) -> str:
    sigmoid = nodes(model, "Sigmoid")[0]
    sigmoid.output[0] = "probability"
    scale, zero = store(model, "scale", np.full((), 1 / 127, "f")), store(model, "zero", np.zeros((), "b"))
    after = model.graph.node[list(model.graph.node).index(sigmoid) + 1]
    place(model, helper.make_node("QuantizeLinear", ["probability", scale, zero], ["planted"], "tail_q"), before=after)
    place(model, helper.make_node("DequantizeLinear", ["planted", scale, zero], ["patch_map"], "tail_dq"), before=after)
    for node in nodes(model, "MatMul"):
        node.input[:] = ["probability" if name == "patch_map" else name for name in node.input]
    return "QuantizeLinear tail_q: quantizes what follows the last convolution"


def with_quantized_operator(model: onnx.ModelProto) -> str:
    product = nodes(model, "MatMul")[0]
    index = next(i for i, name in enumerate(product.input) if name != "patch_map")
    scale, zero = store(model, "scale", np.full((), 0.01, "f")), store(model, "zero", np.zeros((), "b"))
    names = [product.input[index], scale, zero]
    product.input[index] = "back"
    place(model, helper.make_node("QuantizeLinear", names, ["planted"], "rows_q"), before=product)
    place(model, helper.make_node("DequantizeLinear", ["planted", scale, zero], ["back"], "rows_dq"), before=product)
    return f"DequantizeLinear rows_dq: a quantized constant of MatMul {product.name}"


def with_scale(value: float) -> Callable[[onnx.ModelProto], str]:
    def plant(model: onnx.ModelProto) -> str:
        quantize, _ = pair(model, weights=False)
        replace(model, quantize.input[1], np.full((), value, np.float32))
        return f"QuantizeLinear {quantize.name}: its scale is not positive and finite"

    plant.__name__ = f"with_scale_{value}"
    return plant


def with_one_bad_scale_of_many(model: onnx.ModelProto) -> str:
    quantize, _ = pair(model, weights=True)
    scales = numpy_helper.to_array(stored(model, quantize.input[1])).copy()
    scales[3] = 0
    replace(model, quantize.input[1], scales)
    return f"QuantizeLinear {quantize.name}: its scale is not positive and finite"


def with_computed_scale(model: onnx.ModelProto) -> str:
    quantize, dequantize = pair(model, weights=False)
    absolute = helper.make_node("Abs", [quantize.input[1]], ["computed"], "abs")
    quantize.input[1] = dequantize.input[1] = "computed"
    place(model, absolute, before=quantize)
    return f"QuantizeLinear {quantize.name}: its scale is computed"


FAULTS = [
    with_later_opset,
    with_foreign_operators,
    with_zero_point,
    with_uint8,
    with_int16,
    without_zero_point,
    with_zero_point_of_one_half,
    with_int32_bias,
    with_one_weight_scale,
    with_scales_of_input_channels,
    with_activation_channels,
    with_weights_stored_quantized,
    without_dequantize,
    with_a_second_reader_of_int8,
    with_a_shared_pair,
    with_quantized_output,
    with_quantized_operator,
    with_scale(0.0),
    with_scale(-0.1),
    with_scale(float("nan")),
    with_scale(float("inf")),
    with_one_bad_scale_of_many,
    with_computed_scale,
]


def test_good_graphs_have_no_fault(good: bytes, good_mobilenet: bytes, resnet18_float: bytes) -> None:
    for data in (good, good_mobilenet, resnet18_float):
        assert qdq_faults(onnx.load_model_from_string(data)) == []
        check_qdq(data)
    assert len(nodes(onnx.load_model_from_string(good), "QuantizeLinear")) > 20


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_alone(good: bytes, plant: Callable[[onnx.ModelProto], str]) -> None:
    model = onnx.load_model_from_string(good)
    wanted = plant(model)
    found = qdq_faults(model)
    assert len(found) == 1, found
    assert found[0].replace("'", "").startswith(wanted), found
    with pytest.raises(ExportError) as exc:
        check_qdq(model.SerializeToString())
    assert found[0] in str(exc.value) and "\n" not in str(exc.value)


def test_constants_behind_identity_and_constant_nodes_are_followed(good: bytes) -> None:
    model = onnx.load_model_from_string(good)
    quantize, dequantize = pair(model, weights=False)
    scale = stored(model, quantize.input[1])
    nodes_of_scale = [
        helper.make_node("Constant", [], ["constant"], "constant", value=scale),
        helper.make_node("Identity", ["constant"], ["same"], "identity"),
    ]
    quantize.input[1] = dequantize.input[1] = "same"
    for node in nodes_of_scale:
        place(model, node, before=quantize)
    assert qdq_faults(model) == []
    replace_value = numpy_helper.from_array(np.full((), -1, np.float32))
    next(node for node in model.graph.node if node.name == "constant").attribute[0].t.CopyFrom(replace_value)
    assert len(qdq_faults(model)) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation_type": "QUInt8", "extra_options": {"ActivationSymmetric": False}}, "uint8"),
        ({"extra_options": {"QuantizeBias": True}}, "int32"),
        ({"per_channel": False}, "1 scales for"),
        ({"extra_options": {"AddQDQPairToWeight": False}}, "stored quantized"),
    ],
)
def test_other_options_of_the_quantizer_are_refused(
    resnet18_float: bytes, quantized_otherwise: Callable[..., bytes], changes: dict[str, Any], words: str
) -> None:
    from onnxruntime.quantization import QuantType

    if "activation_type" in changes:
        changes = changes | {"activation_type": QuantType[changes["activation_type"]]}
    found = qdq_faults(onnx.load_model_from_string(quantized_otherwise(resnet18_float, SIZE_HW, **changes)))
    assert len(found) > 10
    assert all(words in fault for fault in found)


def test_many_faults_are_shown_in_part(resnet18_float: bytes, quantized_otherwise: Callable[..., bytes]) -> None:
    data = quantized_otherwise(resnet18_float, SIZE_HW, per_channel=False)
    count = len(qdq_faults(onnx.load_model_from_string(data)))
    with pytest.raises(ExportError, match=rf"\(and {count - 5} more\)"):
        check_qdq(data)


def test_what_is_no_onnx_is_one_line() -> None:
    with pytest.raises(ExportError, match="is no ONNX") as exc:
        check_qdq(b"\xff\xff not a graph")
    assert "\n" not in str(exc.value)
