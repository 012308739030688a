"""The network as published: backbone, patch features, adaptor, discriminator.

Features and their pooling are those of PatchCore (Roth et al., CVPR 2022), which later methods took over. This is
the network that training works on and that the folded form is compared with. Nothing here is rearranged for speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.models.backbone import Backbone
from edge_ad.models.patch_head.config import EmbeddingSizes, HeadConfig

LEAKY_SLOPE = 0.2  # slope of the discriminator's LeakyReLU in the authors' implementation
PATCH_SIZE = 3  # neighbourhood of a patch (stride 1, zero padding), the authors' default


def patch_embedding(features: Sequence[Tensor], sizes: EmbeddingSizes) -> Tensor:
    """Taps, one (N, C_i, h_i, w_i) each → patch embeddings (N·h·w, embed_dim), row-major; h and w of the first."""
    patch_hw = (int(features[0].shape[2]), int(features[0].shape[3]))
    stacked = torch.stack([_pooled(feature, patch_hw, sizes.pretrain_embed_dim) for feature in features], dim=1)
    return F.adaptive_avg_pool1d(stacked.flatten(1).unsqueeze(1), sizes.embed_dim).squeeze(1)


def _pooled(feature: Tensor, patch_hw: tuple[int, int], length: int) -> Tensor:
    patches = F.unfold(feature, PATCH_SIZE, padding=PATCH_SIZE // 2)
    patches = patches.view(*patches.shape[:2], *feature.shape[2:])
    if feature.shape[2:] != patch_hw:
        patches = F.interpolate(patches, size=patch_hw, mode="bilinear", align_corners=False)
    vectors = patches.permute(0, 2, 3, 1).flatten(0, 2)
    return F.adaptive_avg_pool1d(vectors.unsqueeze(1), length).squeeze(1)


class Adaptor(nn.Module):
    """Linear layers without activation (`pre_projection`): (P, embed_dim) → (P, embed_dim)."""

    def __init__(self, embed_dim: int, n_layers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for index in range(n_layers):
            self.layers.add_module(f"{index}fc", nn.Linear(embed_dim, embed_dim))

    def forward(self, embedding: Tensor) -> Tensor:
        adapted: Tensor = self.layers(embedding)
        return adapted


class Discriminator(nn.Module):
    """Patch embedding → logit: (P, embed_dim) → (P, 1).

    Args:
        bare_tail: whether the last layer stands alone (`tail.weight`) or in a sequence (`tail.0.weight`).
    """

    def __init__(self, embed_dim: int, hidden_dim: int, n_layers: int, *, bare_tail: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential()
        width = embed_dim
        for index in range(1, n_layers):
            block = nn.Sequential(nn.Linear(width, hidden_dim), nn.BatchNorm1d(hidden_dim), nn.LeakyReLU(LEAKY_SLOPE))
            self.body.add_module(f"block{index}", block)
            width = hidden_dim
        last = nn.Linear(width, 1, bias=False)
        self.tail: nn.Module = last if bare_tail else nn.Sequential(last)

    @property
    def last(self) -> nn.Linear:
        """The output layer."""
        return cast("nn.Linear", self.tail[0] if isinstance(self.tail, nn.Sequential) else self.tail)

    def forward(self, embedding: Tensor) -> Tensor:
        logit: Tensor = self.tail(self.body(embedding))
        return logit


class PatchHead(nn.Module):
    """The published network; a family derives from it.

    `forward`: (N, 3, H, W) float32 normalised RGB → (N, h, w) float32 logits, one per patch; h and w are those of
    the first tap.

    Attributes:
        title: of the method, for messages.
        sign: 1 where the discriminator answers high for anomalies, -1 where it answers high for what is normal.
        bare_tail: see Discriminator.
    """

    title: ClassVar[str] = "patch head"
    sign: ClassVar[float] = 1.0
    bare_tail: ClassVar[bool] = False

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.layers)
        self.adaptor, self.discriminator = self.head(config)

    @classmethod
    def head(cls, config: HeadConfig) -> tuple[Adaptor, Discriminator]:
        """What is trained of it; drawn in this order."""
        adaptor = Adaptor(config.embed_dim, config.adaptor_layers)
        discriminator = Discriminator(
            config.embed_dim, config.hidden_dim, config.discriminator_layers, bare_tail=cls.bare_tail
        )
        return adaptor, discriminator

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(N, 3, H, W) → patch embeddings (N·h·w, embed_dim) in row-major patch order, and (h, w)."""
        features = self.backbone(image)
        return patch_embedding(features, self.config), (int(features[0].shape[2]), int(features[0].shape[3]))

    def forward(self, image: Tensor) -> Tensor:
        embedding, (rows, columns) = self.embed(image)
        logit: Tensor = self.discriminator(self.adaptor(embedding))
        return self.sign * logit.view(image.shape[0], rows, columns)
