"""The tiled search against every cosine computed one by one, and the fold against the network that it folds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.models.cpr.fold import FoldedMetric
from edge_ad.models.cpr.network import metric_network, normalised
from edge_ad.models.cpr.search import TILE, TileGrid, TileSearch, bank_bytes

TOLERANCE = 2e-6


def unit(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return normalised(torch.from_numpy(rng.standard_normal(shape).astype(np.float32)))


def one_by_one(query: Any, bank: Any, chosen: Any, reach: int) -> np.ndarray:
    """In float64: (N, D, h, w), (R, D, h, w), (N, K) → (N, h, w)."""
    count, _, height, width = query.shape
    found = np.full((count, height, width), np.inf)
    for number, row, column in np.ndindex(count, height, width):
        top, left = max(0, row - reach), max(0, column - reach)
        near = bank[chosen[number], :, top : row + reach + 1, left : column + reach + 1].astype(np.float64)
        cosines = np.einsum("kdyx,d->kyx", near, query[number, :, row, column].astype(np.float64))
        found[number, row, column] = 1 - cosines.max()
    return found


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    window=st.sampled_from([1, 3, 5, 9]),
    pictures=st.integers(1, 3),
    batch=st.integers(1, 2),
    seed=st.integers(0, 2**16),
)
def test_every_size_and_window(height: int, width: int, window: int, pictures: int, batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, bank = unit(rng, batch, 5, height, width), unit(rng, 4, 5, height, width)
    chosen = torch.from_numpy(rng.integers(4, size=(batch, pictures)))
    search = TileSearch(bank, window)
    wanted = one_by_one(query.numpy(), bank.numpy(), chosen.numpy(), window // 2)
    np.testing.assert_allclose(search(query, chosen).numpy(), wanted, rtol=0, atol=TOLERANCE)
    everything = np.tile(np.arange(4), (batch, 1))
    wanted = one_by_one(query.numpy(), bank.numpy(), everything, window // 2)
    np.testing.assert_allclose(search(query, None).numpy(), wanted, rtol=0, atol=TOLERANCE)
    assert torch.equal(search.patches(), bank)


def test_cells_out_of_reach_do_not_count() -> None:
    """A control: with every cosine of a tile counted, distances come out smaller."""
    rng = np.random.default_rng(0)
    query, bank = unit(rng, 1, 8, 9, 10), unit(rng, 2, 8, 9, 10)
    search = TileSearch(bank, 3)
    exact = search(query, None)
    search.beside.zero_()
    assert (search(query, None) < exact - 0.05).float().mean() > 0.5


def test_every_cell_is_found_in_each_tile_that_reaches_it() -> None:
    grid = TileGrid.of(9, 6, 1)
    assert grid.inside.shape == (6, TILE**2) and grid.around.shape == (6, (TILE + 2) ** 2)
    assert grid.found.shape == (54, 4)
    np.testing.assert_array_equal(grid.around.ravel()[grid.found], np.tile(np.arange(54)[:, None], 4))


@pytest.mark.parametrize(("bank", "tolerance"), [("float16", 5e-4), ("int8", 4e-3)])
def test_a_bank_of_fewer_bits_is_searched_as_what_it_says(bank: Any, tolerance: float) -> None:
    rng = np.random.default_rng(1)
    query, patches = unit(rng, 2, 64, 8, 8), unit(rng, 3, 64, 8, 8)
    chosen = torch.tensor([[0, 2], [1, 1]])
    search = TileSearch(patches, 3, bank)
    found = search(query, chosen)
    assert torch.allclose(found, TileSearch(search.patches(), 3)(query, chosen), rtol=0, atol=TOLERANCE)
    difference = float((found - TileSearch(patches, 3)(query, chosen)).abs().max())
    assert 0 < difference <= tolerance
    assert search.bank.element_size() * search.bank.numel() == 3 * bank_bytes([(64, 8, 8)], bank)


def drawn_metric(seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    network = metric_network(16).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return network


def test_the_fold_keeps_lengths_and_cosines() -> None:
    network = drawn_metric()
    folded = FoldedMetric(network)
    with torch.no_grad():
        whole, short = network(torch.randn(2, 16, 7, 9)), None
        tap = torch.randn(2, 16, 7, 9)
        whole, short = network(tap).flatten(2), folded(tap).flatten(2)
    assert whole.shape[1] == 384 and short.shape[1] == 257
    products = [each.double().transpose(1, 2) @ each.double() for each in (whole, short)]
    assert float((products[0] - products[1]).abs().max()) <= 1e-5 * float(products[0].abs().max())
    back = torch.einsum("dc,ncp->ndp", folded.basis, short)
    assert float((back - whole).abs().max()) <= 1e-5 * float(whole.abs().max())


def test_rows_of_the_fold_are_of_one_length() -> None:
    """So that none of them is rounded worse than others in 8 bits; the eigenvectors alone would differ by far."""
    rows = FoldedMetric(drawn_metric()).last.weight.flatten(1).norm(dim=1)
    assert float(rows.max() / rows.min()) < 2
