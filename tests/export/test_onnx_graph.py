"""The saved graph: its operator set, its tensors, its batches, and the check that guards them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edge_ad.bundle.graph.operators import ANY_BACKBONE
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.errors import ExportError
from edge_ad.export.onnx_graph import OnnxGraph, check_contract, graph_from_module
from edge_ad.export.parity import probe_images
from edge_ad.export.to_bundle import check_fit
from edge_ad.models import model_family
from edge_ad.models.contract import fast_module
from edge_ad.models.patch_head.options import HeadOptions
from edge_ad.models.references import References

pytestmark = pytest.mark.rung(1)

SIZE_HW = (64, 80)
PATCH_HW = (16, 20)
# A batch changes how the matrix products are blocked, so float32 sums differ in their last digits.
BATCH_TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def module(tiny_checkpoint: tuple[Path, Path]) -> nn.Module:
    family = model_family("glass")
    options = HeadOptions(backbone="resnet18", backbone_weights=tiny_checkpoint[1], layers=("layer1", "layer2"))
    loaded = family.load(tiny_checkpoint[0], options, References.of(options, family.preprocess))
    return fast_module(family, loaded, PreprocessSpec(*SIZE_HW, resize=64), PostprocessSpec())


@pytest.fixture(scope="module")
def dynamic(module: nn.Module) -> OnnxGraph:
    return graph_from_module(module, SIZE_HW, batch=None, opset=17)


def shapes_of(values: Any) -> dict[str, tuple[Any, ...]]:
    return {
        value.name: (
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            *(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
        )
        for value in values
    }


def run(graph: OnnxGraph, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph.data, providers=["CPUExecutionProvider"])
    return list(session.run(["patch_map", "anomaly_map", "pred_score"], {"image": images}))


@pytest.mark.parametrize("opset", [13, 15, 17])
def test_the_saved_file_has_the_opset_that_was_asked_for(module: nn.Module, opset: int) -> None:
    graph = graph_from_module(module, SIZE_HW, batch=None, opset=opset)
    model = onnx.load_from_string(graph.data)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert graph.opset == opset
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    onnx.checker.check_model(model, full_check=True)


def test_dynamic_contract(dynamic: OnnxGraph) -> None:
    model = onnx.load_from_string(dynamic.data)
    assert shapes_of(model.graph.input) == {"image": ("UINT8", "N", *SIZE_HW, 3)}
    outputs = shapes_of(model.graph.output)
    assert list(outputs) == ["patch_map", "anomaly_map", "pred_score"]
    assert {kind for kind, *_ in outputs.values()} == {"FLOAT"}
    assert [spec.shape for spec in dynamic.outputs] == [(None, *PATCH_HW), (None, *SIZE_HW), (None,)]
    assert [len(shape) - 1 for shape in outputs.values()] == [3, 3, 1]
    assert all(shape[1] == "N" for shape in outputs.values())


def test_fixed_contract(module: nn.Module) -> None:
    graph = graph_from_module(module, SIZE_HW, batch=3, opset=17)
    model = onnx.load_from_string(graph.data)
    assert shapes_of(model.graph.input) == {"image": ("UINT8", 3, *SIZE_HW, 3)}
    assert shapes_of(model.graph.output) == {
        "patch_map": ("FLOAT", 3, *PATCH_HW),
        "anomaly_map": ("FLOAT", 3, *SIZE_HW),
        "pred_score": ("FLOAT", 3),
    }
    assert [output.shape for output in run(graph, probe_images(SIZE_HW, 3))] == [(3, *PATCH_HW), (3, *SIZE_HW), (3,)]
    with pytest.raises(Exception, match="invalid dimensions"):
        run(graph, probe_images(SIZE_HW, 2))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_image_of_a_batch_is_judged_as_if_alone(dynamic: OnnxGraph, batch: int) -> None:
    images = probe_images(SIZE_HW, batch, seed=batch)
    together = run(dynamic, images)
    assert [output.shape for output in together] == [(batch, *PATCH_HW), (batch, *SIZE_HW), (batch,)]
    for index in range(batch):
        for a, b in zip(together, run(dynamic, images[index : index + 1]), strict=True):
            np.testing.assert_allclose(a[index], b[0], rtol=0, atol=BATCH_TOLERANCE)
    if batch > 1:
        assert np.abs(together[0][0] - together[0][1]).max() > 100 * BATCH_TOLERANCE


def test_the_graph_computes_what_the_module_does(module: nn.Module, dynamic: OnnxGraph) -> None:
    images = probe_images(SIZE_HW, 2)
    with torch.no_grad():
        wanted = module(torch.from_numpy(images))
    for a, b in zip(run(dynamic, images), wanted, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=2e-5)  # the project's parity tolerance


def test_the_graph_holds_no_path_of_this_machine(dynamic: OnnxGraph) -> None:
    root = Path(__file__).resolve().parents[2]
    for text in (str(root), str(Path.home()), str(Path(torch.__file__).parent), ".py"):
        if len(text) > 2:
            assert text.encode() not in dynamic.data


def test_the_export_is_reproducible(module: nn.Module, dynamic: OnnxGraph) -> None:
    assert graph_from_module(module, SIZE_HW, batch=None, opset=17).data == dynamic.data


def test_an_untraceable_module_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    class Unexportable(nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            flat = torch.special.bessel_j0(image.float().mean(3))
            return flat, flat, flat.amax((1, 2))

    with pytest.raises(ExportError, match="cannot be written as ONNX opset 17") as exc:
        graph_from_module(Unexportable().eval(), (8, 8), batch=None, opset=17)
    assert "\n" not in str(exc.value)
    assert capfd.readouterr() == ("", "")


def with_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 16


def with_extra_output(model: onnx.ModelProto) -> None:
    name = next(node.output[0] for node in model.graph.node if node.op_type == "Sigmoid")
    assert name == "patch_map"
    model.graph.node.append(onnx.helper.make_node("Identity", [name], ["extra"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, ["N", *PATCH_HW]))


def with_float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def with_double_output(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["score32" if name == "pred_score" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Cast", ["score32"], ["pred_score"], to=onnx.TensorProto.DOUBLE))
    model.graph.output[2].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def with_swapped_outputs(model: onnx.ModelProto) -> None:
    first, second = (onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in model.graph.output[:2])
    model.graph.output[0].CopyFrom(second)
    model.graph.output[1].CopyFrom(first)


def with_other_name(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.input[:] = ["picture" if name == "image" else name for name in node.input]
    model.graph.input[0].name = "picture"


def with_foreign_operator(model: onnx.ModelProto) -> None:
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def with_fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def with_other_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 72


def with_cut_edge(model: onnx.ModelProto) -> None:
    del model.graph.node[3]


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (with_opset, "operator sets {'ai.onnx': 16}, wanted ai.onnx 17"),
        (with_extra_output, "'extra'"),
        (with_float_input, "image"),
        (with_double_output, "output 'pred_score'"),
        (with_swapped_outputs, "the graph has outputs"),
        (with_other_name, "the graph has inputs ['picture']"),
        (with_foreign_operator, "com.microsoft"),
        (with_fixed_batch, "input 'image'"),
        (with_other_size, ""),
        (with_cut_edge, "no valid ONNX"),
    ],
)
def test_a_broken_contract_is_noticed(dynamic: OnnxGraph, plant: Callable[[onnx.ModelProto], None], words: str) -> None:
    model = onnx.load_from_string(dynamic.data)
    check_contract(model, dynamic.image, dynamic.outputs, 17)
    plant(model)
    with pytest.raises(ExportError) as exc:
        check_contract(model, dynamic.image, dynamic.outputs, 17)
    assert words in str(exc.value)
    assert "\n" not in str(exc.value)


def test_a_network_that_no_bundle_may_hold_is_named() -> None:
    """Its operator, before the bundle is written that nobody could run."""

    class Unusual(nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            patch_map = torch.tan(image.float().mean(3))
            return patch_map, patch_map + 0.0, patch_map.amax((1, 2))

    graph = graph_from_module(Unusual().eval(), (8, 8), batch=None, opset=17)
    with pytest.raises(ExportError, match=r"no bundle may hold: node '/Tan' \(Tan\).* take another backbone"):
        check_fit(ANY_BACKBONE, graph)


def test_what_a_family_exports_may_stand_in_a_bundle(dynamic: OnnxGraph) -> None:
    check_fit(ANY_BACKBONE, dynamic)
