"""What defines a PatchCore detector apart from its bank and the weights of its backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_ad.models.option_types import Name, Names, Positive, Size, Weight
from edge_ad.validation import strict

Embedding = Literal["pooled", "averaged"]
"""`pooled` is the authors' patch embedding, see `edge_ad.models.patch_head`; `averaged` that of anomalib."""
Distance = Literal["squared", "root"]
"""Of the squares that distances are made of, or their root: the authors' scores are squared, anomalib's are not."""

NEIGHBOURS = 9  # anomalib's num_neighbors, and the authors' text: b of equation 7


@strict
@dataclass(frozen=True)
class PatchCoreConfig:
    """Features, and how distances become scores; the defaults are the authors'.

    Attributes:
        backbone: torchvision name, or `timm:<name>`.
        layers: taps; the first one sets the resolution of the patch map.
        embedding: how the taps become patch embeddings.
        pretrain_embed_dim: length of the pooled vector of one tap; for `pooled`.
        embed_dim: length of a patch embedding; for `averaged` the sum of the channels of the taps.
        distance: what a patch map holds.
        nearest: how many of the nearest entries of the bank a patch is compared with; their mean counts.
        neighbours: entries of the bank around the nearest one that the score `reweighted` looks at.
        tile_position: how many spreads apart the two ends of a picture are for the bank; 0 where it knows no places.
        spread: of the good embeddings, root of the summed variance of their numbers.
        canvas_hw: height and width of the whole picture that the bank was made on, model pixels; for their ratio.
    """

    backbone: Name = "wide_resnet50_2"
    layers: Names = ("layer2", "layer3")
    embedding: Embedding = "pooled"
    pretrain_embed_dim: Positive = 1024
    embed_dim: Positive = 1024
    distance: Distance = "squared"
    nearest: Positive = 1
    neighbours: Positive = NEIGHBOURS
    tile_position: Weight = 0.0
    spread: Weight = 0.0
    canvas_hw: Size = (1, 1)

    @property
    def place_scale(self) -> float:
        """What a whole side counts, in units of the embeddings."""
        return self.tile_position * self.spread
