"""The exported search: exact in three engines, whatever the bank and the batch, and bounded in memory."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.graph.check import Examination, checked_graph
from edge_ad.bundle.graph.contract import GraphContract
from edge_ad.bundle.graph.model import read_model
from edge_ad.bundle.graph.wire import InMemory
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.errors import ConfigError
from edge_ad.export.onnx_graph import OnnxGraph, graph_from_module
from edge_ad.export.parity import check_parity, onnx_runner, probe_images
from edge_ad.models.contract import ContractModule
from edge_ad.models.patchcore import bank as bank_module
from edge_ad.models.patchcore.bank import BLOCK_BYTES, CentredBank, check_fits, neighbour_table
from edge_ad.models.patchcore.config import PatchCoreConfig
from edge_ad.models.patchcore.family import FAMILY
from edge_ad.models.patchcore.fold import BankSearch, FoldedPatchCore
from edge_ad.models.patchcore.network import PatchCore, Reweighted
from edge_ad.models.patchcore.specs import OUTPUT, SCORES
from edge_ad.openvino_core import openvino_core

Make = Callable[..., PatchCore]
SIDE = 64
PREPROCESS = PreprocessSpec(SIDE, SIDE, resize_mode="stretch")
REWEIGHTED = OUTPUT.with_score("reweighted", SCORES)


def exported(network: PatchCore, spec: PostprocessSpec, batch: int | None = None) -> tuple[OnnxGraph, ContractModule]:
    """The graph, let through by the check that stands before engines, and the published network."""
    fast = ContractModule(FoldedPatchCore(network, PREPROCESS.size_hw, spec), PREPROCESS, spec).eval()
    graph = graph_from_module(fast, PREPROCESS.size_hw, batch=batch, opset=17)
    checked_graph(graph.data, contract_of(graph))
    head = Reweighted(network) if spec.score == "reweighted" else network
    return graph, ContractModule(head, PREPROCESS, spec).eval()


def contract_of(graph: OnnxGraph) -> GraphContract:
    return GraphContract(graph.image, graph.outputs, graph.opset, FAMILY.operators)


def openvino_runner(graph: OnnxGraph) -> Any:
    core = openvino_core()
    compiled = core.compile_model(
        core.read_model(BytesIO(graph.data)), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    return lambda images: [compiled(images)[output] for output in compiled.outputs]


@pytest.mark.parametrize(
    ("values", "spec", "block_bytes"),
    [
        ({"distance": "root"}, OUTPUT, BLOCK_BYTES),
        ({"distance": "squared", "nearest": 3}, OUTPUT, 256 * 4 * 16),
        ({"distance": "root"}, REWEIGHTED, BLOCK_BYTES),
        ({"distance": "root", "neighbours": 4}, REWEIGHTED, 256 * 4 * 16),
        ({"neighbours": 1}, REWEIGHTED, BLOCK_BYTES),
        ({"embedding": "pooled", "pretrain_embed_dim": 48, "embed_dim": 80}, OUTPUT, BLOCK_BYTES),
    ],
    ids=["one", "three in blocks", "reweighted", "reweighted in blocks", "one neighbour", "pooled"],
)
def test_it_is_what_is_published(
    make: Make, monkeypatch: pytest.MonkeyPatch, values: Any, spec: PostprocessSpec, block_bytes: int
) -> None:
    monkeypatch.setattr(bank_module, "BLOCK_BYTES", block_bytes)
    graph, published = exported(make(50, **values), spec)
    for run in (onnx_runner(graph), openvino_runner(graph)):
        check_parity(graph, published, run=run, relative=True)
    searched = [node for node in onnx.load_model_from_string(graph.data).graph.node if "search/blocks" in node.name]
    assert len(searched) == (1 if block_bytes == BLOCK_BYTES else 3)


def test_a_batch_is_its_pictures(make: Make) -> None:
    images = probe_images(PREPROCESS.size_hw, 5)
    for spec in (OUTPUT, REWEIGHTED):
        run = onnx_runner(exported(make(), spec)[0])
        together = run(images)
        for index in range(len(images)):
            for one, every in zip(run(images[index : index + 1]), together, strict=True):
                np.testing.assert_allclose(one[0], every[index], rtol=1e-4, atol=1e-5)


def test_entries_are_at_no_distance_from_themselves(make: Make) -> None:
    """Squared norms of some hundred cancel; without the centre much would be left of it."""
    network = make(40, distance="root")
    network.bank = network.bank + 50.0  # far from the origin, as features behind a ReLU are
    search = BankSearch(CentredBank.of(network.bank), network.config, (64, 128), 40)
    parts = network.bank.T[None, :, :, None].split([64, 128], dim=1)
    found = search(parts)
    spread = float(torch.cdist(network.bank, network.bank).max())
    assert float(found.max()) < 2e-3 * spread
    read = torch.cat([2 * (search.get_buffer(f"centre{at}") - part) for at, part in enumerate(parts)], dim=1)
    rows = -read[0, :, :, 0].T / 2  # what `bank` says of how a patch becomes an entry
    assert torch.allclose(rows, search.blocks[0].weight[:, :, 0, 0], atol=1e-4)  # type: ignore[index]


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_nearest_of_any_bank(entries: int, dim: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bank, patches = rng.normal(3, 2, (entries, dim)), rng.normal(3, 2, (7, dim))
    config = PatchCoreConfig(embed_dim=dim, nearest=count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bank_module, "BLOCK_BYTES", 4 * 7 * int(rng.integers(1, 40)))
        search = BankSearch(CentredBank.of(torch.from_numpy(bank).float()), config, (dim,), 7)
    found = search([torch.from_numpy(patches).float().T[None, :, :, None]])
    squares = np.sort(((patches[:, None] - bank[None]) ** 2).sum(2), axis=1)[:, :count]
    np.testing.assert_allclose(found[0, :, 0], squares.mean(1), rtol=1e-4, atol=1e-4)


def test_neighbours_are_those_of_the_bank() -> None:
    rng = np.random.default_rng(1)
    bank = rng.normal(size=(70, 6)).astype(np.float32)
    bank[9] = bank[3]  # twins: each is its own first
    distances = ((bank[:, None].astype(np.float64) - bank[None]) ** 2).sum(2)
    np.fill_diagonal(distances, -1)
    table = neighbour_table(torch.from_numpy(bank), 5).numpy()
    assert table[:, 0].tolist() == list(range(70))
    np.testing.assert_allclose(
        np.take_along_axis(distances, table, 1), np.sort(distances, axis=1)[:, :5], rtol=1e-9, atol=1e-9
    )
    assert neighbour_table(torch.from_numpy(bank[:3]), 9).shape == (3, 3)


def test_memory_does_not_grow_with_the_bank(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tensors take at a time for one picture, as the check works it out: the bank lies in constants alone."""
    monkeypatch.setattr(bank_module, "BLOCK_BYTES", 1 << 16)
    needed = {}
    for entries in (60, 600):
        graph, _ = exported(make(entries), OUTPUT)
        model, reader = read_model(InMemory(graph.data))
        needed[entries] = Examination(model, reader, contract_of(graph), len(graph.data)).facts().peak_bytes
    assert needed[600] <= needed[60] + (1 << 16)
    whole = 600 * 16 * 16 * 4
    monkeypatch.setattr(bank_module, "BLOCK_BYTES", 1 << 30)
    graph, _ = exported(make(600), OUTPUT)
    model, reader = read_model(InMemory(graph.data))
    in_one = Examination(model, reader, contract_of(graph), len(graph.data)).facts().peak_bytes
    assert in_one >= whole, "distances to all entries at once would be seen"


