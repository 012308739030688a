"""Features of the frozen backbone: one batch for all pictures of a step, and none for those seen before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.image.frame import ImageArray
from edge_ad.models.backbone import Backbone
from edge_ad.models.training.drawing import chunks


class Pictures(Protocol):
    """Pictures by index, (H, W, 3) uint8 RGB at model size."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ImageArray: ...


class FrozenTaps:
    """uint8 pictures → taps of the backbone, on its device.

    Args:
        amp: half precision inside the backbone, on CUDA; the taps are float32 all the same.
    """

    def __init__(self, backbone: Backbone, spec: PreprocessSpec, *, amp: bool) -> None:
        self.backbone = backbone.eval().requires_grad_(False)
        weight = next(backbone.parameters())
        self.device = weight.device
        self._amp = amp and self.device.type == "cuda"
        self._mean = torch.tensor(spec.mean, device=self.device)[:, None, None]
        self._std = torch.tensor(spec.std, device=self.device)[:, None, None]

    def normalised(self, images: Sequence[ImageArray]) -> Tensor:
        """(N, 3, H, W) float32, as the backbone takes it."""
        stacked = torch.from_numpy(np.stack(images)).to(self.device, non_blocking=True)
        return (stacked.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std

    @torch.no_grad()
    def __call__(self, images: Sequence[ImageArray]) -> list[Tensor]:
        """One (N, C_i, h_i, w_i) float32 for each tap."""
        batch = self.normalised(images)
        if not self._amp:
            return list(self.backbone(batch))
        with torch.autocast("cuda", dtype=torch.float16):
            taps = self.backbone(batch)
        return [tap.float() for tap in taps]


class TapCache:
    """Taps of pictures that do not change, computed once; as many as fit into `cache_bytes`.

    Attributes:
        mean: mean of each tap over all pictures, (1, C_i, h_i, w_i).
        cached: how many pictures, from the first on, are kept.
    """

    def __init__(self, taps: FrozenTaps, pictures: Pictures, batch: int, cache_bytes: int) -> None:
        self._taps = taps
        self._pictures = pictures
        kept: list[list[Tensor]] = []
        total: list[Tensor] | None = None
        used = 0
        for indices in chunks(range(len(pictures)), batch):
            computed = taps([pictures[index] for index in indices])
            sums = [tap.double().sum(0, keepdim=True) for tap in computed]
            total = sums if total is None else [a + b for a, b in zip(total, sums, strict=True)]
            used += sum(tap.nbytes for tap in computed)
            if used <= cache_bytes:
                kept.append(computed)
        assert total is not None
        self.mean = [(tap / len(pictures)).float() for tap in total]
        self._kept = [torch.cat(parts) for parts in zip(*kept, strict=True)]
        self.cached = len(self._kept[0]) if self._kept else 0

    def with_others(self, indices: Sequence[int], others: Sequence[ImageArray]) -> tuple[list[Tensor], list[Tensor]]:
        """Taps of the pictures `indices` and of `others`; what is not in the cache runs through in one batch."""
        missing = [index for index in indices if index >= self.cached]
        if not others and not missing:
            return [torch.stack([tap[index] for index in indices]) for tap in self._kept], []
        computed = self._taps([*others, *(self._pictures[index] for index in missing)])
        own = []
        for tap, new in enumerate(computed):
            fresh = iter(new[len(others) :])
            own.append(torch.stack([self._kept[tap][i] if i < self.cached else next(fresh) for i in indices]))
        return own, [tap[: len(others)] for tap in computed]

    def batches(self, batch: int) -> Iterator[list[Tensor]]:
        """Taps of all pictures in order."""
        for indices in chunks(range(len(self._pictures)), batch):
            if indices[-1] < self.cached:
                yield [tap[indices[0] : indices[-1] + 1] for tap in self._kept]
            else:
                yield self._taps([self._pictures[index] for index in indices])
