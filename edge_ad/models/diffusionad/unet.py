"""The UNet that predicts noise, as published (after OpenAI's guided-diffusion). Names are those of the checkpoints.

Nothing here is rearranged for speed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.models.diffusionad.config import DOWN_BLOCKS, DiffusionAdConfig

Scaling = Literal["none", "down", "up"]
PERIOD = 10_000.0  # of the slowest sine, in time steps


def time_features(steps: Tensor, width: int) -> Tensor:
    """Sines and then cosines of time steps: (N,) numbers → (N, width), of the dtype of `steps`."""
    half = width // 2
    places = torch.arange(half, dtype=steps.dtype, device=steps.device)
    phases = steps[:, None] * torch.exp(places * (-math.log(PERIOD) / half))
    return torch.cat([phases.sin(), phases.cos()], dim=1)


class TimeFeatures(nn.Module):
    """See `time_features`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, steps: Tensor) -> Tensor:
        return time_features(steps, self.width)


def scaled(feature: Tensor, scaling: Scaling) -> Tensor:
    """Half as large by a mean of four, twice as large by repetition, or as it is."""
    if scaling == "down":
        return F.avg_pool2d(feature, 2)
    return F.interpolate(feature, scale_factor=2, mode="nearest") if scaling == "up" else feature


@dataclass(frozen=True)
class Sizes:
    """What all blocks share.

    Attributes:
        embedded: numbers of the time embedding.
        groups: of a normalisation.
        heads: of an attention.
    """

    embedded: int
    groups: int
    heads: int

    def normalisation(self, channels: int) -> nn.GroupNorm:
        return nn.GroupNorm(self.groups, channels)


