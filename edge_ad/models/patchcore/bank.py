"""The bank of good patches, and all that a graph holds of it.

A graph of this family has these constants, under `logits.search`:

* `blocks.<i>.weight` (m_i, D, 1, 1): the bank itself, its entries minus `centre`, in blocks one after another
* `blocks.<i>.bias` (m_i,): the squared norms of those rows
* `centre<j>` (D_j, 1, 1): a constant that is taken from features and entries alike, one for each tap; one behind the
  other they have D numbers. Distances do not change by it; what is rounded shrinks with the norms. It is the mean of
  the bank that was exported and need not be that of another

Where a bank knows places of patches (`position`), these are the last two of the D numbers, a tap of their own.

For `--score reweighted` alone there is `logits.reweight.neighbours` (M, b): the rows nearest to each row, itself first;
`neighbour_table` makes it of all rows.

The convolutions read y = 2·(centre − x) for patches x, so a patch becomes an entry as the row −y/2, with its squared
norm as the bias; a further block may hold such rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_ad.errors import ConfigError

MOST_BYTES = 2**31 - 2**20  # of a file in protobuf, with room for what is not a constant
BLOCK_BYTES = 1 << 22  # distances of one picture that are held at a time
LEAST_BLOCK = 16  # entries; fewer would not be worth a product
MOST_HELD = 1 << 25  # distances that are held at a time while rows are compared; 256 MB in float64


@dataclass(frozen=True)
class CentredBank:
    """Entries minus their mean.

    Attributes:
        entries: (M, D) float32.
        centre: (D,) float32, the mean that was taken away.
        squares: (M,) float32, squared norms of the entries.
    """

    entries: Tensor
    centre: Tensor
    squares: Tensor

    @classmethod
    def of(cls, bank: Tensor) -> CentredBank:
        """Centre a bank (M, D); differences and norms are formed in float64."""
        centre = bank.double().mean(0).float()
        entries = (bank.double() - centre.double()).float()
        return cls(entries, centre, entries.double().square().sum(1).float())

    def blocks(self, patches: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Entries and squared norms in parts, each of which has BLOCK_BYTES of distances of one picture.

        Args:
            patches: of a picture.
        """
        size = max(LEAST_BLOCK, BLOCK_BYTES // (4 * patches))
        parts = max(1, round(len(self.entries) / size))
        return zip(self.entries.chunk(parts), self.squares.chunk(parts), strict=True)


def constant_bytes(backbone: nn.Module) -> int:
    """What a graph holds of a backbone."""
    return sum(4 * value.numel() for value in backbone.state_dict().values())


def bytes_of(entries: int, dim: int, neighbours: int) -> int:
    """What a graph holds of a bank. Args: neighbours: b of the score `reweighted`, else 0."""
    return entries * _bytes_per_entry(dim, neighbours)


def check_fits(entries: int, dim: int, neighbours: int, beside: int = 0) -> None:
    """Raise ConfigError for a bank that no ONNX file holds.

    Args:
        dim: columns of the bank.
        neighbours: b of the score `reweighted`, else 0.
        beside: bytes of all other constants.
    """
    most = (MOST_BYTES - beside) // _bytes_per_entry(dim, neighbours)
    if entries > most:
        size = bytes_of(entries, dim, neighbours) / 1e9
        raise ConfigError(
            "coreset",
            [
                f"{entries} entries of {dim} numbers are {size:.1f} GB, and a graph holds 2 GB;"
                f" at most {most} entries fit, so give --coreset {most} or less"
            ],
        )


def _bytes_per_entry(dim: int, neighbours: int) -> int:
    rows = 2 if neighbours else 1  # what lies around an entry is taken from rows of one block
    return 4 * (rows * dim + 1 + neighbours)


def neighbour_table(entries: Tensor, count: int) -> Tensor:
    """The rows that are nearest to each row of a bank (M, D), itself first: (M, min(count, M)) int64."""
    rows = entries.double()
    squares = rows.square().sum(1)
    found = []
    for own in torch.split(torch.arange(len(rows)), max(1, MOST_HELD // len(rows))):
        distances = squares - 2 * rows[own] @ rows.T  # the row's own norm changes no order
        distances[torch.arange(len(own)), own] = -torch.inf
        found.append(distances.topk(min(count, len(rows)), dim=1, largest=False).indices)
    return torch.cat(found)
