"""One training step of GLASS written out as the paper gives it: the oracle of the fast one, and its yardstick.

Both pictures run through the backbone, every ascent step through the whole discriminator and back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge_ad.models.glass.config import Objective
from edge_ad.models.glass.network import Glass
from edge_ad.models.glass.training.objective import (
    TINY,
    StepLosses,
    anomalous_loss,
    local_loss,
    normal_loss,
    normal_radius,
    radial_projection,
    shares_right,
)
from edge_ad.models.patch_head.training.optimizers import HeadOptimizers


def published_step(
    network: Glass,
    objective: Objective,
    optimizers: HeadOptimizers,
    *,
    image: Tensor,
    augmented: Tensor,
    anomalous: Tensor,
    noise: Tensor,
    center: Tensor,
) -> StepLosses:
    """Train on one batch.

    Args:
        image, augmented: (N, 3, H, W) float32, normalised; normal pictures, and the same with textures overlaid.
        anomalous: (N·h·w,) bool, where the textures lie.
        noise: (N·h·w, D) Gaussian noise, already scaled.
        center: (h·w, D) mean adapted feature of every position.
    """
    network.backbone.eval()
    network.adaptor.train()
    network.discriminator.train()
    optimizers.zero_grad()
    with torch.no_grad():
        local_embedding, normal_embedding = network.embed(augmented)[0], network.embed(image)[0]
    local, normal = network.adaptor(local_embedding), network.adaptor(normal_embedding)
    centers = center.repeat(len(image), 1)
    true_distance = torch.cat([(local - centers)[~anomalous], normal - centers]).norm(dim=1)
    radius = normal_radius(true_distance, objective.radius_quantile)
    hypersphere = objective.hypothesis == "hypersphere"

    globally = normal + noise
    globally.requires_grad_()  # it is not by itself where there is no adaptor
    for step in range(1, objective.ascent_steps + 1):
        logit = network.discriminator(torch.cat([normal, globally]))[len(normal) :]
        (gradient,) = torch.autograd.grad(anomalous_loss(logit), globally)
        with torch.no_grad():
            globally += objective.ascent_step_size * gradient / (gradient.norm(dim=1, keepdim=True) + TINY)
        if step % objective.project_every == 0:
            origin = centers if hypersphere else normal
            nearest, farthest = (radius, 2 * radius) if hypersphere else objective.manifold_radii
            globally = origin + radial_projection(globally - origin, nearest, farthest)[0]
    logit = network.discriminator(torch.cat([normal, globally]))
    normal_logit, gas_logit = logit[: len(normal)], logit[len(normal) :]

    if hypersphere:
        offset = radial_projection((local - centers)[anomalous], 2 * radius, 4 * radius)[0]
        local = local.clone()
        local[anomalous] = centers[anomalous] + offset
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
