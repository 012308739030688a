"""Norm-guided one-step denoising (the paper's section 3.3): two passes at different noise, the second guides the first.

Written once for the published network, for the graph that is exported, and for training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Coefficient = float | Tensor
Predict = Callable[[Tensor], Tensor]
"""A picture with noise, (N, 3, H, W), → the noise in it."""


@dataclass(frozen=True)
class Level:
    """A time step of the schedule, see `Schedule`: numbers, or (N, 1, 1, 1) of each picture."""

    signal: Coefficient
    noise: Coefficient
    inverse: Coefficient
    excess: Coefficient

    def noised(self, image: Tensor, noise: Tensor) -> Tensor:
        """a·x + s·noise."""
        return self.signal * image + self.noise * noise

    def denoised(self, noisy: Tensor, predicted: Tensor) -> Tensor:
        """The picture that such noise was laid over, clamped to [−1, 1] as the authors do."""
        return (noisy * self.inverse - self.excess * predicted).clamp(-1, 1)


@dataclass(frozen=True)
class Denoised:
    """What the two passes give, all (N, 3, H, W).

    Attributes:
        normal, noisier: noise that was predicted at either level.
        from_noisier: the picture as the noisier pass has it.
        renoised: that, with the noise that was predicted at the normal level.
        guided: the reconstruction.
    """

    normal: Tensor
    noisier: Tensor
    from_noisier: Tensor
    renoised: Tensor
    guided: Tensor


def denoised(
    noisy: tuple[Tensor, Tensor], levels: tuple[Level, Level], predict: tuple[Predict, Predict], guidance: float
) -> Denoised:
    """Both passes.

    Args:
        noisy: the picture with noise at the normal and at the noisier level.
        levels, predict: of these two.
        guidance: w, how much the noisier pass says.
    """
    (x_normal, x_noisier), (at_normal, at_noisier) = noisy, levels
    normal, noisier = predict[0](x_normal), predict[1](x_noisier)
    from_noisier = at_noisier.denoised(x_noisier, noisier)
    renoised = at_normal.noised(from_noisier, normal)
    guided_noise = normal - guidance * at_normal.noise * (renoised - x_normal)
    return Denoised(normal, noisier, from_noisier, renoised, at_normal.denoised(x_normal, guided_noise))
