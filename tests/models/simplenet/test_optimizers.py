"""The optimisers of SimpleNet: the authors' code, and the paper's text on request. One step, in float64 by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edge_ad.errors import ConfigError
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.simplenet.network import SimpleNet
from edge_ad.models.simplenet.training.options import AdaptorOptimizer, SimpleNetTrainOptions
from edge_ad.models.simplenet.training.step import optimizers_of

RATE = 1e-2  # large, so that decays are not lost in rounding
EPSILON = 1e-8  # Adam's


class Head:
    """Two weights with a gradient, in place of the parts that train."""

    def __init__(self, adaptor_layers: int = 1) -> None:
        config = HeadConfig("resnet18", ("layer1",), 4, 4, 4, adaptor_layers)
        self.adaptor, self.discriminator = (part.double() for part in SimpleNet.head(config))
        source = torch.Generator().manual_seed(3)
        for part in (self.adaptor, self.discriminator):
            for weight in part.parameters():
                weight.data = torch.randn(weight.shape, generator=source, dtype=torch.float64) * 5
                weight.grad = torch.randn(weight.shape, generator=source, dtype=torch.float64) * 1e-3


def stepped(weight: Any, gradient: Any, kind: str, rate: float, decay: float) -> Any:
    """The first step: the moments, corrected for their start, are the gradient and its square."""
    if kind == "adam":
        gradient = gradient + decay * weight
    else:
        weight = weight * (1 - rate * decay)
    return weight - rate * gradient / (np.abs(gradient) + EPSILON)


@pytest.mark.parametrize(("kind", "decay"), [("adamw", 0.01), ("adam", 1e-5)])
def test_one_step(kind: AdaptorOptimizer, decay: float) -> None:
    head = Head()
    wanted = []
    for part in (head.adaptor, head.discriminator):
        of_part = (kind, RATE, decay) if part is head.adaptor else ("adam", 2 * RATE, 1e-5)
        for weight in part.parameters():
            assert weight.grad is not None
            wanted.append(stepped(weight.detach().numpy().copy(), weight.grad.numpy().copy(), *of_part))
    optimizers_of(head, RATE, kind).step()  # type: ignore[arg-type]
    found = [weight.detach().numpy() for part in (head.adaptor, head.discriminator) for weight in part.parameters()]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_the_two_are_not_the_same() -> None:
    """Control for the tolerance above."""
    weights = []
    for kind in ("adamw", "adam"):
        head = Head()
        optimizers_of(head, RATE, kind).step()  # type: ignore[arg-type]
        weights.append(head.adaptor.layers[0].weight.detach())
    assert (weights[0] - weights[1]).abs().max() > 1e-6


def test_without_an_adaptor_there_is_one_optimizer() -> None:
    assert len(optimizers_of(Head(0), RATE, "adam").parts) == 1  # type: ignore[arg-type]


def test_the_option() -> None:
    told = {"data": "x", "output": "y"}
    assert SimpleNetTrainOptions.checked(told, "test").adaptor_optimizer == "adamw"
    assert SimpleNetTrainOptions.checked({**told, "adaptor-optimizer": "adam"}, "test").adaptor_optimizer == "adam"
    with pytest.raises(ConfigError, match="adaptor_optimizer: wanted 'adamw' or 'adam'"):
        SimpleNetTrainOptions.checked({**told, "adaptor_optimizer": "sgd"}, "test")
