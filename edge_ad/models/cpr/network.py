"""The networks of CPR as published: a frozen backbone, and a small metric network on each of its two taps.

Li et al.: "Target Before Shooting: Accurate Anomaly Detection and Localization Under One Millisecond via Cascade Patch
Retrieval", IEEE TIP 33 (2024), arXiv 2308.06748.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.models.backbone import Backbone
from edge_ad.models.cpr.config import METRIC_CHANNELS, BankType, CprConfig

HIDDEN = 192  # channels behind the first layer of a metric network
MIXED = 256  # behind the inception block
INCEPTION_EPS = 0.001  # of the normalisations inside of that block; those outside have torch's default
NORM_EPS = 1e-8  # added to the length of a patch's vector before it is divided by it


class Convolution(nn.Module):
    """Convolution without bias, normalisation and ReLU, under the names of torchvision's `BasicConv2d`."""

    def __init__(self, channels: int, filters: int, size: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, size, padding=size // 2, bias=False)
        self.bn = nn.BatchNorm2d(filters, eps=INCEPTION_EPS)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(features)))


class Inception(nn.Module):
    """Four branches of 64 channels, behind each other: (N, 192, h, w) → (N, 256, h, w)."""

    def __init__(self, channels: int = HIDDEN, filters: int = MIXED) -> None:
        super().__init__()
        each = filters // 4
        self.branch0 = Convolution(channels, each)
        self.branch1 = nn.Sequential(Convolution(channels, channels // 4), Convolution(channels // 4, each, 3))
        self.branch2 = nn.Sequential(Convolution(channels, each))
        self.branch3 = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), Convolution(channels, each))

    def forward(self, features: Tensor) -> Tensor:
        branches = (self.branch0, self.branch1, self.branch2, self.branch3)
        return torch.cat([branch(features) for branch in branches], dim=1)


def metric_network(channels: int, filters: int = METRIC_CHANNELS) -> nn.Sequential:
    """(N, channels, h, w) → (N, 384, h, w), whose cosines say how alike patches are."""
    return nn.Sequential(
        nn.Conv2d(channels, HIDDEN, 1), nn.BatchNorm2d(HIDDEN), nn.ReLU(), Inception(), nn.Conv2d(MIXED, filters, 1)
    )


class LocalBranch(nn.Module):
    """A metric network for each tap (the authors' `lrb`)."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.conv = nn.ModuleList(metric_network(each) for each in channels)

    def forward(self, taps: Sequence[Tensor]) -> list[Tensor]:
        return [network(tap) for network, tap in zip(self.conv, taps, strict=True)]

    def network(self, tap: int) -> nn.Sequential:
        return cast("nn.Sequential", self.conv[tap])


class Foreground(nn.Module):
    """How much a cell of the first tap is object, clamp(w · f + b, 0, 1): (N, C, h, w) → (N, h, w).

    Args:
        weight: (C,).
        bias: ().
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, tap: Tensor) -> Tensor:
        return torch.clamp(torch.einsum("c,nchw->nhw", self.weight, tap) + self.bias, 0, 1)


class Cpr(nn.Module):
    """Everything that a CPR bundle is made of, in eval mode.

    Attributes:
        config: what is not a weight.
        backbone: frozen, with two taps.
        lrb: metric networks; None where taps are compared as they are.
        centres: (12, C) of the codebook on the first tap.
        foreground: None where the whole picture counts.
        references: (R, H, W, 3) uint8 RGB, training pictures at model size.
        names: of the references' files.
        bank: numbers that an export keeps the references' patches in.
    """

    centres: Tensor
    references: Tensor

    def __init__(
        self,
        config: CprConfig,
        backbone: Backbone,
        lrb: LocalBranch | None,
        centres: Tensor,
        foreground: Foreground | None,
        references: Tensor,
        names: tuple[str, ...],
        bank: BankType = "float32",
    ) -> None:
        super().__init__()
        self.config, self.backbone, self.lrb = config, backbone, lrb
        self.foreground, self.names, self.bank = foreground, names, bank
        self.register_buffer("centres", centres)
        self.register_buffer("references", references)

    def described(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """What patches are compared by, before normalisation: (N, D_i, h_i, w_i) for each tap."""
        return list(taps) if self.lrb is None else list(self.lrb(taps))


def normalised(features: Tensor) -> Tensor:
    """(N, D, h, w) with vectors of length 1."""
    length: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (length + NORM_EPS)
