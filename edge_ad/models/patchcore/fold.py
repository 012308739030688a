"""The export form of PatchCore: the search is a convolution with the bank for its weights.

d² = ‖x‖² − 2 x·m + ‖m‖², so the nearest entry is where a 1×1 convolution of M outputs (weights m, biases ‖m‖², input
−2 x) is least. No difference of patches and entries is ever held. Large banks are searched in blocks, so that the
distances of one picture take a few megabytes, whatever the bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.models.contract import Answer
from edge_ad.models.patchcore.bank import CentredBank, check_fits, constant_bytes, neighbour_table
from edge_ad.models.patchcore.config import PatchCoreConfig
from edge_ad.models.patchcore.embedding import fast_embedding
from edge_ad.models.patchcore.network import PatchCore, as_distance
from edge_ad.models.patchcore.position import AXES
from edge_ad.models.student import NarrowTaps, StudentTrunk

OUTSIDE = 1e-5
"""Share of its largest number by which a bank may lie beside its student's features: the rounding of float32."""


class BankSearch(nn.Module):
    """Patch embeddings in parts (N, D_j, h, w) → distances to the bank (N, h, w); see `bank` for its constants.

    The parts stay apart until they are centred, so that in int8 each can have a range of its own.

    Args:
        widths: D_j.
        patches: of a picture.
    """

    def __init__(self, bank: CentredBank, config: PatchCoreConfig, widths: Sequence[int], patches: int) -> None:
        super().__init__()
        self._distance, self._nearest = config.distance, min(config.nearest, len(bank.entries))
        for number, part in enumerate(torch.split(bank.centre, list(widths))):
            self.register_buffer(f"centre{number}", part[:, None, None].clone())
        self.blocks = nn.ModuleList(_block(rows, squares) for rows, squares in bank.blocks(patches))

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        turned = [2 * (self.get_buffer(f"centre{number}") - part) for number, part in enumerate(parts)]
        joint = _joined(turned, 1)
        least = [self._least(block(joint)) for block in self.blocks]
        squares = least[0] if len(least) == 1 else self._least(torch.cat(least, dim=1))
        for part in turned:
            squares = squares + 0.25 * part.pow(2).sum(1, keepdim=True)
        distances = as_distance(torch.relu(squares), self._distance)
        return distances.squeeze(1) if self._nearest == 1 else distances.mean(1)

    def _least(self, found: Tensor) -> Tensor:
        """The smallest of (N, m, h, w), or as many of them as count."""
        if self._nearest == 1:
            return found.amin(1, keepdim=True)
        count = min(self._nearest, found.shape[1])
        return found.topk(count, dim=1, largest=False, sorted=False).values


def _block(rows: Tensor, squares: Tensor) -> nn.Conv2d:
    layer = nn.Conv2d(rows.shape[1], rows.shape[0], 1)
    layer.weight = nn.Parameter(rows[:, :, None, None].clone(), requires_grad=False)
    layer.bias = nn.Parameter(squares.clone(), requires_grad=False)
    return layer


