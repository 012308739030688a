"""PatchCore as published: patch embeddings, and their distance to the nearest entries of a bank.

Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler: "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022 (arXiv
2106.08265), section 3. Distances are computed in float64, as what the exported form is compared with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.bundle.tiles import TileGrid
from edge_ad.models.backbone import Backbone
from edge_ad.models.contract import Answer
from edge_ad.models.patchcore.config import Distance, PatchCoreConfig
from edge_ad.models.patchcore.embedding import published_embedding
from edge_ad.models.patchcore.position import AXES, Positions, places_of

MOST_HELD = 1 << 25  # distances that are held at a time; 256 MB in float64


class PatchCore(nn.Module):
    """Backbone, embedding and bank.

    `forward`: (N, 3, H, W) float32 normalised RGB → (N, h, w) float32 distances; h and w are those of the first tap.

    Attributes:
        bank: (M, D) float32, set when it is known.
        places: (M, 2) float32, where its entries lie, unscaled; (0, 2) where the bank does not know.
        positions: where patches of a picture lie, set when its size is known; None where no place counts.
    """

    bank: Tensor
    places: Tensor
    positions: Positions | None

    def __init__(self, config: PatchCoreConfig, bank: Tensor | None = None, places: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.layers)
        self.embedding = published_embedding(config)
        self.register_buffer("bank", torch.zeros(0, config.embed_dim) if bank is None else bank)
        self.register_buffer("places", torch.zeros(0, AXES) if places is None else places)
        self.positions = None

    @property
    def entries(self) -> Tensor:
        """What embeddings are compared with: (M, D), or (M, D + 2) where places count."""
        return self.with_places(self.bank)

    def with_places(self, bank: Tensor) -> Tensor:
        """Entries (M, d) of the bank and, where they count, their places."""
        if not self.config.tile_position:
            return bank
        return torch.cat([bank, (self.places.double() * self.config.place_scale).float()], dim=1)

    def lie_on(self, tile_hw: tuple[int, int], tiles: TileGrid | None) -> None:
        """Find out where patches lie, as far as that counts. Args: tile_hw: of a picture, or of a tile."""
        if self.config.tile_position:
            _, rows, columns = self.backbone.shapes(*tile_hw)[0]
            places = places_of((rows, columns), self.config.canvas_hw, tiles)
            self.positions = Positions(places, self.config.place_scale).to(self.bank.device)

    def embed(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) → patch embeddings (N, D, h, w), with (N, 2, h, w) places behind where they count."""
        embedding: Tensor = self.embedding(self.backbone(image))
        if self.positions is None:
            return embedding
        return torch.cat([embedding, self.positions(embedding)], dim=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.patch_map(self.embed(image))

    def patch_map(self, embedding: Tensor) -> Tensor:
        """(N, D, h, w) → distances (N, h, w)."""
        pictures, _, rows, columns = embedding.shape
        squares, _ = nearest(as_rows(embedding), self.entries, min(self.config.nearest, len(self.bank)))
        return as_distance(squares, self.config.distance).mean(1).view(pictures, rows, columns).float()


class Reweighted(nn.Module):
    """The score that looks at the neighbourhood of the nearest entry (section 3.3, equation 7), as anomalib has it.

    `forward`: (N, 3, H, W) → distances, and s · (1 − softmax(d)₀): s of the patch that is farthest from the bank, d
    its distances to the `neighbours` entries that are nearest to its own nearest one, that one first. Where one
    neighbour is all, s alone. Distances in the weight are never squared: it is a share.
    """

    def __init__(self, network: PatchCore) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Answer:
        network = self.network
        embedding = network.embed(image)
        patches = network.patch_map(embedding)
        return Answer(patches, score=reweighted_score(patches, embedding, network.entries, network.config.neighbours))


def reweighted_score(patches: Tensor, embedding: Tensor, bank: Tensor, neighbours: int) -> Tensor:
    """(N,) float32 score of distances (N, h, w) of embeddings (N, D, h, w)."""
    score, place = patches.flatten(1).max(1)
    farthest = embedding.flatten(2)[torch.arange(len(place)), :, place]
    _, index = nearest(farthest, bank, 1)
    _, around = nearest(bank[index[:, 0]], bank, min(neighbours, len(bank)))
    if around.shape[1] == 1:
        return score
    distances = (farthest.double()[:, None] - bank.double()[around]).square().sum(2).sqrt()
    return (score * (1 - F.softmax(distances, dim=1)[:, 0])).float()


def nearest(rows: Tensor, bank: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest entries of a bank (M, D) to rows (P, D).

    Returns: (P, count) float64 squared distances, nearest first, and (P, count) int64 indices.
    """
    entries = bank.double()
    squares = entries.square().sum(1)
    found = []
    for part in torch.split(rows, max(1, MOST_HELD // len(bank))):
        own = part.double()
        distances = (own.square().sum(1)[:, None] + squares - 2 * own @ entries.T).clamp(min=0)
        found.append(distances.topk(count, dim=1, largest=False))
    values, indices = zip(*found, strict=True)
    return torch.cat(values), torch.cat(indices)


def as_rows(embedding: Tensor) -> Tensor:
    """(N, D, h, w) → (N·h·w, D), row-major."""
    return embedding.permute(0, 2, 3, 1).flatten(0, 2)


def as_distance(squares: Tensor, distance: Distance) -> Tensor:
    """What the patch map holds of squared distances."""
    return squares if distance == "squared" else squares.sqrt()
