"""What tiles cost: a frame in more and more of them against one tile, in turns, and how close it comes to so many ones.

    python benchmarks/tiles.py [--grids 1x1,1x2,1x4,2x4,3x9] [--entries 1000] [--rounds 15]

Random weights of MobileNetV2 at 256x256 pixels, for time does not depend on them; PatchCore's bank has as many entries
in every grid. Engine alone, all cores.
"""

from __future__ import annotations

import click
import torch
from interleaved import medians_ms

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.bundle.tiles import TileGrid
from edge_ad.engine import EngineSpec
from edge_ad.export.onnx_graph import graph_from_module
from edge_ad.export.parity import probe_images
from edge_ad.models.contract import ContractModule
from edge_ad.models.patchcore.config import PatchCoreConfig
from edge_ad.models.patchcore.fold import FoldedPatchCore
from edge_ad.models.patchcore.network import PatchCore
from edge_ad.models.patchcore.specs import INPUT, OUTPUT
from edge_ad.runtime.engines.openvino import OpenVinoEngine

TILE = PreprocessSpec(256, 256, resize_mode="stretch", mean=INPUT.mean, std=INPUT.std)


def engine_of(grid: TileGrid, entries: int) -> OpenVinoEngine:
    """A small PatchCore whose pictures are cut into tiles."""
    torch.manual_seed(0)
    config = PatchCoreConfig("mobilenet_v2", ("features.6", "features.13"), "averaged", embed_dim=128)
    network = PatchCore(config, torch.rand(entries, 128)).eval().requires_grad_(False)
    head = FoldedPatchCore(network, TILE.size_hw, OUTPUT)
    module = ContractModule(head, TILE, OUTPUT, grid).eval()
    graph = graph_from_module(module, grid.canvas_hw, batch=None, opset=17)
    return OpenVinoEngine(lambda: graph.data, EngineSpec(graph.image, graph.outputs, "fp32", batch=1, model_sha256=""))


@click.command(help=__doc__.split("\n")[0])
@click.option("--grids", default="1x1,1x2,1x4,2x4,3x9")
@click.option("--entries", default=1000, help="Of the bank.")
@click.option("--overlap", default=32)
@click.option("--rounds", default=15)
def main(grids: str, entries: int, overlap: int, rounds: int) -> None:
    wanted = {}
    for text in grids.split(","):
        rows, columns = text.split("x")
        wanted[text] = TileGrid(int(rows), int(columns), *TILE.size_hw, overlap)
    engines = {name: engine_of(grid, entries) for name, grid in wanted.items()}
    images = {name: probe_images(grid.canvas_hw, count=2)[1:] for name, grid in wanted.items()}
    for engine in engines.values():
        engine.__enter__()
    try:
        subjects = {name: (lambda name=name: engines[name].infer(images[name])) for name in wanted}
        medians = medians_ms(subjects, rounds=rounds)
    finally:
        for engine in engines.values():
            engine.__exit__(None, None, None)
    one = medians[next(iter(wanted))]
    print("| grid | canvas | ms | of so many times one tile |")
    print("|---|---|---|---|")
    for name, grid in wanted.items():
        height, width = grid.canvas_hw
        print(f"| {name} | {width}x{height} | {medians[name]:.1f} | {medians[name] / (grid.count * one):.2f} |")


if __name__ == "__main__":
    main()