class FoldedPatchCore(nn.Module):
    """Export form of a network in eval mode; equal to it up to float rounding.

    `forward`: (N, 3, H, W) float32 normalised RGB → (N, h, w) float32 distances, or an answer with a score where the
    post-process names one that only the graph knows.

    Raises: ConfigError for a bank that no file holds.
    """

    def __init__(self, network: PatchCore, image_hw: tuple[int, int], postprocess: PostprocessSpec) -> None:
        super().__init__()
        shapes = network.backbone.shapes(*image_hw)
        config = network.config
        reweighted = postprocess.score == "reweighted"
        around = min(config.neighbours, len(network.bank)) if reweighted else 0
        self.backbone, bank_alone, channels = narrowed(network, [channels for channels, _, _ in shapes])
        held = network.with_places(bank_alone)
        entries, dim = held.shape
        check_fits(int(entries), int(dim), around, constant_bytes(network.backbone))
        self.embedding = fast_embedding(config, channels)
        bank = CentredBank.of(held)
        patches = shapes[0][1] * shapes[0][2]
        self.positions = network.positions
        widths = self.embedding.widths if self.positions is None else (*self.embedding.widths, AXES)
        self.search = BankSearch(bank, config, widths, patches)
        table = neighbour_table(bank.entries, around) if around > 1 else None
        self.reweight = None if table is None else Reweight(self.search, bank.centre, table, patches)
        self._own_score = reweighted

    def forward(self, image: Tensor) -> Tensor | Answer:
        parts = self.embedding.parts(self.backbone(image))
        if self.positions is not None:
            parts = [*parts, self.positions(parts[0])]
        patches: Tensor = self.search(parts)
        if not self._own_score:
            return patches
        score = patches.amax((1, 2)) if self.reweight is None else self.reweight(patches, _joined(parts, 1))
        return Answer(patches, score=score)


def narrowed(network: PatchCore, channels: list[int]) -> tuple[nn.Module, Tensor, list[int]]:
    """Backbone, bank (M, D) and channels of the taps, in as few numbers as give the same distances.

    A student's taps lie in few dimensions, and so does a bank of them, where the embedding leaves channels apart. One
    of other features does not, and is left as it is.
    """
    trunk = network.backbone.trunk
    if not isinstance(trunk, StudentTrunk) or network.config.embedding != "averaged":
        return network.backbone, network.bank, channels
    taps = NarrowTaps(trunk)
    parts = torch.split(network.bank.double(), channels, dim=1)
    turned = [part @ basis for part, basis in zip(parts, taps.bases, strict=True)]
    back = torch.cat([part @ basis.T for part, basis in zip(turned, taps.bases, strict=True)], dim=1)
    if bool((back - network.bank).abs().max() > OUTSIDE * network.bank.abs().max()):
        return network.backbone, network.bank, channels
    return taps, torch.cat(turned, dim=1).float(), [part.shape[1] for part in turned]


class Reweight(nn.Module):
    """Distances (N, h, w) and patch embeddings (N, D, h, w) → `network.Reweighted`'s score (N,).

    The entries around the nearest one are known from the bank alone, so a table gives them, and no second search.

    Args:
        centre: (D,), that of the bank.
        table: (M, b), see `bank.neighbour_table`.
        patches: of a picture.
    """

    centre: Tensor
    neighbours: Tensor
    every: Tensor
    """Spreads a place over the numbers of an embedding."""

    def __init__(self, search: BankSearch, centre: Tensor, table: Tensor, patches: int) -> None:
        super().__init__()
        self._blocks = [cast("nn.Conv2d", block) for block in search.blocks]
        self._dim, self._patches = self._blocks[0].in_channels, patches
        self.register_buffer("centre", centre.clone())
        self.register_buffer("neighbours", table.to(torch.int32))
        self.register_buffer("every", torch.zeros(1, self._dim, 1, dtype=torch.int64))

    def forward(self, patches: Tensor, embedding: Tensor) -> Tensor:
        flat = patches.reshape(-1, self._patches)
        place = flat.argmax(1, keepdim=True)[:, :, None] + self.every
        farthest = embedding.reshape(-1, self._dim, self._patches).gather(2, place)[:, :, 0] - self.centre  # (N, D)
        found = _joined([block(-2 * farthest[:, :, None, None])[:, :, 0, 0] for block in self._blocks], 1)
        rows = _joined([block.weight for block in self._blocks], 0)
        around = rows[self.neighbours[found.argmin(1)].long()][:, :, :, 0, 0]  # (N, b, D)
        distances = (around - farthest[:, None]).square().sum(2).sqrt()
        weight = 1 - F.softmax(distances, dim=1)[:, 0]
        return flat.amax(1) * weight


def _joined(parts: list[Tensor], axis: int) -> Tensor:
    """Several side by side; one as it is, so that the graph holds it once."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)
