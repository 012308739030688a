"""What student and autoencoder minimise (sections 3.2 and 3.3), with each layer computed for what it is needed for.

Each half of the student's last layer is computed for the pictures that it is judged on alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from edge_ad.models.efficientad.network import EfficientAd


class Losses(NamedTuple):
    """Scalars; their sum is minimised.

    Attributes:
        hard: the student's greatest differences from the teacher on good pictures.
        autoencoder: of autoencoder and teacher, on pictures in changed colours.
        student: of the student's other half and the autoencoder, on the same.
        penalty: how much the student says of pictures of anything; None where there are none.
    """

    hard: Tensor
    autoencoder: Tensor
    student: Tensor
    penalty: Tensor | None


def objective(
    network: EfficientAd, taught: Tensor, image: Tensor, jittered: Tensor, other: Tensor | None, hard_share: float
) -> Losses:
    """Losses of a batch.

    Args:
        network: in training mode.
        taught: (N, C, h, w) of `EfficientAd.taught`, of `image`.
        image, jittered, other: (N, 3, H, W) normalised: good pictures, the same in changed colours, pictures of
            anything or None.
        hard_share: share of the squared differences that count.
    """
    with torch.no_grad():
        wanted = network.taught(jittered)
    count = len(image)
    feature: Tensor = network.student[:-1](torch.cat([image, jittered] if other is None else [image, jittered, other]))
    last = network.student[-1]
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    (local_weight, whole_weight), (local_bias, whole_bias) = last.weight.chunk(2), last.bias.chunk(2)
    local = conv2d(feature[:count], local_weight, local_bias)
    whole = conv2d(feature[count : 2 * count], whole_weight, whole_bias)
    made: Tensor = network.autoencoder(jittered)
    penalty = None if other is None else conv2d(feature[2 * count :], local_weight, local_bias).square().mean()
    return Losses(
        greatest((taught - local).square(), hard_share).mean(),
        (wanted - made).square().mean(),
        (made - whole).square().mean(),
        penalty,
    )


def greatest(values: Tensor, share: float) -> Tensor:
    """Those at or above the (1 - share) quantile, which is interpolated linearly: (k,)."""
    count = values.numel()
    rank = (1 - share) * (count - 1)
    return values.flatten().topk(count - math.ceil(rank - 1e-9 * count)).values
