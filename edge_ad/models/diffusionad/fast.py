"""The UNet in the form that is exported: for one size and two fixed time steps, with one set of weights.

What the time embedding adds to a channel is part of a bias; each pass has biases of its own and shares all else.
GroupNorm is written as InstanceNormalization of groups, which engines know, and all reshapes have known sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.models.diffusionad.unet import Attention, ResidualBlock, Scaling, Stage, UNet, scaled

Size = tuple[int, int]


class FastNorm(nn.Module):
    """GroupNorm of features of one size."""

    def __init__(self, norm: nn.GroupNorm, size_hw: Size) -> None:
        super().__init__()
        self.groups, self.channels, self.eps = norm.num_groups, norm.num_channels, norm.eps
        self.size_hw, self.single = size_hw, self.groups == self.channels
        weight, bias = norm.weight.detach(), norm.bias.detach()
        inner = (weight, bias) if self.single else (torch.ones(self.groups), torch.zeros(self.groups))
        self.register_buffer("scale", inner[0])
        self.register_buffer("shift", inner[1])
        if not self.single:
            self.register_buffer("weight", weight[:, None, None])
            self.register_buffer("bias", bias[:, None, None])

    def forward(self, feature: Tensor) -> Tensor:
        if self.single:
            return self._even(feature)
        height, width = self.size_hw
        grouped = feature.reshape(-1, self.groups, self.channels // self.groups * height * width)
        even = self._even(grouped).reshape(-1, self.channels, height, width)
        return even * self.get_buffer("weight") + self.get_buffer("bias")

    def _even(self, values: Tensor) -> Tensor:
        return F.instance_norm(values, weight=self.get_buffer("scale"), bias=self.get_buffer("shift"), eps=self.eps)


def activated(feature: Tensor) -> Tensor:
    """SiLU as the two operators that engines make one of."""
    return feature * torch.sigmoid(feature)


class FastResidual(nn.Module):
    """A block with its time embedding in a bias for each pass.

    Args:
        embeddings: of the passes, (1, e) each.
        size_hw: of its input.
    """

    def __init__(self, block: ResidualBlock, embeddings: Sequence[Tensor], size_hw: Size) -> None:
        super().__init__()
        norm, _, first = cast("Sequence[nn.Module]", block.in_layers)
        assert isinstance(norm, nn.GroupNorm) and isinstance(first, nn.Conv2d) and first.bias is not None
        self.scaling: Scaling = block.scaling
        self.size_hw = sides(size_hw, block.scaling)
        self.norm, self.second_norm = FastNorm(norm, size_hw), FastNorm(_norm(block.out_layers[0]), self.size_hw)
        self.register_buffer("weight", first.weight.detach())
        for number, embedding in enumerate(embeddings):
            added = block.embed_layers(embedding)[0].detach()
            self.register_buffer(f"bias_{number}", (first.bias.detach().double() + added.double()).float())
        self.second, self.skip = block.out_layers[3], block.skip_connection

    def forward(self, feature: Tensor, number: int) -> Tensor:
        inner = scaled(activated(self.norm(feature)), self.scaling)
        inner = F.conv2d(inner, self.get_buffer("weight"), self.get_buffer(f"bias_{number}"), padding=1)
        inner = self.second(activated(self.second_norm(inner)))
        found: Tensor = self.skip(scaled(feature, self.scaling)) + inner
        return found


class FastAttention(nn.Module):
    """Attention over features of one size, with its scale in weights and biases of query and key."""

    def __init__(self, attention: Attention, size_hw: Size) -> None:
        super().__init__()
        joint, last = attention.to_qkv, attention.proj_out
        assert joint.bias is not None and last.bias is not None
        self.heads, self.size_hw = attention.heads, size_hw
        self.channels = joint.in_channels
        self.norm = FastNorm(attention.norm, size_hw)
        of_head = self.channels // self.heads
        scale = torch.ones(self.heads, 3, of_head, dtype=torch.float64)
        scale[:, :2] = of_head**-0.25
        self.joint = nn.Conv2d(self.channels, 3 * self.channels, 1)
        self.joint.weight.data = (joint.weight.double() * scale.reshape(-1, 1, 1)).float()[..., None]
        self.joint.bias = nn.Parameter((joint.bias.double() * scale.reshape(-1)).float())
        self.last = nn.Conv2d(self.channels, self.channels, 1)
        self.last.weight.data, self.last.bias = last.weight.data[..., None], last.bias

    def forward(self, feature: Tensor) -> Tensor:
        height, width = self.size_hw
        of_head = self.channels // self.heads
        joint = self.joint(self.norm(feature)).reshape(-1, self.heads, 3 * of_head, height * width)
        query, key, value = joint.split(of_head, dim=2)
        weight = torch.softmax(query.transpose(2, 3) @ key, dim=-1)
        mixed = (value @ weight.transpose(2, 3)).reshape(-1, self.channels, height, width)
        found: Tensor = feature + self.last(mixed)
        return found


class FastStage(nn.ModuleList):
    """Blocks behind each other."""

    def forward(self, feature: Tensor, number: int) -> Tensor:
        for block in self:
            feature = block(feature, number) if isinstance(block, FastResidual) else block(feature)
        return feature


class FastUNet(nn.Module):
    """(N, 3, H, W) with the noise of pass `number` → that noise.

    Args:
        steps: time steps of the passes.
        size_hw: H and W.
    """

    def __init__(self, network: UNet, steps: Sequence[int], size_hw: Size) -> None:
        super().__init__()
        with torch.no_grad():
            embeddings = [network.time_embedding(torch.tensor([float(step)])) for step in steps]
        at = _Size(size_hw)
        self.down = nn.ModuleList(_fast(cast("Stage", stage), embeddings, at) for stage in network.down)
        self.middle = _fast(network.middle, embeddings, at)
        self.up = nn.ModuleList(_fast(cast("Stage", stage), embeddings, at) for stage in network.up)
        self.norm, self.last = FastNorm(_norm(network.out[0]), at.size_hw), network.out[2]

    def forward(self, noisy: Tensor, number: int) -> Tensor:
        feature, skips = noisy, []
        for stage in self.down:
            feature = stage(feature, number)
            skips.append(feature)
        feature = self.middle(feature, number)
        for stage in self.up:
            feature = stage(torch.cat([feature, skips.pop()], dim=1), number)
        predicted: Tensor = self.last(activated(self.norm(feature)))
        return predicted


class _Size:
    """Where the construction of a network has come to."""

    def __init__(self, size_hw: Size) -> None:
        self.size_hw = size_hw


def _fast(stage: Stage, embeddings: Sequence[Tensor], at: _Size) -> FastStage:
    found = FastStage()
    for block in stage:
        if isinstance(block, ResidualBlock):
            made: nn.Module = FastResidual(block, embeddings, at.size_hw)
            at.size_hw = sides(at.size_hw, block.scaling)
        else:
            made = FastAttention(block, at.size_hw) if isinstance(block, Attention) else block
        found.append(made)
    return found


def _norm(module: nn.Module) -> nn.GroupNorm:
    assert isinstance(module, nn.GroupNorm)
    return module


def sides(size_hw: Size, scaling: Scaling) -> Size:
    """Of features behind a block that scales."""
    height, width = size_hw
    if scaling == "down":
        return height // 2, width // 2
    return (2 * height, 2 * width) if scaling == "up" else size_hw
