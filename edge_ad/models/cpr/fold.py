"""The exact fold of a metric network: fewer convolutions, and 257 channels in place of 384. Products are in float64.

Cosines of f = W z + b need no more than the products of f, and those are z̃ᵀ M z̃ with z̃ = [z; 1] and M = [W b]ᵀ [W b].
Any A with AᵀA = M gives vectors of 257 numbers with the same lengths and the same cosines.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.models.cpr.network import Convolution, Inception

SEED = 0  # of the rotation


class FoldedMetric(nn.Module):
    """Export form of a metric network in eval mode: (N, C, h, w) → (N, 257, h, w), of the same lengths and cosines.

    The three branches that begin with a 1×1 convolution, and the one whose mean commutes with it, are one convolution.

    Attributes:
        basis: (384, 257) with orthonormal columns; what the network gives is this times what comes out here.
    """

    basis: Tensor

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        first, norm, _, inception, last = network
        assert isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        assert isinstance(inception, Inception) and isinstance(last, nn.Conv2d)
        self.first = _convolution(*folded(first, norm))
        around = inception.branch1[1]
        parts = [inception.branch0, inception.branch1[0], inception.branch2[0], inception.branch3[1], around]
        assert all(isinstance(part, Convolution) for part in parts)
        (*weights, weight), (*biases, bias) = zip(
            *(folded(part.conv, part.bn) for part in parts if isinstance(part, Convolution)), strict=True
        )
        self.widths = [len(bias) for bias in biases]
        self.mixed = _convolution(torch.cat(weights), torch.cat(biases))
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.around = _convolution(weight, bias)
        factor, basis = shortened(last)
        self.last = _convolution(factor[:, :-1, None, None], factor[:, -1])
        self.register_buffer("basis", basis.float())
        self.eval().requires_grad_(False)

    def forward(self, tap: Tensor) -> Tensor:
        mixed = self.mixed(F.relu(self.first(tap)))
        plain, narrow, other, pooled = mixed.split(self.widths, dim=1)
        branches = [plain, self.around(F.relu(narrow)), other, self.pool(pooled)]
        described: Tensor = self.last(F.relu(torch.cat(branches, dim=1)))
        return described


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias, float64, of a convolution and the normalisation behind it."""
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.data.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    before = 0 if convolution.bias is None else convolution.bias.data.double()
    bias = gain * (before - norm.running_mean.double()) + norm.bias.data.double()
    return gain[:, None, None, None] * convolution.weight.data.double(), bias


def shortened(last: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """The factor A (257, 257) that takes the place of a layer's weight and bias, and Q with [W b] = Q A; float64.

    A is turned so that all of its rows have about the same length: rounded to 8 bits, none is then worse than others.
    """
    assert last.bias is not None
    whole = torch.cat([last.weight.data[:, :, 0, 0], last.bias.data[:, None]], dim=1).double()
    left, lengths, right = torch.linalg.svd(whole, full_matrices=False)
    source = torch.Generator().manual_seed(SEED)
    turn = torch.linalg.qr(torch.randn(len(lengths), len(lengths), generator=source, dtype=torch.float64)).Q
    return turn @ (lengths[:, None] * right), left @ turn.T


def _convolution(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    filters, channels, size, _ = weight.shape
    layer = nn.Conv2d(channels, filters, size, padding=size // 2)
    layer.weight = nn.Parameter(weight.float(), requires_grad=False)
    layer.bias = nn.Parameter(bias.float(), requires_grad=False)
    return layer
