"""EfficientAD as exported against the published networks, which are traced as they are: fp32 and int8, on the CPU.

    python benchmarks/efficientad.py [--size small|medium] [--rounds 15]

Random weights: time does not depend on them. One image, all cores, one interleaved run, with the GEMM of this machine.
"""

from __future__ import annotations

import warnings

import click
import numpy as np
import torch
from folded_vs_plain import GEMM_SIDE, giga_macs, plain_graph
from interleaved import medians_ms, print_table

from edge_ad.calibration.quantize.calibrate import calibrate
from edge_ad.engine import EngineSpec
from edge_ad.export.onnx_graph import OnnxGraph, graph_from_module
from edge_ad.export.parity import probe_images
from edge_ad.models.contract import fast_module, published_module
from edge_ad.models.efficientad.config import WIDTHS, EfficientAdConfig, PdnSize
from edge_ad.models.efficientad.family import FAMILY
from edge_ad.models.efficientad.network import EfficientAd
from edge_ad.models.efficientad.specs import INPUT, OUTPUT
from edge_ad.models.efficientad.statistics import measure_quantiles, measure_teacher
from edge_ad.models.family import LoadedNetwork
from edge_ad.runtime.engines.openvino import OpenVinoEngine


def engine_of(data: bytes, graph: OnnxGraph, precision: str) -> OpenVinoEngine:
    low = "int8" if precision == "int8" else "fp32"
    return OpenVinoEngine(lambda: data, EngineSpec(graph.image, graph.outputs, low, batch=1, model_sha256=""))


@click.command()
@click.option("--size", type=click.Choice(list(WIDTHS)), default="small")
@click.option("--rounds", default=15)
def main(size: PdnSize, rounds: int) -> None:
    torch.manual_seed(0)
    network = EfficientAd(EfficientAdConfig(size, WIDTHS[size])).eval().requires_grad_(False)
    images = list(probe_images(INPUT.size_hw, count=4))
    measure_teacher(network, images)
    measure_quantiles(network, images)
    loaded = LoadedNetwork(network, {}, "")
    graph = graph_from_module(fast_module(FAMILY, loaded, INPUT, OUTPUT), INPUT.size_hw, batch=1, opset=17)
    plain = plain_graph(published_module(FAMILY, loaded, INPUT, OUTPUT), INPUT.height)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ONNX Runtime's quantizer
        int8 = calibrate(graph.data, lambda _: images, "min-max")[0].build()
    import onnxruntime  # after edge_ad, which keeps its telemetry off

    session = onnxruntime.InferenceSession(plain)
    image = images[1][None]
    square = np.random.default_rng(0).standard_normal((GEMM_SIDE, GEMM_SIDE)).astype(np.float32)
    with engine_of(graph.data, graph, "fp32") as float_engine, engine_of(int8, graph, "int8") as int8_engine:
        medians = medians_ms(
            {
                "published graph, ONNX Runtime": lambda: session.run(None, {"image": image}),
                "exported graph, OpenVINO fp32": lambda: float_engine.infer(image),
                "exported graph, OpenVINO int8": lambda: int8_engine.infer(image),
                "GEMM 2048 (NumPy)": lambda: square @ square,
            },
            rounds=rounds,
            pause_s=0.1,
        )
    macs = giga_macs(graph.data)
    print(f"EfficientAD {size} at {INPUT.height}x{INPUT.width}: {macs:.1f} GMAC, published {giga_macs(plain):.1f}")
    print_table(medians, "published graph, ONNX Runtime")
    peak = GEMM_SIDE**3 / 1e6 / medians["GEMM 2048 (NumPy)"]
    reached = macs * 1e3 / medians["exported graph, OpenVINO fp32"]
    print(f"fp32: {reached:.0f} GMAC/s = {reached / peak:.0%} of this machine's GEMM ({peak:.0f} GMAC/s)")


if __name__ == "__main__":
    main()
