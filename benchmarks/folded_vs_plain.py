"""The exported graph on OpenVINO against the published network exported as it is, on ONNX Runtime.

    python benchmarks/folded_vs_plain.py [--backbone wide_resnet50_2] [--imgsz 288] [--rounds 15]

Random weights: time does not depend on them. One image, float32, all cores, one interleaved run. The line on GEMM says
what share of the machine's peak the graph reaches, which is the only honest yardstick across machines.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from pathlib import Path

import click
import numpy as np
import onnx
import torch
from interleaved import medians_ms, print_table
from torch import nn

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.engine import EngineSpec
from edge_ad.export.onnx_graph import OnnxGraph, graph_from_module
from edge_ad.models.contract import fast_module, published_module
from edge_ad.models.family import LoadedNetwork
from edge_ad.models.glass.family import FAMILY
from edge_ad.models.glass.network import Glass
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.runtime.engines.openvino import OpenVinoEngine

GEMM_SIDE = 2048


def plain_graph(module: nn.Module, side: int) -> bytes:
    """Trace a module for one image the plain way."""
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        path = Path(folder) / "plain.onnx"
        example = torch.zeros((1, side, side, 3), dtype=torch.uint8)
        torch.onnx.export(module, (example,), path, dynamo=False, opset_version=17, input_names=["image"])
        return path.read_bytes()


def giga_macs(graph: bytes) -> float:
    """Multiply-accumulates of the convolutions and matrix products of a graph, in units of 1e9."""
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(graph), data_prop=True)
    shapes = {
        value.name: [d.dim_value or 1 for d in value.type.tensor_type.shape.dim] for value in model.graph.value_info
    }
    shapes |= {value.name: [d.dim_value or 1 for d in value.type.tensor_type.shape.dim] for value in model.graph.output}
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.output[0] in shapes:
            left, right = (weights.get(name) or shapes.get(name) for name in node.input[:2])
            summed = left[-1] if left else right[-2]  # one of the two is a constant or has a known shape
            total += int(np.prod(shapes[node.output[0]])) * (
                int(np.prod(right[1:])) if node.op_type == "Conv" else summed
            )
    return total / 1e9


@click.command()
@click.option("--backbone", default="wide_resnet50_2")
@click.option("--layers", default="layer2,layer3")
@click.option("--imgsz", default=288)
@click.option("--rounds", default=15)
def main(backbone: str, layers: str, imgsz: int, rounds: int) -> None:
    torch.manual_seed(0)
    network = Glass(HeadConfig(backbone, tuple(layers.split(",")))).eval().requires_grad_(False)
    loaded = LoadedNetwork(network, {}, "")
    preprocess, postprocess = PreprocessSpec(imgsz, imgsz, resize=imgsz), PostprocessSpec()
    plain = plain_graph(published_module(FAMILY, loaded, preprocess, postprocess), imgsz)
    folded = graph_from_module(fast_module(FAMILY, loaded, preprocess, postprocess), (imgsz, imgsz), batch=1, opset=17)
    image = np.random.default_rng(0).integers(0, 256, (1, imgsz, imgsz, 3), dtype=np.uint8)
    import onnxruntime  # after edge_ad, which keeps its telemetry off

    sessions = {name: onnxruntime.InferenceSession(data) for name, data in (("plain", plain), ("folded", folded.data))}
    square = np.random.default_rng(0).standard_normal((GEMM_SIDE, GEMM_SIDE)).astype(np.float32)
    with _openvino(folded) as engine:
        medians = medians_ms(
            {
                "published graph, ONNX Runtime": lambda: sessions["plain"].run(None, {"image": image}),
                "folded graph, ONNX Runtime": lambda: sessions["folded"].run(None, {"image": image}),
                "folded graph, OpenVINO fp32": lambda: engine.infer(image),
                "GEMM 2048 (NumPy)": lambda: square @ square,
            },
            rounds=rounds,
            pause_s=0.1,
        )
        precision = engine.effective_precision
    print(f"{backbone} at {imgsz}x{imgsz}, OpenVINO computes in {precision}")
    print_table(medians, "published graph, ONNX Runtime")
    peak = GEMM_SIDE**3 / 1e6 / medians["GEMM 2048 (NumPy)"]
    macs = giga_macs(folded.data)
    reached = macs * 1e3 / medians["folded graph, OpenVINO fp32"]
    print(f"folded graph: {macs:.1f} GMAC, {reached:.0f} GMAC/s = {reached / peak:.0%} of this machine's GEMM", end=" ")
    print(f"({peak:.0f} GMAC/s)")
    print(f"published graph: {giga_macs(plain):.1f} GMAC")


def _openvino(graph: OnnxGraph) -> OpenVinoEngine:
    spec = EngineSpec(graph.image, graph.outputs, "fp32", batch=1, model_sha256="")
    return OpenVinoEngine(lambda: graph.data, spec)


if __name__ == "__main__":
    main()
