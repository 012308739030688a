"""CPR in the form that is exported: retrieval, search and maps as products of matrices, all in one graph.

Everything is exact but for the rounding of float32, and for the numbers of the bank where these have fewer bits. Codes
and foreground are products of matrices and no convolutions, so that a quantizer of convolutions leaves them alone.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.image.operators import gaussian_matrix, resize_matrix
from edge_ad.models.contract import Answer
from edge_ad.models.cpr.bank import ReferenceFacts, facts_of, joined, taps_of
from edge_ad.models.cpr.config import CENTRES
from edge_ad.models.cpr.fold import FoldedMetric
from edge_ad.models.cpr.network import Cpr, normalised
from edge_ad.models.cpr.retrieval import EPSILON, BlockGrid, kept_blocks
from edge_ad.models.cpr.search import TileSearch


class FastCpr(nn.Module):
    """Export form of a network; equal to `PublishedCpr` up to float rounding. (N, 3, H, W) normalised RGB → Answer."""

    up_rows: Tensor
    up_columns: Tensor

    def __init__(self, network: Cpr, preprocess: PreprocessSpec, postprocess: PostprocessSpec) -> None:
        super().__init__()
        self.backbone = network.backbone
        metric = [nn.Identity() if network.lrb is None else FoldedMetric(network.lrb.network(tap)) for tap in (0, 1)]
        self.metric = nn.ModuleList(metric)
        facts: list[ReferenceFacts] = []
        patches: list[list[Tensor]] = []
        for taps in taps_of(network, preprocess):
            facts.append(facts_of(network, taps[0]))
            with torch.no_grad():
                patches.append([normalised(part(tap)) for part, tap in zip(self.metric, taps, strict=True)])
        banks = [torch.cat(parts) for parts in zip(*patches, strict=True)]
        del patches
        self.search = nn.ModuleList(
            TileSearch(bank, window, network.bank)
            for bank, window in zip(banks, network.config.search_windows, strict=True)
        )
        fine, coarse = (bank.shape[2:] for bank in banks)
        all_facts = joined(facts)
        self.cells = CellScores(network)
        several = network.config.nearest < len(network.references)
        self.retrieval = Retrieval(network, all_facts.histogram, (fine[0], fine[1])) if several else None
        self.register_buffer("up_rows", _constant(resize_matrix(coarse[0], fine[0])))
        self.register_buffer("up_columns", _constant(resize_matrix(coarse[1], fine[1]).T))
        self.maps = Maps((fine[0], fine[1]), preprocess.size_hw, postprocess, all_facts.foreground)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Answer:
        taps = self.backbone(image)
        to_centres, foreground = self.cells(taps[0])
        chosen = None if self.retrieval is None else self.retrieval(to_centres)
        fine, coarse = (
            search(normalised(metric(tap)), chosen)
            for search, metric, tap in zip(self.search, self.metric, taps, strict=True)
        )
        patches = fine + self.up_rows @ coarse @ self.up_columns
        return Answer(patches, self.maps(patches, foreground, chosen))

    def bank(self) -> list[Tensor]:
        """What the bank says, in the channels that the network as published gives: (R, D_i, h_i, w_i)."""
        found = []
        for search, metric in zip(self.search, self.metric, strict=True):
            patches = cast("TileSearch", search).patches()
            if isinstance(metric, FoldedMetric):
                patches = torch.einsum("dc,rchw->rdhw", metric.basis, patches)
            found.append(patches)
        return found


class CellScores(nn.Module):
    """What the first tap says of each cell: (N, C, h, w) → distances to the centres but for a term that all share,
    (N, 12, h, w), and foreground, (N, h, w).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, network: Cpr) -> None:
        super().__init__()
        centres = network.centres.double()
        weight, bias = [-2 * centres], [centres.square().sum(1)]  # ‖f - c‖² without ‖f‖²
        if network.foreground is not None:
            weight.append(network.foreground.weight.double()[None])
            bias.append(network.foreground.bias.double().reshape(1))
        self.register_buffer("weight", torch.cat(weight).float())
        self.register_buffer("bias", torch.cat(bias).float()[:, None])
        self._foreground = network.foreground is not None

    def forward(self, tap: Tensor) -> tuple[Tensor, Tensor | None]:
        rows, columns = tap.shape[2], tap.shape[3]
        scores = self.weight @ tap.flatten(2) + self.bias
        scores = scores.view(-1, len(self.weight), rows, columns)
        if not self._foreground:
            return scores, None
        return scores[:, :CENTRES], scores[:, CENTRES].clamp(0, 1)


