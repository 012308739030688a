"""The exact fold of DRAEM: normalisations into convolutions, colours into weights, two logits into one.

Products are formed in float64. What is left is a chain of plain 3×3 convolutions, which every engine runs well.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from edge_ad.models.draem.network import Draem
from edge_ad.models.draem.options import ColorOrder


class FoldedDraem(nn.Module):
    """Export form of a network in eval mode; equal to it up to float rounding.

    `forward`: (N, 3, H, W) float32 **RGB** in [0, 1] → (N, H, W) float32 logits: the anomalous one minus the normal
    one, whose sigmoid is the softmax of the two.

    Args:
        color_order: the order that the network was trained with.
    """

    def __init__(self, network: Draem, color_order: ColorOrder) -> None:
        super().__init__()
        self.reconstruction = without_normalisation(network.reconstruction)
        self.segmentation = without_normalisation(network.segmentation)
        _one_logit(self._convolution("segmentation.decoder_segment.fin_out"))
        if color_order == "bgr":
            self._eat_rgb()
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        reconstructed = self.reconstruction(image)
        logit: Tensor = self.segmentation(torch.cat([reconstructed, image], dim=1))
        return logit.squeeze(1)

    def _convolution(self, name: str) -> nn.Conv2d:
        return cast("nn.Conv2d", cast("nn.Sequential", self.get_submodule(name))[0])

    def _eat_rgb(self) -> None:
        """Turn the colours round inside of the first and last weights, so that no picture has to be turned round."""
        first = self._convolution("reconstruction.encoder.block1")
        first.weight.data = first.weight.data.flip(1)
        last = self._convolution("reconstruction.decoder.fin_out")
        assert last.bias is not None
        last.weight.data, last.bias.data = last.weight.data.flip(0), last.bias.data.flip(0)
        pair = self._convolution("segmentation.encoder_segment.block1")
        pair.weight.data = torch.cat([pair.weight.data[:, :3].flip(1), pair.weight.data[:, 3:].flip(1)], dim=1)


class PublishedDraem(nn.Module):
    """The network as published, in terms of `FoldedDraem`: RGB in, one logit out."""

    def __init__(self, network: Draem, color_order: ColorOrder) -> None:
        super().__init__()
        self.network = network
        self._turned = color_order == "bgr"

    def forward(self, image: Tensor) -> Tensor:
        _, logits = self.network.both(image.flip(1) if self._turned else image)
        return logits[:, 1] - logits[:, 0]


def _one_logit(last: nn.Conv2d) -> None:
    """The convolution that gives two logits → one that gives their difference."""
    assert last.bias is not None
    weight, bias = last.weight.data.double(), last.bias.data.double()
    last.weight.data = (weight[1:] - weight[:1]).float()
    last.bias.data = (bias[1:] - bias[:1]).float()
    last.out_channels = 1


def without_normalisation(network: nn.Module) -> nn.Module:
    """A copy in which every BatchNorm is part of the convolution in front of it."""
    folded = copy.deepcopy(network).eval()
    for sequence in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        for number in range(len(sequence) - 1):
            convolution, norm = sequence[number], sequence[number + 1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                _fold(convolution, norm)
                sequence[number + 1] = nn.Identity()
    return folded


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert convolution.bias is not None and norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.data.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = gain * (convolution.bias.data.double() - norm.running_mean.double()) + norm.bias.data.double()
    convolution.weight.data = (gain[:, None, None, None] * convolution.weight.data.double()).float()
    convolution.bias.data = bias.float()
