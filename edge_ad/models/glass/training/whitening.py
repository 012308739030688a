"""Starting the adaptor as the whitening of the normal features, which folds into it exactly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from edge_ad.models.patch_head.network import Adaptor


def whiten(adaptor: Adaptor, embeddings: Iterable[Tensor], ridge: float) -> None:
    """Set the adaptor's first layer to V·diag(1/√(λ + ridge·mean(λ)))·Vᵀ about the mean, float64 inside.

    λ and V are the eigenvalues and eigenvectors of the covariance of normal features. Whitened, a step in any
    direction is as far from normal as its length says, so noise of one size suits all directions.

    Args:
        embeddings: batches (P, D) of normal features.
        ridge: keeps directions that hardly vary from being blown up; above 0 when there are few features.
    """
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for part in embeddings:
        wide = part.double()
        count += len(wide)
        total = total.to(wide.device) + wide.sum(0)
        square = square.to(wide.device) + wide.T @ wide
    mean = total / count
    spread, directions = torch.linalg.eigh(square / count - torch.outer(mean, mean))
    spread = spread.clamp(min=0)
    scale = torch.rsqrt(spread + ridge * spread.mean() + torch.finfo(torch.float32).tiny)
    weight = (directions * scale) @ directions.T
    first = cast(nn.Linear, adaptor.layers[0])
    with torch.no_grad():
        first.weight.copy_(weight)
        first.bias.copy_(-weight @ mean)
