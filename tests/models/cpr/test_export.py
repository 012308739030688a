"""The exported graph: what it holds, and the same answers in every engine, whatever the bank and the batch."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from golden_files import drawn

from edge_ad.bundle.graph.check import checked_graph
from edge_ad.bundle.graph.contract import GraphContract
from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.errors import ExportError
from edge_ad.export.onnx_graph import OnnxGraph, graph_from_module
from edge_ad.export.options import export_options
from edge_ad.export.parity import check_parity, describe, onnx_runner
from edge_ad.export.to_bundle import export_bundle
from edge_ad.image.operators import ResizeSmooth
from edge_ad.image.scores import score_of
from edge_ad.models import model_family
from edge_ad.models.backbone import Backbone
from edge_ad.models.contract import fast_module, published_module
from edge_ad.models.cpr.checkpoint import checkpoint_of
from edge_ad.models.cpr.config import CprConfig
from edge_ad.models.cpr.network import Cpr, Foreground, LocalBranch
from edge_ad.models.cpr.specs import INPUT, OUTPUT
from edge_ad.models.family import LoadedNetwork
from edge_ad.openvino_core import openvino_core

SIDE = 56  # 14x14 patches: neither blocks nor tiles divide them
SPEC = replace(INPUT, height=SIDE, width=SIDE)
CPR = model_family("cpr")
RELATIVE = 2e-5


def made(backbone_weights: Path, *, foreground: bool = True, bank: Any = "float32", **config: Any) -> Any:
    """A network of drawn weights with five references."""
    settings = CprConfig("mobilenet_v2", ("features.3", "features.6"), **{"nearest": 2, **config})
    backbone = Backbone(settings.backbone, settings.layers)
    backbone.load_weights(torch.load(backbone_weights, weights_only=True), "drawn")
    lrb = LocalBranch([24, 32]) if settings.metric else None
    if lrb is not None:
        lrb.load_state_dict(drawn(lrb.state_dict()))
    rng = np.random.default_rng(5)
    pictures = rng.integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)
    centres = torch.from_numpy(rng.standard_normal((12, 24)).astype(np.float32))
    found = Foreground(torch.from_numpy(rng.standard_normal(24).astype(np.float32)), torch.tensor(0.4))
    network = Cpr(settings, backbone, lrb, centres, found if foreground else None, torch.from_numpy(pictures), (), bank)
    return LoadedNetwork(network.eval().requires_grad_(False), {}, "")


def exported(loaded: Any, *, batch: int | None = None, postprocess: PostprocessSpec = OUTPUT) -> OnnxGraph:
    graph = graph_from_module(fast_module(CPR, loaded, SPEC, postprocess), SPEC.size_hw, batch=batch, opset=17)
    checked_graph(graph.data, GraphContract(graph.image, graph.outputs, graph.opset, CPR.operators))
    return graph


def operators(graph: OnnxGraph) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_model_from_string(graph.data).graph.node)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(6).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def on_openvino(graph: OnnxGraph, pictures: np.ndarray) -> list[np.ndarray]:
    core = openvino_core()
    compiled = core.compile_model(core.read_model(io.BytesIO(graph.data)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(compiled(pictures).values())


CASES: dict[str, dict[str, Any]] = {
    "object": {},
    "texture": {"foreground": False},
    "taps as they are": {"metric": False},
    "l2": {"retrieval_distance": "l2", "retrieval_share": 0.5, "search_windows": (5, 3)},
    "all references": {"nearest": 5},
    "float16": {"bank": "float16"},
    "int8": {"bank": "int8"},
}


@pytest.mark.parametrize("case", CASES)
def test_every_engine_gives_what_was_published(case: str, backbone_weights: Path) -> None:
    loaded = made(backbone_weights, **CASES[case])
    graph, pictures = exported(loaded), images(3)
    with torch.no_grad():
        reference = published_module(CPR, loaded, SPEC, OUTPUT)
        wanted = [part.numpy() for part in reference(torch.from_numpy(pictures))]
    session = onnxruntime.InferenceSession(graph.data, providers=["CPUExecutionProvider"])
    one_by_one = [session.run(None, {"image": picture[None]}) for picture in pictures]
    answers = {
        "ONNX Runtime": session.run(None, {"image": pictures}),
        "one by one": [np.concatenate(parts) for parts in zip(*one_by_one, strict=True)],
        "OpenVINO": on_openvino(graph, pictures),
    }
    for engine, found in answers.items():
        for got, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(got, other, rtol=0, atol=RELATIVE * np.abs(other).max(), err_msg=engine)
    assert check_parity(graph, reference, relative=True).patch_map <= RELATIVE


def test_the_search_is_the_graphs_and_codes_are_no_convolutions(backbone_weights: Path) -> None:
    loaded = made(backbone_weights)
    graph = exported(loaded)
    model = onnx.load_model_from_string(graph.data)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    convolutions = [shapes[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    assert not [shape for shape in convolutions if shape[0] in (1, 12, 13)], "a quantizer would take those"
    assert [shape[:2] for shape in convolutions].count((257, 256)) == 2, "257 channels in place of 384"
    merged = [shape for shape in convolutions if shape[:2] == (240, 192)]
    assert len(merged) == 2, "four layers of the inception block are one"
    assert operators(graph)["ArgMin"] == 1 and operators(graph)["TopK"] == 3
    assert operators(exported(made(backbone_weights, nearest=5)))["TopK"] == 1, "with all of them nothing is looked up"


@pytest.mark.parametrize(("bank", "share"), [("float16", 0.5), ("int8", 0.25)])
def test_a_bank_of_fewer_bits_is_kept_so_in_the_file(bank: str, share: float, backbone_weights: Path) -> None:
    """Nothing of it is unpacked while it is traced."""
    whole, small = (len(exported(made(backbone_weights, bank=kind)).data) for kind in ("float32", bank))
    cells = 5 * 257 * (16 * 16 + 8 * 8)
    assert whole - small == pytest.approx(4 * cells * (1 - share), rel=0.05)


def test_an_anomaly_map_is_no_smoothing_of_patches_of_an_object(backbone_weights: Path) -> None:
    """What the manifest says of the map in frame pixels; of a texture it is one, up to rounding."""
    assert OUTPUT.frame_map == "anomaly_map"
    off = []
    for foreground in (True, False):
        loaded = made(backbone_weights, foreground=foreground)
        with torch.no_grad():
            found = fast_module(CPR, loaded, SPEC, OUTPUT)(torch.from_numpy(images(1)))
        patches, pixels, score = (part.numpy() for part in found)
        smooth = ResizeSmooth((14, 14), SPEC.size_hw, OUTPUT)(patches)
        off.append(float(np.abs(smooth - pixels).max() / smooth.max()))
        np.testing.assert_allclose(score, score_of(patches, pixels, OUTPUT), rtol=1e-5)
    assert off[0] > 0.05 and off[1] < 1e-5


def test_a_wrong_bank_is_found_by_the_check(backbone_weights: Path) -> None:
    """A control of the export check: one reference too few in the graph."""
    loaded = made(backbone_weights, nearest=5)
    graph = exported(loaded)
    loaded.network.references = loaded.network.references[:4]
    loaded.network.config = replace(loaded.network.config, nearest=4)
    with pytest.raises(ExportError, match="off by"):
        check_parity(graph, published_module(CPR, loaded, SPEC, OUTPUT), relative=True, unit=CPR.rounding_unit)


def all_alike(loaded: Any) -> Any:
    """The bias drowns what a metric network says, so all cosines are near 1, as before training."""
    for network in loaded.network.lrb.conv:
        network[4].weight.data *= 1e-3
        network[4].bias.data.fill_(1.0)
    return loaded


def test_rounding_is_that_of_cosines_however_small_the_map_is(backbone_weights: Path, tmp_path: Path) -> None:
    loaded = all_alike(made(backbone_weights))
    graph, reference = exported(loaded), published_module(CPR, loaded, SPEC, OUTPUT)
    with pytest.raises(ExportError, match="of the largest value"):
        check_parity(graph, reference, relative=True)
    parity = check_parity(graph, reference, relative=True, unit=CPR.rounding_unit)
    assert "is it trained?" in describe(parity), "and it says that little was compared"
    torch.save(checkpoint_of(loaded.network), tmp_path / "alike.pth")
    told = {"checkpoint": tmp_path / "alike.pth", "family": "cpr", "imgsz": SIDE, "output": tmp_path / "b.edgead"}
    written = export_bundle(export_options(told, "test")).manifest.parity
    assert written is not None and written.patch_map <= written.tolerance == RELATIVE


def test_more_than_rounding_is_found_in_the_smallest_map(backbone_weights: Path) -> None:
    """2e-6 is rounding of cosines, 4e-6 is not."""
    loaded = all_alike(made(backbone_weights))
    graph, reference = exported(loaded), published_module(CPR, loaded, SPEC, OUTPUT)
    genuine = onnx_runner(graph)
    with pytest.raises(ExportError, match="off by"):
        check_parity(
            graph,
            reference,
            run=lambda batch: [part + np.float32(4e-6) for part in genuine(batch)],
            relative=True,
            unit=CPR.rounding_unit,
        )
