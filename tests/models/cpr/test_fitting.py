"""Codebook, blocks, foreground and the choice of references on cells of which is known what they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from edge_ad.models.cpr.fitting import Cells, NoForegroundError, codebook, foreground
from edge_ad.models.cpr.learned import _foreground
from edge_ad.models.cpr.retrieval import (
    BlockGrid,
    block_distances,
    codes,
    global_distances,
    histograms,
    nearest_first,
    spread_out,
)


def cells_of(taps: Tensor) -> Cells:
    count, channels, height, width = taps.shape
    return Cells(count, channels, height, width, lambda: iter(taps.split(2)))


def discs(count: int = 4, side: int = 28, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Taps of a disc on a plain ground, and where the disc is: (count, 6, side, side), (side, side) bool."""
    rows, columns = np.mgrid[:side, :side]
    disc = torch.from_numpy(np.hypot(rows - side / 2, columns - side / 2) < side / 3)
    taps = noise * torch.randn(count, 6, side, side, generator=torch.Generator().manual_seed(0))
    taps[:, 2] += disc * 3.0
    return taps, disc


def on_two_grounds() -> tuple[Tensor, Tensor]:
    """The same on a grained ground, which two clusters split, as that of cookies: 0.56 of the border are in one."""
    taps, disc = discs()
    grain = 3.0 * torch.randn(4, 28, 28, generator=torch.Generator().manual_seed(2)) - 0.5
    taps[:, 4] += torch.where(disc, 2.0, grain)
    return taps, disc


def outlines() -> Tensor:
    """Taps of which only the disc's edge differs from its ground."""
    taps, disc = discs(side=40)
    rows, columns = np.mgrid[:40, :40]
    ring = torch.from_numpy(np.abs(np.hypot(rows - 20, columns - 20) - 6) < 1.5)
    taps[:, 2] -= disc * 3.0
    taps[:, 2] += ring * 3.0
    return taps


