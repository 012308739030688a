"""CPR's local search written in three ways, and a whole frame by the bank's type: milliseconds on OpenVINO, in turns.

    python benchmarks/cpr_search.py [--backbone densenet201] [--references 31] [--rounds 9] [--threads 2]

Random weights and pictures: time does not depend on them. The three ways give the same distances, which is checked.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.export.onnx_graph import graph_from_module
from edge_ad.models import model_family
from edge_ad.models.backbone import Backbone
from edge_ad.models.contract import fast_module
from edge_ad.models.cpr.config import BankType, CprConfig
from edge_ad.models.cpr.fast import FastCpr
from edge_ad.models.cpr.network import Cpr, Foreground, LocalBranch, normalised
from edge_ad.models.cpr.options import KNOWN_LAYERS
from edge_ad.models.cpr.search import TileSearch
from edge_ad.models.cpr.specs import INPUT, OUTPUT
from edge_ad.models.family import LoadedNetwork
from edge_ad.openvino_core import openvino_core

SIDE, CHANNELS, NEAREST = 80, 257, 10
BLOCK = 16


class Shifts(nn.Module):
    """Nine products of the whole map with the shifted bank, one after the other."""

    def __init__(self, patches: Tensor) -> None:
        super().__init__()
        self.register_buffer("bank", F.pad(patches, (1, 1, 1, 1)))

    def forward(self, query: Tensor, chosen: Tensor) -> Tensor:
        bank = cast(Tensor, self.bank)[chosen.reshape(-1)].view(-1, NEAREST, CHANNELS, SIDE + 2, SIDE + 2)
        best = None
        for down, right in np.ndindex(3, 3):
            part = bank[..., down : down + SIDE, right : right + SIDE]
            cosines = (query[:, None] * part).sum(2).amax(1)
            best = cosines if best is None else torch.maximum(best, cosines)
        assert best is not None
        return 1 - best


class RowBlocks(nn.Module):
    """Sixteen cells of a row times the eighteen around them in each of three rows, and the three diagonals of that."""

    def __init__(self, patches: Tensor) -> None:
        super().__init__()
        self.register_buffer("bank", F.pad(patches, (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous())
        near = torch.arange(BLOCK + 2)[None] - torch.arange(BLOCK)[:, None]
        self.register_buffer("beside", torch.where((near >= 0) & (near <= 2), 0.0, -8.0))

    def forward(self, query: Tensor, chosen: Tensor) -> Tensor:
        bank = cast(Tensor, self.bank)[chosen.reshape(-1)].view(-1, NEAREST, SIDE + 2, SIDE + 2, CHANNELS)
        cells = query.permute(0, 2, 3, 1)[:, None]
        rows = []
        for block in range(SIDE // BLOCK):
            own = cells[:, :, :, block * BLOCK : (block + 1) * BLOCK]
            best = None
            for down in range(3):
                part = bank[:, :, down : down + SIDE, block * BLOCK : (block + 1) * BLOCK + 2]
                cosines = ((own @ part.transpose(3, 4)).amax(1) + self.beside).amax(3)
                best = cosines if best is None else torch.maximum(best, cosines)
            assert best is not None
            rows.append(best)
        return 1 - torch.cat(rows, dim=2)


def compiled(data: bytes, threads: int) -> Any:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    core = openvino_core()
    return core.compile_model(core.read_model(io.BytesIO(data)), "CPU", settings).create_infer_request()


def traced(module: nn.Module, example: tuple[Tensor, Tensor]) -> bytes:
    file = io.BytesIO()
    torch.onnx.export(module.eval(), example, file, dynamo=False, opset_version=17, input_names=["query", "chosen"])
    return file.getvalue()


def in_turns(subjects: Mapping[str, Callable[[], object]], rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(rounds + 1):
        for name, subject in subjects.items():
            began = time.perf_counter()
            subject()
            if turn:
                times[name].append((time.perf_counter() - began) * 1e3)
    width = max(map(len, times))
    for name, values in times.items():
        print(f"{name:{width}}  median {statistics.median(values):7.1f} ms  least {min(values):7.1f} ms")


def searches(references: int, rounds: int, threads: int) -> None:
    torch.manual_seed(0)
    patches = normalised(torch.randn(references, CHANNELS, SIDE, SIDE))
    example = normalised(torch.randn(1, CHANNELS, SIDE, SIDE)), torch.randperm(references)[None, :NEAREST]
    forms = {
        "nine shifted products": Shifts(patches),
        "blocks of a row": RowBlocks(patches),
        "tiles (edge-ad)": TileSearch(patches, 3),
        "tiles, float16": TileSearch(patches, 3, "float16"),
        "tiles, int8": TileSearch(patches, 3, "int8"),
    }
    inputs = {"query": example[0].numpy(), "chosen": example[1].numpy()}
    subjects, answers = {}, {}
    for name, form in forms.items():
        request = compiled(traced(form, example), threads)
        answers[name] = next(iter(request.infer(inputs).values())).copy()
        subjects[name] = lambda request=request: request.infer(inputs)
    first = answers["nine shifted products"]
    for name, found in answers.items():
        print(f"{name}: off by {np.abs(found - first).max():.1e} at most")
    in_turns(subjects, rounds)


def frames(backbone_name: str, references: int, rounds: int, threads: int) -> None:
    config = CprConfig(backbone_name, KNOWN_LAYERS[backbone_name])
    backbone = Backbone(config.backbone, config.layers).eval()
    channels = [shape[0] for shape in backbone.shapes(*INPUT.size_hw)]
    pictures = torch.randint(0, 256, (references, *INPUT.size_hw, 3), dtype=torch.uint8)
    foreground = Foreground(torch.randn(channels[0]), torch.tensor(0.5))
    network = Cpr(
        config, backbone, LocalBranch(channels), torch.randn(12, channels[0]), foreground, pictures, ()
    ).eval()
    family = model_family("cpr")
    picture = np.random.default_rng(0).integers(0, 256, (1, *INPUT.size_hw, 3), dtype=np.uint8)
    subjects: dict[str, Callable[[], object]] = {}
    kinds: tuple[BankType, ...] = ("float32", "float16", "int8")
    for kind in kinds:
        network.bank = kind
        module = fast_module(family, LoadedNetwork(network, {}, ""), INPUT, OUTPUT)
        data = graph_from_module(module, INPUT.size_hw, batch=None, opset=17).data
        request = compiled(data, threads)
        subjects[f"frame, {kind} bank ({len(data) / 1e6:.0f} MB)"] = lambda request=request: request.infer([picture])
    network.bank = "float32"
    part = _Described(FastCpr(network, INPUT, OUTPUT))
    file = io.BytesIO()
    torch.onnx.export(part.eval(), (torch.zeros(1, 3, *INPUT.size_hw),), file, dynamo=False, opset_version=17)
    request, image = compiled(file.getvalue(), threads), np.zeros((1, 3, *INPUT.size_hw), np.float32)
    subjects["backbone and metric networks alone"] = lambda: request.infer([image])
    in_turns(subjects, rounds)


class _Described(nn.Module):
    def __init__(self, fast: FastCpr) -> None:
        super().__init__()
        self.fast = fast

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        fine, coarse = (metric(tap) for metric, tap in zip(self.fast.metric, self.fast.backbone(image), strict=True))
        return fine, coarse


@click.command()
@click.option("--backbone", default="densenet201")
@click.option("--references", default=31)
@click.option("--rounds", default=9)
@click.option("--threads", default=2)
def main(backbone: str, references: int, rounds: int, threads: int) -> None:
    print(f"search of a map of {SIDE}x{SIDE}, {CHANNELS} channels, {NEAREST} of {references} references")
    with torch.no_grad():
        searches(references, rounds, threads)
        print(f"\n{backbone}, {INPUT.height}x{INPUT.width}, {references} references, {threads} threads")
        frames(backbone, references, rounds, threads)


if __name__ == "__main__":
    main()
