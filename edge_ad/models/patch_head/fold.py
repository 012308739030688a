"""The exact fold of the linear part of a head.

From the taps to the discriminator's first LeakyReLU everything is linear: 3×3 unfold, adaptive average pooling per tap,
aggregation, adaptor, first linear layer, BatchNorm. Bilinear upsampling commutes with linear maps over channels, so

    hidden = Σ_i upsample(P_i(tap_i)) + bias

where P_i is a linear map of 3×3 support that runs at the tap's own resolution. P_i factors into a fixed sparse pooling
(a grouped 3×3 convolution) and a 1×1 convolution that carries all trained weights. All products are formed in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.models.patch_head.config import EmbeddingSizes
from edge_ad.models.patch_head.network import LEAKY_SLOPE, PATCH_SIZE, PatchHead

KERNEL_AREA = PATCH_SIZE * PATCH_SIZE


def adaptive_pool_matrix(n_in: int, n_out: int) -> Tensor:
    """`adaptive_avg_pool1d` as a matrix: (n_out, n_in) float64; windows overlap where the sizes do not divide."""
    matrix = torch.zeros(n_out, n_in, dtype=torch.float64)
    for row in range(n_out):
        start, stop = row * n_in // n_out, -(-(row + 1) * n_in // n_out)
        matrix[row, start:stop] = 1 / (stop - start)
    return matrix


@dataclass(frozen=True)
class TapHead:
    """One tap's share of the hidden layer, in float64: `mix @ pool` is the linear map P_i.

    Attributes:
        pool: (used, channels · 9), the fixed pooling; only embedding rows that see this tap.
        mix: (hidden, used), the trained weights.
    """

    pool: Tensor
    mix: Tensor

    @property
    def channels(self) -> int:
        return int(self.pool.shape[1]) // KERNEL_AREA


def fold_head(model: PatchHead, channels: list[int]) -> tuple[list[TapHead], Tensor]:
    """Fold pooling, adaptor, first linear layer and BatchNorm of `model`.

    Args:
        channels: channels of every tap.

    Returns: one TapHead per tap, and the bias (hidden,) float64.
    """
    config = model.config
    mix, bias = _fold_block(model.discriminator.body[0])
    for layer in cast("list[nn.Linear]", list(model.adaptor.layers)[::-1]):
        bias = bias + mix @ layer.bias.double()
        mix = mix @ layer.weight.double()
    heads = []
    for pool in tap_pools(config, channels):
        used = pool.abs().sum(1) > 0
        heads.append(TapHead(pool=pool[used], mix=mix[:, used]))
    return heads, bias


def tap_pools(config: EmbeddingSizes, channels: list[int]) -> list[Tensor]:
    """What the two poolings make of each tap: (embed_dim, channels · 9) float64, summed over taps the embedding."""
    aggregate = adaptive_pool_matrix(len(channels) * config.pretrain_embed_dim, config.embed_dim)
    shares = torch.split(aggregate, config.pretrain_embed_dim, dim=1)
    return [
        share @ adaptive_pool_matrix(width * KERNEL_AREA, config.pretrain_embed_dim)
        for share, width in zip(shares, channels, strict=True)
    ]


def _fold_block(block: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out,) of Linear followed by BatchNorm in eval mode, float64."""
    linear, norm, _ = cast("tuple[nn.Linear, nn.BatchNorm1d, nn.LeakyReLU]", tuple(cast(nn.Sequential, block)))
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = gain * (linear.bias.double() - norm.running_mean.double()) + norm.bias.double()
    return gain[:, None] * linear.weight.double(), bias


def pooling_groups(pool: Tensor, channels: int) -> int:
    """Most groups of a grouped convolution that can realise `pool` (used, channels · 9) without loss."""
    weight_per_channel = pool.reshape(len(pool), channels, KERNEL_AREA).abs().sum(2)
    common = math.gcd(len(pool), channels)
    for groups in sorted((g for g in range(2, common + 1) if common % g == 0), reverse=True):
        row_group = torch.arange(len(pool)) // (len(pool) // groups)
        channel_group = torch.arange(channels) // (channels // groups)
        if not bool((weight_per_channel[row_group[:, None] != channel_group[None, :]] != 0).any()):
            return groups
    return 1


