"""Patch embeddings of a frozen backbone: the authors' and anomalib's, as published and as they are exported."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.errors import ConfigError
from edge_ad.models.patch_head.config import EmbeddingSizes
from edge_ad.models.patch_head.fold import pooling_convolution, tap_pools
from edge_ad.models.patch_head.network import PATCH_SIZE, patch_embedding
from edge_ad.models.patchcore.config import PatchCoreConfig


def embedding_dim(config: PatchCoreConfig, channels: Sequence[int]) -> int:
    """Length of a patch embedding. Args: channels: of every tap."""
    return sum(channels) if config.embedding == "averaged" else config.embed_dim


def published_embedding(config: PatchCoreConfig) -> nn.Module:
    """Taps, one (N, C_i, h_i, w_i) each → (N, D, h, w); h and w of the first tap."""
    return AveragedPatches() if config.embedding == "averaged" else PooledPatches(config)


def fast_embedding(config: PatchCoreConfig, channels: Sequence[int]) -> PatchParts:
    """The same in the form that is exported: nothing is unfolded, and each tap is pooled at its own resolution."""
    return AveragedPatches(channels) if config.embedding == "averaged" else FoldedPatches(config, channels)


class PatchParts(nn.Module):
    """Patch embeddings in parts that come from one tap each.

    Attributes:
        widths: numbers of each part; their sum is D.
    """

    widths: tuple[int, ...]

    def parts(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """Taps → one (N, width, h, w) for each part."""
        raise NotImplementedError

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        found = self.parts(taps)
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)


class AveragedPatches(PatchParts):
    """anomalib's: the mean of 3×3 positions, those outside of the tap as 0, later taps enlarged, all side by side."""

    def __init__(self, channels: Sequence[int] = ()) -> None:
        super().__init__()
        self.widths = tuple(channels)

    def parts(self, taps: Sequence[Tensor]) -> list[Tensor]:
        size_hw = taps[0].shape[2:]
        pooled = [F.avg_pool2d(tap, PATCH_SIZE, stride=1, padding=PATCH_SIZE // 2) for tap in taps]
        return [enlarged(tap, size_hw) for tap in pooled]


class PooledPatches(nn.Module):
    """The authors', see `patch_head.network.patch_embedding`."""

    def __init__(self, sizes: EmbeddingSizes) -> None:
        super().__init__()
        self._sizes = sizes

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        pictures, _, rows, columns = taps[0].shape
        vectors = patch_embedding(taps, self._sizes)
        return vectors.view(pictures, rows, columns, -1).permute(0, 3, 1, 2)


class FoldedPatches(PatchParts):
    """The authors' as one grouped convolution per tap; equal to it up to float rounding."""

    def __init__(self, sizes: EmbeddingSizes, channels: Sequence[int]) -> None:
        super().__init__()
        pools = tap_pools(sizes, list(channels))
        spans = [torch.nonzero(pool.abs().sum(1))[:, 0] for pool in pools]
        rows = [slice(int(used[0]), int(used[-1]) + 1) for used in spans]
        self._apart = all(before.stop == after.start for before, after in pairwise(rows))
        if not self._apart:  # an entry of the embedding that is the mean over two taps
            rows = [slice(0, len(pool)) for pool in pools]
        self.widths = tuple(part.stop - part.start for part in rows) if self._apart else (sizes.embed_dim,)
        self.pools = nn.ModuleList(
            pooling_convolution(pool[part], width) for pool, part, width in zip(pools, rows, channels, strict=True)
        )

    def parts(self, taps: Sequence[Tensor]) -> list[Tensor]:
        size_hw = taps[0].shape[2:]
        found = [enlarged(pool(tap), size_hw) for tap, pool in zip(taps, self.pools, strict=True)]
        return found if self._apart else [sum(found[1:], found[0])]


def enlarged(feature: Tensor, size_hw: Sequence[int]) -> Tensor:
    """(N, C, h_i, w_i) at another size, bilinear."""
    rows, columns = int(size_hw[0]), int(size_hw[1])
    if feature.shape[2:] == (rows, columns):
        return feature
    return F.interpolate(feature, size=(rows, columns), mode="bilinear", align_corners=False)


def check_single_patch(patch_hw: tuple[int, int], layer: str) -> None:
    """Raise ConfigError where all of a picture is one patch."""
    if patch_hw == (1, 1):
        raise ConfigError("imgsz", [f"one patch is all that {layer!r} has of a picture; wanted a larger size"])
