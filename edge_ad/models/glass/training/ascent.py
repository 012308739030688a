"""Gradient ascent on the features, done in the hidden space of the discriminator's first layer.

A step of the ascent moves a feature g by Wᵀa, W being the first linear layer: all that the discriminator sees of it is
z = Wg, which moves by WWᵀa, and the length of the step is that of Wᵀa, √(aᵀWWᵀa). So with the Gram matrix WWᵀ, formed
once, a step costs one product with a (hidden, hidden) matrix for the synthesised features alone, where the published
loop runs all features through the discriminator and back. The features themselves are needed when they are projected.
The result is the same up to rounding.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.models.glass.config import Objective
from edge_ad.models.glass.training.objective import TINY, anomalous_loss, radial_projection
from edge_ad.models.patch_head.network import LEAKY_SLOPE, Discriminator

CHUNK_BYTES = 1 << 20  # rows that are worked on at once stay in a core's second-level cache (measured)


def ascend(
    discriminator: Discriminator,
    objective: Objective,
    *,
    normal: Tensor,
    noise: Tensor,
    centers: Tensor,
    radius: Tensor,
) -> Tensor:
    """Synthesise global anomalies: noise, normalised gradient ascent, truncated projection.

    Args:
        discriminator: in train mode; its running statistics see every step, as in the published loop.
        normal: (P, D) adapted normal features, with gradient.
        noise: (P, D).
        centers: (P, D) centre of each patch's position.
        radius: r of the hypersphere, without gradient.

    Returns: (P, D), with the gradient that the published loop gives it.
    """
    if objective.ascent_steps == 0:
        return normal + noise
    first = cast(nn.Linear, cast(nn.Sequential, discriminator.body[0])[0])
    weight = first.weight.detach()
    with torch.no_grad():
        normal_hidden = first(normal)
    hypersphere = objective.hypothesis == "hypersphere"
    origin = centers if hypersphere else normal.detach()
    nearest, farthest = (radius, 2 * radius) if hypersphere else objective.manifold_radii
    # On a manifold, what lies between a feature and its normal one does not depend on the normal one: the offset is a
    # constant of the gradient. On a hypersphere the projection's own derivative counts.
    offset = normal + noise - centers if hypersphere else noise
    with torch.no_grad():
        hidden = normal_hidden + noise @ weight.T
        origin_hidden = first(origin) if hypersphere else normal_hidden
    climb = _climber(discriminator, normal_hidden, weight @ weight.T)
    done = 0
    while done < objective.ascent_steps:
        steps = min(objective.project_every, objective.ascent_steps - done)
        moves = torch.zeros_like(hidden)
        for _ in range(steps):
            climb.step(hidden, moves, objective.ascent_step_size)
        offset = offset + moves @ weight
        done += steps
        if steps == objective.project_every:
            offset, factor = radial_projection(offset, nearest, farthest)
            hidden = origin_hidden + (hidden - origin_hidden) * factor.detach()
    return (centers if hypersphere else normal) + offset


def _climber(discriminator: Discriminator, normal_hidden: Tensor, gram: Tensor) -> _OneBlock | _AnyDepth:
    kind = _OneBlock if len(discriminator.body) == 1 else _AnyDepth
    return kind(discriminator, normal_hidden, gram)


class _AnyDepth:
    """Ascent through a discriminator of any depth, its gradient by automatic differentiation."""

    def __init__(self, discriminator: Discriminator, normal_hidden: Tensor, gram: Tensor) -> None:
        head = cast(nn.Sequential, discriminator.body[0])
        self.behind_first = nn.Sequential(*list(head)[1:], *list(discriminator.body)[1:], discriminator.tail)
        self.normal_hidden, self.gram = normal_hidden, gram

    def step(self, hidden: Tensor, moves: Tensor, size: float) -> None:
        """One step of length `size`.

        It moves `hidden` (P, hidden) in place, and adds to `moves` the multiples of W's rows that it consists of.
        """
        with torch.enable_grad():
            leaf = hidden.detach().requires_grad_()
            logit = self.behind_first(torch.cat([self.normal_hidden, leaf]))[len(leaf) :]
            (gradient,) = torch.autograd.grad(anomalous_loss(logit), leaf)
        with torch.no_grad():
            _move(gradient, self.gram, hidden, moves, size)


class _OneBlock:
    """Ascent through Linear, BatchNorm, LeakyReLU, Linear, its gradient written out and taken in chunks of rows."""

    def __init__(self, discriminator: Discriminator, normal_hidden: Tensor, gram: Tensor) -> None:
        block = cast(nn.Sequential, discriminator.body[0])
        self.norm, self.gram = cast(nn.BatchNorm1d, block[1]), gram
        self.tail = discriminator.last.weight.detach().squeeze(0)
        self.normal_var, self.normal_mean = torch.var_mean(normal_hidden, dim=0, correction=0)
        self.chunk = len(normal_hidden)
        if not normal_hidden.is_cuda:
            self.chunk = max(64, CHUNK_BYTES // (normal_hidden.element_size() * normal_hidden.shape[1]))
        self.unit, self.slope = torch.empty_like(normal_hidden), torch.empty_like(normal_hidden)

    @torch.no_grad()
    def step(self, hidden: Tensor, moves: Tensor, size: float) -> None:
        """As _AnyDepth.step."""
        norm, rows, tail = self.norm, 2 * len(hidden), self.tail
        mean, var = self._statistics(hidden)
        self._track(mean, var * (rows / (rows - 1)))
        inverse = torch.rsqrt(var + norm.eps)
        shift = -mean * inverse
        slope_sum, slope_unit_sum = torch.zeros_like(mean), torch.zeros_like(mean)
        for own in self._chunks(hidden):
            unit = torch.addcmul(shift, hidden[own], inverse, out=self.unit[own])
            level = torch.addcmul(norm.bias, unit, norm.weight)
            error = torch.sigmoid_(F.leaky_relu(level, LEAKY_SLOPE) @ tail).sub_(1).div_(len(hidden))
            # The loss's slope at each activation, but for the tail's weight, which is the same for a whole column.
            slope = torch.ops.aten.leaky_relu_backward.grad_input(
                error[:, None].expand_as(level), level, LEAKY_SLOPE, False, grad_input=self.slope[own]
            )
            slope_sum += slope.sum(0)
            slope_unit_sum += torch.mul(slope, unit, out=level).sum(0)
        scale = norm.weight * inverse * tail
        constant, along = scale * slope_sum / rows, scale * slope_unit_sum / rows
        for own in self._chunks(hidden):
            gradient = self.slope[own].mul_(scale).sub_(constant).addcmul_(self.unit[own], along, value=-1)
            _move(gradient, self.gram, hidden[own], moves[own], size)

    def _chunks(self, hidden: Tensor) -> list[slice]:
        return [slice(start, start + self.chunk) for start in range(0, len(hidden), self.chunk)]

    def _statistics(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of normal and synthesised features together.

        Sums are taken around the mean of the normal ones, so that little is lost to cancellation.
        """
        total, squares = torch.zeros_like(self.normal_mean), torch.zeros_like(self.normal_mean)
        for own in self._chunks(hidden):
            centered = hidden[own] - self.normal_mean
            total += centered.sum(0)
            squares += centered.square_().sum(0)
        apart, spread = total / len(hidden), squares / len(hidden)
        mean = self.normal_mean + apart / 2
        return mean, (self.normal_var + spread) / 2 - (apart / 2).square()

    def _track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        """Running statistics as BatchNorm keeps them in train mode."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(unbiased_var, norm.momentum)
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked += 1


def _move(gradient: Tensor, gram: Tensor, hidden: Tensor, moves: Tensor, size: float) -> None:
    """Add a step of length `size` along Wᵀ`gradient`."""
    step = gradient @ gram
    length = (gradient * step).sum(1, keepdim=True).clamp_(min=0).sqrt_()
    scale = size / (length + TINY)
    hidden.addcmul_(step, scale)
    moves.addcmul_(gradient, scale)