class Retrieval(nn.Module):
    """The K nearest references, from the nearest on: (N, 12, h, w) of `CellScores` → (N, K) int64."""

    counted: Tensor
    references: Tensor

    def __init__(self, network: Cpr, histogram: Tensor, grid_hw: tuple[int, int]) -> None:
        """Args: histogram: (R, blocks, 13), of the references."""
        super().__init__()
        config = network.config
        self.grid = BlockGrid.of(*grid_hw)
        self.kept, self.nearest = kept_blocks(self.grid.blocks, config.retrieval_share), config.nearest
        self.kind = config.retrieval_distance
        self.register_buffer("counted", torch.arange(CENTRES)[None, :, None, None].float())
        # The bin of padding is the same in every picture, and gives no distance.
        bins = histogram[..., 1:].double()
        values = torch.log(bins + EPSILON) if self.kind == "kl" else bins
        self.register_buffer("references", values.transpose(0, 1)[:, None].float())  # (blocks, 1, R, 12)

    def forward(self, to_centres: Tensor) -> Tensor:
        code = to_centres.argmin(1, keepdim=True).float()
        is_code = F.relu(1 - (code - self.counted).square())
        rows, columns = self.grid.padding
        if rows or columns:
            is_code = F.pad(is_code, (columns, columns, rows, rows))
        shares = F.avg_pool2d(is_code, self.grid.side, self.grid.side).flatten(2).permute(2, 0, 1)  # (blocks, N, 12)
        distances = self._distances(shares[:, :, None])
        alike = distances.permute(1, 2, 0).topk(self.kept, dim=2, largest=False).values.sum(2)
        return alike.topk(self.nearest, dim=1, largest=False).indices

    def _distances(self, shares: Tensor) -> Tensor:
        """(blocks, N, 1, 12) → (blocks, N, R)."""
        if self.kind == "l2":
            return (shares - self.references).square().sum(3).sqrt()
        shares = shares + EPSILON
        return (shares * (torch.log(shares) - self.references)).sum(3)


class Maps(nn.Module):
    """Patch map, foreground and chosen references → anomaly map: (N, h, w), (N, h, w), (N, K) → (N, H, W).

    Without a foreground, resize and blur are one matrix for each axis.
    """

    rows: Tensor
    columns: Tensor
    blur_rows: Tensor
    blur_columns: Tensor
    references: Tensor

    def __init__(
        self,
        grid_hw: tuple[int, int],
        size_hw: tuple[int, int],
        spec: PostprocessSpec,
        foreground: Tensor | None,
    ) -> None:
        """Args: foreground: (R, h, w), of the references."""
        super().__init__()
        resize = [resize_matrix(small, large) for small, large in zip(grid_hw, size_hw, strict=True)]
        blur = [gaussian_matrix(large, spec.sigma, spec.truncate, spec.border) for large in size_hw]
        self._weighed = foreground is not None
        if foreground is None:
            resize = [b @ r for b, r in zip(blur, resize, strict=True)]
        self.register_buffer("rows", _constant(resize[0]))
        self.register_buffer("columns", _constant(resize[1].T))
        self.register_buffer("blur_rows", _constant(blur[0]) if self._weighed else None)
        self.register_buffer("blur_columns", _constant(blur[1].T) if self._weighed else None)
        full = None if foreground is None else _constant(resize[0]) @ foreground @ _constant(resize[1].T)
        self.register_buffer("references", full)

    def forward(self, patches: Tensor, foreground: Tensor | None, chosen: Tensor | None) -> Tensor:
        full = self.rows @ patches @ self.columns
        if foreground is None:
            return full
        references = self.references if chosen is None else self.references.index_select(0, chosen.reshape(-1))
        height, width = self.references.shape[1:]
        if chosen is None:
            references = references.amax(0)[None]
        else:
            references = references.view(-1, chosen.shape[1], height, width).amax(1)
        own = self.rows @ foreground @ self.columns
        weight = own + F.relu(references - own)  # their maximum
        return self.blur_rows @ (full * weight) @ self.blur_columns


def _constant(matrix: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32))
