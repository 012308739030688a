"""Losses against the paper's formulas written out in NumPy, the projection's properties, the optimisers' settings."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from edge_ad.models.glass.config import Objective
from edge_ad.models.glass.network import Glass
from edge_ad.models.glass.training.objective import (
    StepLosses,
    anomalous_loss,
    focal_loss,
    local_loss,
    normal_loss,
    normal_radius,
    radial_projection,
    shares_right,
)
from edge_ad.models.glass.training.optimizers import optimizers_of
from edge_ad.models.patch_head.network import Adaptor, Discriminator

ATOL = 1e-12
logits = arrays(np.float64, st.integers(1, 30), elements=st.floats(-30, 30))
quick = settings(max_examples=60, deadline=None, derandomize=True)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def column(values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float64))[:, None]


@quick
@given(logits)
def test_cross_entropies(logit: Any) -> None:
    logit = logit.clip(-12, 12)  # beyond, 1 - sigmoid is what loses digits
    assert float(normal_loss(column(logit))) == pytest.approx(-np.log(1 - sigmoid(logit)).mean(), rel=1e-6)
    assert float(anomalous_loss(column(logit))) == pytest.approx(-np.log(sigmoid(logit)).mean(), rel=1e-6)


def test_cross_entropies_of_extreme_logits_are_finite() -> None:
    extreme = torch.tensor([[-1e4], [1e4]])
    assert float(normal_loss(extreme)) == float(anomalous_loss(extreme)) == 5e3


def numpy_focal(probability: Any, target: Any, gamma: float) -> float:
    """Focal loss of two classes with the one-hot target clipped to [1e-5, 1 - 1e-5], as the authors smooth it."""
    one_hot = np.stack([target == 0, target == 1], axis=1).clip(1e-5, 1 - 1e-5)
    likely = (one_hot * np.stack([1 - probability, probability], axis=1)).sum(1) + 1e-5
    return float((-((1 - likely) ** gamma) * np.log(likely)).mean())


@quick
@given(logits, st.data(), st.sampled_from([0.0, 1.0, 2.0, 4.0]))
def test_focal_loss(logit: Any, data: st.DataObject, gamma: float) -> None:
    target = data.draw(arrays(np.float64, logit.shape, elements=st.sampled_from([0.0, 1.0])))
    probability = sigmoid(np.clip(logit, -8, 8))
    got = float(focal_loss(torch.from_numpy(probability), torch.from_numpy(target), gamma))
    assert got == pytest.approx(numpy_focal(probability, target, gamma), abs=ATOL)


@pytest.mark.parametrize("probability", [0.0, 1.0])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_focal_loss_of_certainty_has_a_finite_gradient(probability: float, target: float) -> None:
    value = torch.tensor([probability], requires_grad=True)
    loss = focal_loss(value, torch.tensor([target]), 2.0)
    loss.backward()
    assert value.grad is not None
    assert math.isfinite(loss.item()) and math.isfinite(value.grad.item())


@quick
@given(logits, st.data(), st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]))
def test_local_loss_keeps_the_hardest(logit: Any, data: st.DataObject, quantile: float) -> None:
    target = data.draw(arrays(np.float64, logit.shape, elements=st.sampled_from([0.0, 1.0])))
    logit = np.clip(logit, -8, 8)
    probability = sigmoid(logit)
    error = (probability - target) ** 2
    # A value between two errors decides; where it falls on one, both sides may round differently.
    level = np.quantile(error, quantile)
    if quantile > 0 and np.any((error != level) & (np.abs(error - level) < 1e-12)):
        return
    hard = error >= level - 1e-13 if quantile > 0 else np.ones(len(error), bool)
    got = float(local_loss(column(logit), torch.from_numpy(target > 0), quantile, 2.0))
    assert got == pytest.approx(numpy_focal(probability[hard], target[hard], 2.0), abs=1e-10)


def test_local_loss_has_no_gradient_for_easy_patches() -> None:
    logit = torch.tensor([[-5.0], [-1.0], [1.0], [5.0]], requires_grad=True)
    local_loss(logit, torch.zeros(4, dtype=torch.bool), 0.5, 2.0).backward()
    assert logit.grad is not None
    assert logit.grad[:, 0].ne(0).tolist() == [False, False, True, True]


# Projection

points = arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.floats(-10, 10))
radii = st.tuples(st.floats(0, 5), st.floats(0, 5)).map(sorted)


@quick
@given(points, radii)
def test_projection_moves_along_rays_into_the_shell(offset: Any, bounds: Any) -> None:
    nearest, farthest = bounds
    moved, factor = (value.numpy() for value in radial_projection(torch.from_numpy(offset), nearest, farthest))
    before, after = np.linalg.norm(offset, axis=1), np.linalg.norm(moved, axis=1)
    assert np.isfinite(moved).all()
    assert (factor >= 0).all() and factor.shape == (len(offset), 1)
    np.testing.assert_allclose(moved, offset * factor, atol=ATOL)
    clear = before > 1e-2  # shorter ones feel the 1e-10 that is added to their lengths
    np.testing.assert_allclose(after[clear], before[clear].clip(nearest, farthest), rtol=2e-8, atol=1e-12)


@quick
@given(points, radii)
def test_projection_twice_is_projection_once(offset: Any, bounds: Any) -> None:
    once = radial_projection(torch.from_numpy(offset), *bounds)[0]
    twice = radial_projection(once, *bounds)[0]
    long = torch.from_numpy(offset).norm(dim=1) > 1e-2
    torch.testing.assert_close(twice[long], once[long], rtol=1e-7, atol=1e-9)


def test_projection_of_nothing_and_to_radius_zero() -> None:
    assert radial_projection(torch.zeros(0, 3), 0.5, 1.0)[0].shape == (0, 3)
    assert radial_projection(torch.zeros(2, 3), 0.5, 1.0)[0].abs().max() == 0
    radius = torch.tensor(0.0)
    assert radial_projection(torch.ones(2, 3), radius, 2 * radius)[0].abs().max() == 0


def test_projection_of_a_point_at_its_origin_has_a_finite_gradient() -> None:
    offset = torch.zeros(2, 3, requires_grad=True)
    radial_projection(offset, 0.5, 1.0)[0].sum().backward()
    assert offset.grad is not None
    assert bool(torch.isfinite(offset.grad).all())


def test_radius_is_a_quantile_without_gradient() -> None:
    distance = torch.tensor([4.0, 1.0, 3.0, 2.0, 5.0], requires_grad=True)
    radius = normal_radius(distance, 0.75)
    assert float(radius) == 4.0
    assert not radius.requires_grad


# Shares and constants


def test_shares_on_the_right_side() -> None:
    normal, gas, local = ([[-1.0], [2.0]], [[0.0], [-1.0], [1.0]], [[-2.0], [3.0], [4.0], [-5.0]])
    anomalous = torch.tensor([True, True, False, False])
    got = shares_right(torch.tensor(normal), torch.tensor(gas), torch.tensor(local), anomalous)
    assert got == (2 / 4, 3 / 5)  # a logit of 0 is a probability of 0.5, which is called anomalous


def test_published_constants() -> None:
    assert Objective() == Objective("manifold", 0.015, 20, 0.001, 5, (0.5, 1.0), 0.75, 0.5, 2.0)
    assert StepLosses(1.0, 2.0, 4.0, 0.5, 0.5).total == 7.0


def head(adaptor_layers: int) -> Glass:
    return cast(Glass, SimpleNamespace(adaptor=Adaptor(4, adaptor_layers), discriminator=Discriminator(4, 3, 2)))


def test_optimisers_are_the_authors() -> None:
    optimizers = optimizers_of(head(1), 1e-4)
    adaptor, discriminator = optimizers.parts
    assert type(adaptor) is torch.optim.Adam and type(discriminator) is torch.optim.AdamW
    settings = [{key: part.defaults[key] for key in ("lr", "betas", "weight_decay")} for part in optimizers.parts]
    assert settings[0] == {"lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 1e-5}
    assert settings[1] == {"lr": 2e-4, "betas": (0.9, 0.999), "weight_decay": 1e-2}


def test_learning_rates_scale_from_where_they_started() -> None:
    optimizers = optimizers_of(head(1), 1e-3)
    for factor in (0.5, 0.25):
        optimizers.scale_rates(factor)
    assert [part.param_groups[0]["lr"] for part in optimizers.parts] == [0.25e-3, 0.5e-3]


def test_a_network_without_an_adaptor_has_one_optimiser() -> None:
    optimizers = optimizers_of(head(0), 1e-3)
    assert len(optimizers.parts) == 1
    optimizers.load_state_dict(optimizers.state_dict())
