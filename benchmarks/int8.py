"""What int8 is worth: published graph, our float32 graph and our int8 graph, in turns.

    python benchmarks/int8.py [--backbone wide_resnet50_2] [--imgsz 288] [--rounds 15]

Random weights: time does not depend on them. One image, all cores, one interleaved run; the ratios are what to compare
across machines. int8 needs a CPU that multiplies bytes (AVX512-VNNI, AVX-VNNI, Arm dot product) to be worth anything.
"""

from __future__ import annotations

import warnings

import click
import numpy as np
import torch
from folded_vs_plain import plain_graph
from interleaved import medians_ms, print_table

from edge_ad.bundle.specs import PostprocessSpec, Precision, PreprocessSpec
from edge_ad.calibration.quantize.calibrate import calibrate
from edge_ad.engine import EngineSpec
from edge_ad.export.onnx_graph import OnnxGraph, graph_from_module
from edge_ad.export.parity import probe_images
from edge_ad.models.contract import fast_module, published_module
from edge_ad.models.family import LoadedNetwork
from edge_ad.models.glass.family import FAMILY
from edge_ad.models.glass.network import Glass
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.runtime.engines.openvino import OpenVinoEngine

PUBLISHED = "published graph, ONNX Runtime fp32"
FLOAT = "ours, OpenVINO fp32"
INT8 = "ours, OpenVINO int8"


def int8_graph(graph: OnnxGraph) -> bytes:
    """The Q/DQ form of a float graph, calibrated on made pictures."""
    height, width = graph.image.shape[1:3]
    assert height is not None and width is not None
    images = list(probe_images((height, width), count=4))
    return calibrate(graph.data, lambda _: images, "min-max")[0].build()


def openvino_engine(graph: OnnxGraph, data: bytes, precision: Precision) -> OpenVinoEngine:
    return OpenVinoEngine(lambda: data, EngineSpec(graph.image, graph.outputs, precision, batch=1, model_sha256=""))


@click.command()
@click.option("--backbone", default="wide_resnet50_2")
@click.option("--layers", default="layer2,layer3")
@click.option("--imgsz", default=288)
@click.option("--rounds", default=15)
def main(backbone: str, layers: str, imgsz: int, rounds: int) -> None:
    warnings.simplefilter("ignore")  # of the exporter and the quantizer
    torch.manual_seed(0)
    network = Glass(HeadConfig(backbone, tuple(layers.split(",")))).eval().requires_grad_(False)
    loaded = LoadedNetwork(network, {}, "")
    preprocess, postprocess = PreprocessSpec(imgsz, imgsz, resize=imgsz), PostprocessSpec()
    published = plain_graph(published_module(FAMILY, loaded, preprocess, postprocess), imgsz)
    graph = graph_from_module(fast_module(FAMILY, loaded, preprocess, postprocess), (imgsz, imgsz), batch=1, opset=17)
    quantized = int8_graph(graph)
    image = probe_images((imgsz, imgsz), count=2)[1:]
    import onnxruntime  # after edge_ad, which keeps its telemetry off

    published_session = onnxruntime.InferenceSession(published, providers=["CPUExecutionProvider"])
    int8_session = onnxruntime.InferenceSession(quantized, providers=["CPUExecutionProvider"])
    with openvino_engine(graph, graph.data, "fp32") as plain, openvino_engine(graph, quantized, "int8") as int8:
        medians = medians_ms(
            {
                PUBLISHED: lambda: published_session.run(None, {"image": image}),
                FLOAT: lambda: plain.infer(image),
                INT8: lambda: int8.infer(image),
                "ours, ONNX Runtime int8": lambda: int8_session.run(None, {"image": image}),
            },
            rounds=rounds,
            pause_s=0.1,  # ONNX Runtime's threads spin on after a call
        )
        difference = np.abs(plain.infer(image).patch_map - int8.infer(image).patch_map).max()
        print(f"{backbone} at {imgsz}x{imgsz}, OpenVINO in {plain.effective_precision} and {int8.effective_precision}")
    print_table(medians, PUBLISHED)
    print(f"int8 against our fp32: {medians[FLOAT] / medians[INT8]:.2f}x", end=", ")
    print(f"against the published graph: {medians[PUBLISHED] / medians[INT8]:.2f}x")
    print(f"largest difference of a patch probability on a made picture: {difference:.3f}")


if __name__ == "__main__":
    main()
