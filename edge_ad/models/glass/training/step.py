"""One training step of GLASS, equal to the published one up to rounding and several times faster.

What it works on are embeddings of the frozen backbone, so those of unaugmented pictures can be computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge_ad.models.glass.config import Objective
from edge_ad.models.glass.network import Glass
from edge_ad.models.glass.training.ascent import ascend
from edge_ad.models.glass.training.objective import (
    StepLosses,
    anomalous_loss,
    local_loss,
    normal_loss,
    normal_radius,
    radial_projection,
    shares_right,
)
from edge_ad.models.patch_head.training.optimizers import HeadOptimizers


def fast_step(
    network: Glass,
    objective: Objective,
    optimizers: HeadOptimizers,
    *,
    normal_embedding: Tensor,
    local_embedding: Tensor,
    anomalous: Tensor,
    noise: Tensor,
    center: Tensor,
    jitter: Tensor | None = None,
) -> StepLosses:
    """Train on one batch.

    Args:
        normal_embedding, local_embedding: (P, D) of `Glass.embed`, of the normal pictures and of the same with
            textures overlaid.
        anomalous: (P,) bool, where the textures lie.
        noise: (P, D) Gaussian noise, already scaled.
        center: (positions, D) mean adapted feature of every position; P is a multiple of positions.
        jitter: (P, D) added to the adapted normal features, so that their surroundings count as normal too.
    """
    network.adaptor.train()
    network.discriminator.train()
    optimizers.zero_grad()
    normal, local = network.adaptor(normal_embedding), network.adaptor(local_embedding)
    if jitter is not None:
        normal = normal + jitter
    hypersphere = objective.hypothesis == "hypersphere"
    centers, radius = center[:0], noise.new_zeros(())
    if hypersphere:
        centers = center.repeat(len(normal) // len(center), 1)
        with torch.no_grad():
            distance = torch.cat([(local - centers)[~anomalous].norm(dim=1), (normal - centers).norm(dim=1)])
            radius = normal_radius(distance, objective.radius_quantile)
    gas = ascend(network.discriminator, objective, normal=normal, noise=noise, centers=centers, radius=radius)
    logit = network.discriminator(torch.cat([normal, gas]))
    normal_logit, gas_logit = logit[: len(normal)], logit[len(normal) :]
    if hypersphere:
        offset = radial_projection((local - centers)[anomalous], 2 * radius, 4 * radius)[0]
        local = local.index_put((anomalous,), centers[anomalous] + offset)
    local_logit = network.discriminator(local)
    losses = (
        normal_loss(normal_logit),
        anomalous_loss(gas_logit),
        local_loss(local_logit, anomalous, objective.hard_quantile, objective.focal_gamma),
    )
    torch.autograd.backward(losses)
    optimizers.step()
    normal_right, anomalous_right = shares_right(normal_logit, gas_logit, local_logit, anomalous)
    normal_value, gas_value, las_value = (loss.item() for loss in losses)
    return StepLosses(normal_value, gas_value, las_value, normal_right, anomalous_right)