class ResidualBlock(nn.Module):
    """(N, a, h, w) and a time embedding (N, e) → (N, c, h', w')."""

    def __init__(self, n_in: int, n_out: int, sizes: Sizes, scaling: Scaling = "none") -> None:
        super().__init__()
        self.scaling: Scaling = scaling
        self.in_layers = nn.Sequential(sizes.normalisation(n_in), nn.SiLU(), nn.Conv2d(n_in, n_out, 3, padding=1))
        self.embed_layers = nn.Sequential(nn.SiLU(), nn.Linear(sizes.embedded, n_out))
        self.out_layers = nn.Sequential(
            sizes.normalisation(n_out), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(n_out, n_out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)

    def forward(self, feature: Tensor, embedding: Tensor) -> Tensor:
        norm, activation, convolution = self.in_layers
        inner = convolution(scaled(activation(norm(feature)), self.scaling))
        inner = self.out_layers(inner + self.embed_layers(embedding)[:, :, None, None])
        found: Tensor = self.skip_connection(scaled(feature, self.scaling)) + inner
        return found


class Attention(nn.Module):
    """Every place of (N, c, h, w) looks at every other, in heads of c / heads channels."""

    def __init__(self, channels: int, sizes: Sizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.norm = sizes.normalisation(channels)
        self.to_qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, feature: Tensor) -> Tensor:
        count, channels = feature.shape[:2]
        places = feature.reshape(count, channels, -1)
        of_head = channels // self.heads
        joint = self.to_qkv(self.norm(places)).reshape(count * self.heads, 3 * of_head, -1)
        query, key, value = joint.split(of_head, dim=1)
        scale = of_head**-0.25
        weight = torch.softmax((query * scale).transpose(1, 2) @ (key * scale), dim=-1)
        mixed = (value @ weight.transpose(1, 2)).reshape(count, channels, -1)
        found: Tensor = (places + self.proj_out(mixed)).reshape(feature.shape)
        return found


class Stage(nn.ModuleList):
    """Blocks behind each other; those that want the time embedding get it."""

    def forward(self, feature: Tensor, embedding: Tensor) -> Tensor:
        for block in self:
            feature = block(feature, embedding) if isinstance(block, ResidualBlock) else block(feature)
        return feature


@dataclass(frozen=True)
class StagePlan:
    """One stage of the UNet.

    Attributes:
        n_in, n_out: channels.
        stride: pixels of the picture for one of its places, before it scales.
        attends: whether places look at each other behind the first block.
        scaling: `down` makes it a single block that halves the sides; `up` a further block behind that doubles them.
    """

    n_in: int
    n_out: int
    stride: int
    attends: bool = False
    scaling: Scaling = "none"


def plan_down(config: DiffusionAdConfig) -> list[StagePlan]:
    """Stages on the way down, behind the first convolution."""
    width, found = config.base_channels, []
    for level, multiplier in enumerate(config.multipliers):
        stride, wanted = 2**level, multiplier * config.base_channels
        for _ in range(DOWN_BLOCKS):
            found.append(StagePlan(width, wanted, stride, stride in config.attention_strides))
            width = wanted
        if level + 1 < len(config.multipliers):
            found.append(StagePlan(width, width, stride, scaling="down"))
    return found


def plan_up(config: DiffusionAdConfig) -> list[StagePlan]:
    """Stages on the way up; each takes the last skip that is left behind what came from below."""
    skips = [config.base_channels, *(stage.n_out for stage in plan_down(config))]
    width, found = skips[-1], []
    for level, multiplier in reversed(list(enumerate(config.multipliers))):
        stride, wanted = 2**level, multiplier * config.base_channels
        for number in range(DOWN_BLOCKS + 1):
            scaling: Scaling = "up" if level and number == DOWN_BLOCKS else "none"
            found.append(StagePlan(width + skips.pop(), wanted, stride, stride in config.attention_strides, scaling))
            width = wanted
    return found


class UNet(nn.Module):
    """(N, 3, H, W) with noise, and the time step (N,) of each → the noise (N, 3, H, W)."""

    def __init__(self, config: DiffusionAdConfig) -> None:
        super().__init__()
        base = config.base_channels
        embedded = 4 * base
        sizes = Sizes(embedded, config.groups, config.num_heads)
        self.time_embedding = nn.Sequential(
            TimeFeatures(base), nn.Linear(base, embedded), nn.SiLU(), nn.Linear(embedded, embedded)
        )
        down, up = plan_down(config), plan_up(config)
        self.down = nn.ModuleList([Stage([nn.Conv2d(3, base, 3, padding=1)])])
        self.down.extend(Stage(_blocks(stage, sizes)) for stage in down)
        width = down[-1].n_out
        self.middle = Stage(
            [ResidualBlock(width, width, sizes), Attention(width, sizes), ResidualBlock(width, width, sizes)]
        )
        self.up = nn.ModuleList(Stage(_blocks(stage, sizes)) for stage in up)
        self.out = nn.Sequential(sizes.normalisation(base), nn.SiLU(), nn.Conv2d(base, 3, 3, padding=1))

    def forward(self, noisy: Tensor, steps: Tensor) -> Tensor:
        embedding = self.time_embedding(steps.to(noisy.dtype))
        feature, skips = noisy, []
        for stage in self.down:
            feature = stage(feature, embedding)
            skips.append(feature)
        feature = self.middle(feature, embedding)
        for stage in self.up:
            feature = stage(torch.cat([feature, skips.pop()], dim=1), embedding)
        predicted: Tensor = self.out(feature)
        return predicted


def _blocks(stage: StagePlan, sizes: Sizes) -> Iterator[nn.Module]:
    if stage.scaling == "down":
        yield ResidualBlock(stage.n_in, stage.n_out, sizes, "down")
        return
    yield ResidualBlock(stage.n_in, stage.n_out, sizes)
    if stage.attends:
        yield Attention(stage.n_out, sizes)
    if stage.scaling == "up":
        yield ResidualBlock(stage.n_out, stage.n_out, sizes, "up")


def last_layers(network: UNet) -> list[nn.Module]:
    """Layers that start at zero: the last of every block, and the last of all."""
    blocks = [module.out_layers[3] for module in network.modules() if isinstance(module, ResidualBlock)]
    attentions = [module.proj_out for module in network.modules() if isinstance(module, Attention)]
    return [*blocks, *attentions, network.out[2]]
