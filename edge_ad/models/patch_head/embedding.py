"""Patch embeddings of a frozen backbone, without unfolding: each tap is pooled at its own resolution.

Unfolding, both adaptive poolings and the bilinear upsampling are linear and fixed, so pooling comes first, as one
grouped convolution per tap (see `patch_head.fold`), and what is upsampled has as many channels as the tap has a share
in the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.models.patch_head.config import EmbeddingSizes
from edge_ad.models.patch_head.fold import pooling_convolution, tap_pools


class PooledEmbedding(nn.Module):
    """Taps, one (N, C_i, h_i, w_i) each → patch embeddings (N·h·w, embed_dim) of `patch_embedding`, row-major."""

    def __init__(self, config: EmbeddingSizes, channels: Sequence[int]) -> None:
        super().__init__()
        self.embed_dim = config.embed_dim
        self.pools = nn.ModuleList()
        self.rows: list[slice] = []
        for pool, width in zip(tap_pools(config, list(channels)), channels, strict=True):
            used = torch.nonzero(pool.abs().sum(1))[:, 0]
            rows = slice(int(used[0]), int(used[-1]) + 1)
            self.rows.append(rows)
            self.pools.append(pooling_convolution(pool[rows], width))

    @torch.no_grad()
    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        first = taps[0]
        size_hw = first.shape[2:]
        embedding = first.new_zeros(len(first), *size_hw, self.embed_dim)
        for tap, pool, rows in zip(taps, self.pools, self.rows, strict=True):
            part = pool(tap)
            if part.shape[2:] != size_hw:
                part = F.interpolate(part, size=size_hw, mode="bilinear", align_corners=False)
            embedding[..., rows] += part.permute(0, 2, 3, 1)
        return embedding.flatten(0, 2)