def test_nothing_but_standard_operators(make: Make) -> None:
    graph, _ = exported(make(), REWEIGHTED)
    model = onnx.load_model_from_string(graph.data)
    assert {node.domain for node in model.graph.node} == {""}
    held = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert held["logits.search.blocks.0.weight"] == (40, 192, 1, 1)
    assert held["logits.search.blocks.0.bias"] == (40,) and held["logits.search.centre1"] == (128, 1, 1)
    assert held["logits.reweight.neighbours"] == (40, 9)
    large = [name for name, dims in held.items() if np.prod(dims) >= 40 * 192 and 40 in dims]
    assert large == ["logits.search.blocks.0.weight"], "the bank lies in the graph once"


def test_a_bank_that_no_file_holds_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    check_fits(1_000_000, 500, 0)
    with pytest.raises(ConfigError, match=r"2000000 entries of 500 numbers are 4.0 GB.* at most 107\d{4} entries fit"):
        check_fits(2_000_000, 500, 0)
    most = (2**31 - 2**20) // (4 * 501)
    check_fits(most, 500, 0)
    for more in ({"beside": 10**6}, {}):
        with pytest.raises(ConfigError, match=f"at most {(2**31 - 2**20 - more.get('beside', 0)) // 2004} "):
            check_fits(most + 1, 500, 0, **more)
    network = make()
    monkeypatch.setattr(bank_module, "MOST_BYTES", 4 * 193 * 20)
    with pytest.raises(ConfigError, match="coreset: 40 entries of 192 numbers"):
        FoldedPatchCore(network, PREPROCESS.size_hw, OUTPUT)


def test_scores_are_reweighted_as_defined(make: Make) -> None:
    """Against equation 7 by hand, in float64, for the patch that is farthest."""
    network = make(30, distance="root", neighbours=5)
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(9))
    answer = FoldedPatchCore(network, PREPROCESS.size_hw, REWEIGHTED)(images)
    bank = network.bank.double().numpy()
    for index in range(2):
        patches = network.embed(images)[index].flatten(1).T.double().numpy()
        distances = np.sqrt(((patches[:, None] - bank[None]) ** 2).sum(2))
        place = int(distances.min(1).argmax())
        own = int(distances[place].argmin())
        around = np.argsort(((bank - bank[own]) ** 2).sum(1))[:5]
        exponents = np.exp(distances[place][around] - distances[place][around].max())
        wanted = distances[place, own] * (
            1 - np.exp(distances[place, own] - distances[place][around].max()) / exponents.sum()
        )
        assert float(answer.score[index]) == pytest.approx(wanted, rel=1e-4)  # type: ignore[union-attr,index]