def head_convolutions(head: TapHead) -> nn.Sequential:
    """Realise P_i with the fewest multiplications: grouped pooling + 1×1, or one dense 3×3 convolution."""
    used, hidden, channels = len(head.pool), len(head.mix), head.channels
    groups = pooling_groups(head.pool, channels)
    factored_macs = used * (channels // groups) * KERNEL_AREA + used * hidden
    if factored_macs >= channels * KERNEL_AREA * hidden:
        dense = _convolution((head.mix @ head.pool).reshape(hidden, channels, PATCH_SIZE, PATCH_SIZE), groups=1)
        return nn.Sequential(dense)
    return nn.Sequential(pooling_convolution(head.pool, channels), _convolution(head.mix[:, :, None, None], groups=1))


def pooling_convolution(pool: Tensor, channels: int) -> nn.Conv2d:
    """`pool` (used, channels · 9) as a grouped 3×3 convolution, float32."""
    groups, used = pooling_groups(pool, channels), len(pool)
    per_group, rows_per_group = channels // groups, used // groups
    kernel = pool.reshape(used, channels, PATCH_SIZE, PATCH_SIZE)
    own = torch.stack([kernel[row, row // rows_per_group * per_group :][:per_group] for row in range(used)])
    return _convolution(own, groups)


def _convolution(weight: Tensor, groups: int) -> nn.Conv2d:
    out_channels, per_group, size, _ = weight.shape
    layer = nn.Conv2d(per_group * groups, out_channels, size, padding=size // 2, groups=groups, bias=False)
    layer.weight = nn.Parameter(weight.float(), requires_grad=False)
    return layer


class FoldedHead(nn.Module):
    """Export form of a network in eval mode; equal to it up to float rounding.

    `forward`: (N, 3, H, W) float32 normalised RGB → (N, h, w) float32 logits.
    """

    def __init__(self, model: PatchHead, image_hw: tuple[int, int]) -> None:
        super().__init__()
        shapes = model.backbone.shapes(*image_hw)
        self.patch_hw = shapes[0][1:]
        self.upsampled = [(rows, columns) != self.patch_hw for _, rows, columns in shapes]
        self.backbone = model.backbone
        heads, bias = fold_head(model, [channels for channels, _, _ in shapes])
        self.heads = nn.ModuleList(head_convolutions(head) for head in heads)
        self.bias = nn.Parameter(bias.float()[:, None, None], requires_grad=False)
        self.tail = _pointwise_tail(model)

    def forward(self, image: Tensor) -> Tensor:
        hidden = self.bias
        for head, upsampled, feature in zip(self.heads, self.upsampled, self.backbone(image), strict=True):
            part = head(feature)
            if upsampled:
                part = F.interpolate(part, size=self.patch_hw, mode="bilinear", align_corners=False)
            hidden = hidden + part
        logit: Tensor = self.tail(F.leaky_relu(hidden, LEAKY_SLOPE))
        return logit.squeeze(1)


def _pointwise_tail(model: PatchHead) -> nn.Sequential:
    """The discriminator behind its first LeakyReLU as 1×1 convolutions, BatchNorm multiplied in."""
    layers: list[nn.Module] = []
    for block in list(model.discriminator.body)[1:]:
        weight, bias = _fold_block(block)
        layer = _convolution(weight[:, :, None, None], groups=1)
        layer.bias = nn.Parameter(bias.float(), requires_grad=False)
        layers += [layer, nn.LeakyReLU(LEAKY_SLOPE)]
    last = model.sign * model.discriminator.last.weight.double()
    layers.append(_convolution(last[:, :, None, None], groups=1))
    return nn.Sequential(*layers)
