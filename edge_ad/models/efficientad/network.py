"""EfficientAD as published: a patch description network as teacher, another as student, and an autoencoder.

Batzner, Heckler, König: "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies", WACV 2024
(arXiv 2303.14535), sections 3.1 to 3.4. The authors have published no code; names of the layers are those of
nelson1425's implementation, whose answers these networks give. Nothing here is rearranged for speed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, interpolate, pad, relu

from edge_ad.models.contract import Answer
from edge_ad.models.efficientad.config import LAYERS, PADDED_CELLS, EfficientAdConfig, MapPadding

ENCODER = ("0", "2", "4", "6", "8", "10")
DECODER = ("12", "16", "20", "24", "28", "32")
LAST = ("36", "38")
DROPOUT = 0.2  # behind each layer of DECODER, while training
SCALED = 0.1  # what the quantiles are mapped to: the lower one to 0, the upper one to this (section 3.4)


def pdn(config: EfficientAdConfig, channels: int) -> nn.Sequential:
    """Patch description network (section 3.1): (N, 3, H, W) → (N, channels, H/4 - 8, W/4 - 8)."""
    layers, n_in = LAYERS[config.size], 3
    modules: list[nn.Module] = []
    for number, layer in enumerate(layers):
        n_out = layer.widths * config.width or channels
        modules.append(nn.Conv2d(n_in, n_out, layer.kernel))
        if layer is not layers[-1]:
            modules.append(nn.ReLU())
        if number < 2:
            modules.append(nn.AvgPool2d(2))
        n_in = n_out
    return nn.Sequential(*modules)


class Autoencoder(nn.Module):
    """(N, 3, H, W) → (N, channels, H/4 - 8, W/4 - 8), through one vector for each 64×64 pixels (section 3.3).

    At 256×256 the steps of the decoder are the published ones, 3, 8, 15, 32, 63, 127 and 56 cells; at other sizes they
    grow with the picture as in anomalib.
    """

    def __init__(self, config: EfficientAdConfig) -> None:
        super().__init__()
        outer, inner = config.autoencoder_width, 2 * config.autoencoder_width
        for name, (n_in, n_out) in zip(ENCODER[:5], pairwise((3, outer, outer, inner, inner, inner)), strict=True):
            self.add_module(name, nn.Conv2d(n_in, n_out, 4, stride=2, padding=1))
        self.add_module(ENCODER[5], nn.Conv2d(inner, inner, 8))
        for name in DECODER:
            self.add_module(name, nn.Conv2d(inner, inner, 4, padding=2))
        for name, n_out in zip(LAST, (inner, config.channels), strict=True):
            self.add_module(name, nn.Conv2d(inner, n_out, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        height, width = map(int, image.shape[2:])  # of a trace: sizes do not depend on the picture
        feature: Tensor = image
        for name in ENCODER[:5]:
            feature = relu(self.get_submodule(name)(feature))
        feature = self.get_submodule(ENCODER[5])(feature)
        *steps, last = zip(decoder_sides(height), decoder_sides(width), strict=True)
        for name, size in zip(DECODER, steps, strict=True):
            feature = interpolate(feature, size=size, mode="bilinear")
            feature = dropout(relu(self.get_submodule(name)(feature)), DROPOUT, self.training)
        feature = interpolate(feature, size=last, mode="bilinear")
        feature = self.get_submodule(LAST[1])(relu(self.get_submodule(LAST[0])(feature)))
        return feature


def decoder_sides(side: int) -> tuple[int, ...]:
    """Rows (or columns) that the decoder enlarges to, one after the other, for a picture of `side` pixels."""
    return side // 64 - 1, side // 32, side // 16 - 1, side // 8, side // 4 - 1, side // 2 - 1, side // 4 - 8


class RawMaps(NamedTuple):
    """Mean squared differences over the channels, (N, h, w) each.

    Attributes:
        st: of teacher and student, which sees what is wrong locally.
        ae: of autoencoder and student, which sees what is wrong with the whole.
    """

    st: Tensor
    ae: Tensor


class EfficientAd(nn.Module):
    """(N, 3, H, W) float32 normalised RGB → `Answer`: maps (N, H/4 - 8, W/4 - 8) and (N, H, W) without bounds.

    Args:
        map_padding: when the map is padded.

    Attributes:
        mean, std: (channels,), of the teacher's answers to good pictures.
        quantiles: (4,), lower and upper one of the local map, then of the global one, over good pictures.
    """

    mean: Tensor
    std: Tensor
    quantiles: Tensor

    def __init__(self, config: EfficientAdConfig, map_padding: MapPadding = "after") -> None:
        super().__init__()
        self.config, self.map_padding = config, map_padding
        self.teacher = pdn(config, config.channels)
        self.student = pdn(config, 2 * config.channels)
        self.autoencoder = Autoencoder(config)
        self.register_buffer("mean", torch.zeros(config.channels), persistent=False)
        self.register_buffer("std", torch.ones(config.channels), persistent=False)
        self.register_buffer("quantiles", torch.tensor([0.0, 1.0, 0.0, 1.0]), persistent=False)

    def forward(self, image: Tensor) -> Answer:
        maps = self.raw_maps(image)
        scaled = self._combined(*maps)
        if self.map_padding == "before":
            return Answer(scaled, self._combined(*(self._enlarged(one, image) for one in maps)))
        return Answer(scaled, self._enlarged(scaled, image))

    def taught(self, image: Tensor) -> Tensor:
        """The teacher's answer, every channel with mean 0 and variance 1 over good pictures (section 3.2)."""
        answer: Tensor = self.teacher(image)
        return (answer - self.mean[:, None, None]) / self.std[:, None, None]

    def raw_maps(self, image: Tensor) -> RawMaps:
        """Both maps before they are scaled."""
        local, whole = self.student(image).chunk(2, dim=1)
        st = (self.taught(image) - local).square().mean(1)
        return RawMaps(st, (self.autoencoder(image) - whole).square().mean(1))

    def _combined(self, st: Tensor, ae: Tensor) -> Tensor:
        st_low, st_high, ae_low, ae_high = self.quantiles
        st, ae = (st - st_low) / (st_high - st_low), (ae - ae_low) / (ae_high - ae_low)
        return 0.5 * SCALED * st + 0.5 * SCALED * ae

    def _enlarged(self, cells: Tensor, image: Tensor) -> Tensor:
        if self.map_padding != "none":
            cells = pad(cells, (PADDED_CELLS,) * 4)
        return interpolate(cells[:, None], size=image.shape[2:], mode="bilinear")[:, 0]
