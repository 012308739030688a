"""Global retrieval as published: which training pictures a picture looks like as a whole (the paper's section III-B).

A picture is a grid of codes, the nearest of 12 centres for each cell of the first tap; a block of cells is the
histogram of its codes; two pictures are as far apart as those of their blocks that are most alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_ad.models.cpr.config import BLOCKS, CENTRES, RetrievalDistance

EPSILON = 1e-8  # added to the shares of a histogram before their logarithm


@dataclass(frozen=True)
class BlockGrid:
    """How a tap is cut into blocks. Attributes: each of rows and columns.

    Attributes:
        side: cells of a block.
        padding: cells that are added on BOTH sides, with a code of their own.
        count: blocks.
    """

    side: tuple[int, int]
    padding: tuple[int, int]
    count: tuple[int, int]

    @classmethod
    def of(cls, height: int, width: int) -> BlockGrid:
        side = (-(-height // BLOCKS), -(-width // BLOCKS))
        padding = (BLOCKS * side[0] - height, BLOCKS * side[1] - width)
        rows, columns = (
            (size + 2 * pad - each) // each + 1 for size, pad, each in zip((height, width), padding, side, strict=True)
        )
        return cls(side, padding, (rows, columns))

    @property
    def blocks(self) -> int:
        return self.count[0] * self.count[1]


def codes(tap: Tensor, centres: Tensor) -> Tensor:
    """Nearest centre of each cell: (N, C, h, w), (12, C) → (N, h, w) int64.

    Distances are those of differences, not of expanded squares, as in the authors' code.
    """
    distances = torch.stack([(tap - centre[:, None, None]).square().sum(1) for centre in centres], dim=1)
    return distances.argmin(1)


def histograms(code: Tensor) -> Tensor:
    """Shares of the codes in each block, of which the first is that of padding: (N, h, w) → (N, blocks, 13)."""
    grid = BlockGrid.of(code.shape[1], code.shape[2])
    rows, columns = grid.padding
    padded = F.pad(code + 1, (columns, columns, rows, rows))
    bins = F.one_hot(padded, CENTRES + 1).permute(0, 3, 1, 2).float()
    return F.avg_pool2d(bins, grid.side, grid.side).flatten(2).transpose(1, 2)


def block_distances(query: Tensor, reference: Tensor, kind: RetrievalDistance) -> Tensor:
    """(N, blocks, 13), (R, blocks, 13) → (N, R, blocks)."""
    query, reference = query[:, None], reference[None]
    if kind == "l2":
        lengths: Tensor = torch.linalg.vector_norm(query - reference, dim=-1)
        return lengths
    query, reference = query + EPSILON, reference + EPSILON
    return (query * torch.log(query / reference)).sum(-1)


def kept_blocks(blocks: int, share: float) -> int:
    """How many blocks count; at least one."""
    return max(1, int(blocks * share))


def global_distances(blocks: Tensor, share: float) -> Tensor:
    """Sum of the smallest distances: (N, R, blocks) → (N, R)."""
    return blocks.sort(dim=-1).values[..., : kept_blocks(blocks.shape[-1], share)].sum(-1)


def nearest_first(distances: Tensor) -> Tensor:
    """References from the nearest on; of equal ones that which comes first: (N, R) → (N, R) int64."""
    return distances.sort(dim=-1, stable=True).indices


def spread_out(histogram: Tensor, count: int, kind: RetrievalDistance, share: float) -> list[int]:
    """`count` pictures, so that every other one looks like one of them (greedy k-centre), in their order.

    The distance is that of retrieval, made symmetric; the first one is that with the smallest sum of distances.

    Args:
        histogram: (R, blocks, 13).
    """
    one_way = torch.stack(
        [global_distances(block_distances(each[None], histogram, kind), share)[0] for each in histogram]
    )
    distances = one_way + one_way.T
    chosen = [int(distances.sum(1).argmin())]
    nearest = distances[chosen[0]].clone()
    while len(chosen) < min(count, len(histogram)):
        nearest[chosen] = -1.0  # of duplicates none is left out twice
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, distances[chosen[-1]])
    return sorted(chosen)
