"""The exact fold of EfficientAD: what is subtracted, scaled and averaged goes into convolutions.

Products are formed in float64. The normalisation of the picture stays in front of the three networks, once: the first
layer of the autoencoder is padded with zeros and cannot take it in, and what is computed for it serves the others too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_ad.image.operators import resize_matrix
from edge_ad.models.contract import Answer
from edge_ad.models.efficientad.config import PADDED_CELLS, MapPadding
from edge_ad.models.efficientad.network import SCALED, EfficientAd


class FoldedEfficientAd(nn.Module):
    """Export form of a network in eval mode; equal to it up to float rounding.

    The teacher's mean and deviation are in its last layer. Mean over the channels, quantiles and the sum of both maps
    are a 1×1 convolution of each square, with one output. So every layer with work in it is followed by another, and
    int8 reaches all of them; differences, squares and what follows stay float. Padding and resize are one product for
    each axis.

    One convolution on the features of teacher and student together could give the local difference itself, at the same
    cost: a large product either way. It is not done, for int8 would round it behind a concatenation.

    `forward`: (N, 3, H, W) float32 normalised RGB → `Answer`: maps (N, h, w) and (N, H, W), no score.

    Args:
        size_hw: height and width of the picture.
    """

    rows: Tensor
    columns_transposed: Tensor

    def __init__(self, network: EfficientAd, size_hw: tuple[int, int]) -> None:
        super().__init__()
        (self.teacher, taught), (self.student, learned) = _split(network.teacher), _split(network.student)
        channels = network.config.channels
        mean, std = network.mean.double(), network.std.double()
        weight, bias = _double(taught)
        (local_weight, whole_weight), (local_bias, whole_bias) = (part.chunk(2) for part in _double(learned))
        weight, bias = weight / std[:, None, None, None], (bias - mean) / std
        self.taught = _convolution(weight, bias)
        self.local = _convolution(local_weight, local_bias)
        self.whole = _convolution(whole_weight, whole_bias)
        self.autoencoder = network.autoencoder
        st_low, st_high, ae_low, ae_high = (float(value) for value in network.quantiles)
        gain_st, gain_ae = 0.5 * SCALED / (st_high - st_low), 0.5 * SCALED / (ae_high - ae_low)
        offset = -gain_st * st_low - gain_ae * ae_low
        self.map_st, self.map_ae = _mean(channels, gain_st, offset), _mean(channels, gain_ae, 0.0)
        # Interpolation leaves a constant as it is: what surrounds the map is taken off before and added after it.
        self.surround = offset if network.map_padding == "before" else 0.0
        rows, columns = (enlarging(side, network.map_padding) for side in size_hw)
        self.register_buffer("rows", rows)
        self.register_buffer("columns_transposed", columns.T.contiguous())
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Answer:
        learned = self.student(image)
        local = self.taught(self.teacher(image)) - self.local(learned)
        whole = self.autoencoder(image) - self.whole(learned)
        patches = (self.map_st(local * local) + self.map_ae(whole * whole))[:, 0]
        if not self.surround:
            return Answer(patches, self.rows @ (patches @ self.columns_transposed))
        return Answer(patches, self.rows @ ((patches - self.surround) @ self.columns_transposed) + self.surround)


def enlarging(side: int, map_padding: MapPadding) -> Tensor:
    """Padding with 0 and bilinear resize of one axis: (side, side/4 - 8) float32, for a picture of `side` pixels."""
    padded = 0 if map_padding == "none" else PADDED_CELLS
    cells = side // 4 - 2 * PADDED_CELLS
    matrix = resize_matrix(cells + 2 * padded, side)[:, padded : padded + cells]
    return torch.from_numpy(matrix).float()


def _split(network: nn.Sequential) -> tuple[nn.Sequential, nn.Conv2d]:
    """All but the last layer, and that one."""
    last = network[-1]
    assert isinstance(last, nn.Conv2d)
    return network[:-1], last


def _double(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    assert layer.bias is not None
    return layer.weight.data.double(), layer.bias.data.double()


def _convolution(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    n_out, n_in, rows, columns = weight.shape
    layer = nn.Conv2d(n_in, n_out, (rows, columns))
    assert layer.bias is not None
    layer.weight.data, layer.bias.data = weight.float(), bias.float()
    return layer


def _mean(channels: int, gain: float, offset: float) -> nn.Conv2d:
    """`gain` times the mean over the channels, plus `offset`."""
    weight = torch.full((1, channels, 1, 1), gain / channels, dtype=torch.float64)
    return _convolution(weight, torch.tensor([offset], dtype=torch.float64))
