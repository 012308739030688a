"""CPR's inference as published, the oracle of the export check. Nothing here is rearranged for speed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.image.operators import gaussian_matrix
from edge_ad.models.contract import Answer
from edge_ad.models.cpr.bank import facts_of, joined, taps_of
from edge_ad.models.cpr.network import Cpr, normalised
from edge_ad.models.cpr.retrieval import block_distances, codes, global_distances, histograms, nearest_first

OUTSIDE = 1e8  # distance to what lies beside a picture


class Local(NamedTuple):
    """Distance of each cell to its nearest neighbour, and in which of the K pictures that lies; (N, h, w) both."""

    distance: Tensor
    nearest: Tensor


class PublishedCpr(nn.Module):
    """(N, 3, H, W) float32 normalised RGB → Answer: sum of the two distance maps, and the smoothed map of the object.

    Args:
        bank: (R, D_i, h_i, w_i) for each tap, in place of what the network gives of the references: that of an export
            with fewer bits, which can only be compared with itself.
    """

    def __init__(
        self,
        network: Cpr,
        preprocess: PreprocessSpec,
        postprocess: PostprocessSpec,
        bank: list[Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network, self._size_hw, self._spec = network, preprocess.size_hw, postprocess
        facts, local = [], []
        for taps in taps_of(network, preprocess):
            facts.append(facts_of(network, taps[0]))
            if bank is None:
                with torch.no_grad():
                    local.append([normalised(each) for each in network.described(taps)])
        self.facts = joined(facts)
        self.local = [torch.cat(parts) for parts in zip(*local, strict=True)] if bank is None else bank

    def forward(self, image: Tensor) -> Answer:
        taps = self.network.backbone(image)
        chosen = self.retrieved(taps[0])
        patches = self.patch_map([found.distance for found in self.local_distances(taps, chosen)])
        return Answer(patches, self.anomaly_map(patches, taps[0], chosen))

    def global_distances(self, first: Tensor) -> Tensor:
        """(N, C, h, w) of the first tap → (N, R)."""
        query = histograms(codes(first, self.network.centres))
        config = self.network.config
        blocks = block_distances(query, self.facts.histogram, config.retrieval_distance)
        return global_distances(blocks, config.retrieval_share)

    def retrieved(self, first: Tensor) -> Tensor:
        """The K references that look most like each picture: (N, K) int64."""
        return nearest_first(self.global_distances(first))[:, : self.network.config.nearest]

    def local_distances(self, taps: list[Tensor], chosen: Tensor) -> list[Local]:
        """1 - cosine to the nearest cell of the chosen pictures around the same place, for each tap."""
        found = []
        windows = self.network.config.search_windows
        for query, bank, window in zip(self.network.described(taps), self.local, windows, strict=True):
            found.append(_local_distance(normalised(query), bank, chosen, window // 2))
        return found

    def patch_map(self, distances: list[Tensor]) -> Tensor:
        """Sum of the two maps on the grid of the first: (N, h, w)."""
        fine, coarse = distances
        size = fine.shape[-2:]
        return fine + F.interpolate(coarse[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]

    def foreground_map(self, first: Tensor, chosen: Tensor) -> Tensor | None:
        """The largest of the foregrounds of a picture and of its references, at full size: (N, H, W)."""
        if self.network.foreground is None or self.facts.foreground is None:
            return None
        maps = torch.cat([self.network.foreground(first)[:, None], self.facts.foreground[chosen]], dim=1)
        return F.interpolate(maps, size=self._size_hw, mode="bilinear", align_corners=False).amax(1)

    def anomaly_map(self, patches: Tensor, first: Tensor, chosen: Tensor) -> Tensor:
        """Resized, weighed by the foreground, then smoothed: (N, H, W)."""
        full = F.interpolate(patches[:, None], size=self._size_hw, mode="bilinear", align_corners=False)[:, 0]
        foreground = self.foreground_map(first, chosen)
        if foreground is not None:
            full = full * foreground
        rows, columns = (_blur(size, self._spec) for size in self._size_hw)
        return rows @ full @ columns.T


def _local_distance(query: Tensor, bank: Tensor, chosen: Tensor, reach: int) -> Local:
    """(N, D, h, w) of length 1, (R, D, h, w) likewise, (N, K)."""
    height, width = query.shape[-2:]
    best: Tensor | None = None
    nearest = torch.zeros((len(query), height, width), dtype=torch.int64)
    for number, reference in enumerate(chosen.T):
        padded = F.pad(bank[reference], (reach,) * 4)
        inside = F.pad(torch.ones(height, width), (reach,) * 4)
        for down in range(2 * reach + 1):
            for right in range(2 * reach + 1):
                rows, columns = slice(down, down + height), slice(right, right + width)
                distance = 1 - (query * padded[:, :, rows, columns]).sum(1)
                distance = distance + OUTSIDE * (1 - inside[rows, columns])
                if best is None:
                    best = distance
                    continue
                nearest = torch.where(distance < best, number, nearest)
                best = torch.minimum(best, distance)
    assert best is not None
    return Local(best, nearest)


def _blur(size: int, spec: PostprocessSpec) -> Tensor:
    return torch.tensor(gaussian_matrix(size, spec.sigma, spec.truncate, spec.border).astype(np.float32))