@pytest.mark.parametrize("made", [discs, on_two_grounds], ids=["plain ground", "grained ground"])
def test_the_object_is_found(made: Callable[[], tuple[Tensor, Tensor]]) -> None:
    taps, disc = made()
    found = foreground(cells_of(taps))
    weights = found.foreground(taps)
    assert float(weights[:, disc].mean()) > 0.8 and float(weights[:, ~disc].mean()) < 0.2
    assert float(weights.min()) >= 0 and float(weights.max()) <= 1
    border = torch.ones(28, 28, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert found.border == pytest.approx(max(1, int((weights[:, border] > 0.5).sum())) / weights[:, border].numel())
    middle = (weights[:, 8:19, 8:19] > 0.5).float().mean((1, 2))
    assert found.middle == pytest.approx(float(np.quantile(middle, 0.1)), abs=1e-3)
    told = _foreground(cells_of(taps), "auto")
    assert told[0] is not None and told[1][0].startswith("foreground: found (object is 100% of the middle")


def few_pictures_with_specks() -> Tensor:
    """A ground on which, in half of the pictures, a large spot happens to lie in the middle."""
    taps, _ = discs()
    taps[2:] = 0.1 * torch.randn(2, 6, 28, 28, generator=torch.Generator().manual_seed(3))
    return taps


TEXTURES = {
    "noise": torch.randn(3, 4, 30, 30, generator=torch.Generator().manual_seed(1)),
    "an outline": outlines(),
    "spots": few_pictures_with_specks(),
}


@pytest.mark.parametrize("kind", TEXTURES)
def test_what_is_no_object(kind: str) -> None:
    """Nor what is one in outline alone, whose inside would not count, nor what lies in the middle by chance."""
    cells = cells_of(TEXTURES[kind])
    found, notes = _foreground(cells, "auto")
    assert found is None and notes[0].startswith("foreground: none (object is ")
    assert notes[0].endswith("else give --foreground on")
    found, notes = _foreground(cells, "on")
    assert found is not None and notes[0].startswith("foreground: on, though object is ")


@pytest.mark.parametrize(
    ("taps", "told"),
    [
        (discs(side=26)[0], "no border to speak of"),
        (torch.ones(2, 4, 30, 30), "no object in the middle is found"),
    ],
    ids=["too small", "one colour"],
)
def test_no_foreground(taps: Tensor, told: str) -> None:
    with pytest.raises(NoForegroundError, match=told):
        foreground(cells_of(taps))


def test_cells_are_the_same_however_they_come() -> None:
    taps, _ = discs(count=5)
    cells = cells_of(taps)
    flat = taps.permute(0, 2, 3, 1).reshape(-1, 6).numpy()
    wanted = np.random.default_rng(0).permutation(cells.total)[:100]
    np.testing.assert_array_equal(cells.picked(wanted), flat[wanted])
    whole = Cells(5, 6, 28, 28, lambda: iter([taps]))
    assert torch.equal(codebook(cells), codebook(whole))


@pytest.mark.parametrize("side", [28, 30, 16])
def test_blocks_of_every_size(side: int) -> None:
    """By hand: a block counts its cells, and padding has a bin of its own."""
    rng = np.random.default_rng(2)
    code = rng.integers(12, size=(2, side, side + 4))
    grid = BlockGrid.of(side, side + 4)
    padded = np.full((2, side + 2 * grid.padding[0], side + 4 + 2 * grid.padding[1]), -1)
    padded[:, grid.padding[0] : grid.padding[0] + side, grid.padding[1] : grid.padding[1] + side + 4] = code
    found = histograms(torch.from_numpy(code)).numpy()
    assert found.shape == (2, grid.blocks, 13)
    for block, (row, column) in enumerate(np.ndindex(grid.count)):
        top, left = row * grid.side[0], column * grid.side[1]
        part = padded[:, top : top + grid.side[0], left : left + grid.side[1]].reshape(2, -1)
        wanted = np.stack([(part == number - 1).mean(1) for number in range(13)], axis=1)
        np.testing.assert_allclose(found[:, block], wanted, atol=1e-6)


def test_codes_are_the_nearest_centres() -> None:
    tap, centres = torch.randn(2, 5, 7, 6), torch.randn(12, 5)
    wanted = torch.cdist(tap.permute(0, 2, 3, 1).reshape(-1, 5), centres).argmin(1).reshape(2, 7, 6)
    assert torch.equal(codes(tap, centres), wanted)


@pytest.mark.parametrize("kind", ["kl", "l2"])
def test_only_the_blocks_that_are_most_alike_count(kind: str) -> None:
    """A defect that fills a fifth of the blocks does not keep a picture from finding its like."""
    rng = np.random.default_rng(3)
    references = torch.from_numpy(rng.dirichlet(np.ones(13), (6, 25)).astype(np.float32))
    query = references[4:5].clone()
    query[0, :5] = torch.from_numpy(rng.dirichlet(np.ones(13), 5).astype(np.float32))
    blocks = block_distances(query, references, kind)  # type: ignore[arg-type]
    assert nearest_first(global_distances(blocks, 0.8))[0, 0] == 4
    assert float(global_distances(blocks, 0.8)[0, 4].abs()) < 1e-5
    assert float(global_distances(blocks, 1.0)[0, 4]) > 1


def test_references_are_spread_out() -> None:
    """Of three kinds of pictures one of each is chosen, and of duplicates none is left out for another one's sake."""
    rng = np.random.default_rng(4)
    kinds = rng.dirichlet(np.full(13, 0.3), (3, 25)).astype(np.float32)
    histogram = torch.from_numpy(np.concatenate([kinds[[0] * 5], kinds[[1] * 2], kinds[[2]]]))
    three = spread_out(histogram, 3, "kl", 0.8)
    assert three == sorted(three) and {0 if n < 5 else 1 if n < 7 else 2 for n in three} == {0, 1, 2}
    assert spread_out(histogram, 8, "kl", 0.8) == list(range(8))
