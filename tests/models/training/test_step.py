"""The fast step against the published one in float64, where what is left between them is rounding."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edge_ad.models.glass.config import Objective
from edge_ad.models.glass.network import Glass
from edge_ad.models.glass.training import ascent
from edge_ad.models.glass.training.objective import StepLosses
from edge_ad.models.glass.training.optimizers import optimizers_of
from edge_ad.models.glass.training.reference import published_step
from edge_ad.models.glass.training.step import fast_step
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.network import Adaptor, Discriminator

TOLERANCE = 1e-11  # of losses and gradients
WEIGHT_TOLERANCE = 1e-9  # Adam divides by the gradient's own size, which raises its relative error
# Where a gradient is round-off and nothing else (a bias in front of a BatchNorm), the direction of Adam's step is too.
# Nothing depends on such a tensor but the running mean, which follows the bias.
ROUND_OFF_GRADIENT = 1e-13
RATE = 1e-3
N_STEPS = 2


class EmbeddingAsImage(nn.Module):
    """A GLASS network whose pictures are embeddings already, (N, D, h, w), so that the head alone is compared."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = nn.Identity()
        self.adaptor = Adaptor(config.embed_dim, config.adaptor_layers)
        self.discriminator = Discriminator(config.embed_dim, config.hidden_dim, config.discriminator_layers)

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        return image.permute(0, 2, 3, 1).flatten(0, 2), (int(image.shape[2]), int(image.shape[3]))


@dataclass(frozen=True)
class Case:
    """A head in float64 and a batch for it."""

    network: Glass
    images: dict[str, Tensor]
    common: dict[str, Tensor]

    @classmethod
    def draw(cls, config: HeadConfig, n: int, hw: tuple[int, int], share: float, seed: int = 0) -> Case:
        source = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, dtype=torch.float64, generator=source)

        network = EmbeddingAsImage(config).double()
        with torch.no_grad():
            for value in network.parameters():
                fan_in = value.shape[1] if value.ndim == 2 else 1
                value.copy_(normal(*value.shape) / math.sqrt(fan_in) + (value.ndim == 1))
        image = normal(n, config.embed_dim, *hw)
        patches = n * hw[0] * hw[1]
        anomalous = torch.rand(patches, generator=source) < share
        common = {
            "anomalous": anomalous,
            "noise": 0.015 * normal(patches, config.embed_dim),
            "center": network.adaptor(network.embed(image.mean(0, keepdim=True))[0]).detach(),
        }
        images = {"image": image, "augmented": image + normal(*image.shape)}
        return cls(cast(Glass, network), images, common)

    def published(self, objective: Objective, n_steps: int = N_STEPS) -> tuple[list[StepLosses], Glass]:
        network = copy.deepcopy(self.network)
        optimizers = optimizers_of(network, RATE)
        steps = [published_step(network, objective, optimizers, **self.images, **self.common) for _ in range(n_steps)]
        return steps, network

    def fast(self, objective: Objective, n_steps: int = N_STEPS, **changes: Any) -> tuple[list[StepLosses], Glass]:
        network = copy.deepcopy(self.network)
        optimizers = optimizers_of(network, RATE)
        given = {
            "normal_embedding": network.embed(self.images["image"])[0],
            "local_embedding": network.embed(self.images["augmented"])[0],
            **self.common,
            **changes,
        }
        steps = [fast_step(network, objective, optimizers, **given) for _ in range(n_steps)]
        return steps, network


def head(network: Glass) -> dict[str, Tensor]:
    parts = {"adaptor": network.adaptor, "discriminator": network.discriminator}
    return {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}


def gradients(network: Glass) -> dict[str, Tensor]:
    return {name: value.grad for name, value in network.named_parameters() if value.grad is not None}


def assert_equal_steps(case: Case, objective: Objective) -> None:
    wanted, by_the_paper = case.published(objective)
    got, fast = case.fast(objective)
    for left, right in zip(got, wanted, strict=True):
        for name in ("normal", "gas", "las", "normal_right", "anomalous_right"):
            assert math.isfinite(getattr(right, name))
            assert getattr(left, name) == pytest.approx(getattr(right, name), rel=0, abs=TOLERANCE), name
    for name, value in gradients(by_the_paper).items():
        torch.testing.assert_close(gradients(fast)[name], value, rtol=TOLERANCE, atol=TOLERANCE)
    after = head(fast)
    for name, value in head(by_the_paper).items():
        assert bool(torch.isfinite(value).all()), name
        gradient = gradients(by_the_paper).get(name)
        round_off = name.endswith("running_mean") or (
            gradient is not None and float(gradient.abs().max()) < ROUND_OFF_GRADIENT
        )
        # A step of Adam cannot be much longer than the learning rate, which is twice RATE in the discriminator.
        allowed = 4 * N_STEPS * RATE if round_off else WEIGHT_TOLERANCE
        assert float((after[name] - value).abs().max()) <= allowed, name
        if name.endswith("num_batches_tracked"):
            assert int(after[name]) == int(value) == N_STEPS * (objective.ascent_steps + 2)


CONFIG = HeadConfig("none", ("a",), 12, 12, 9)
HYPOTHESES = ("manifold", "hypersphere")


@pytest.fixture(params=HYPOTHESES)
def objective(request: pytest.FixtureRequest) -> Objective:
    return Objective(hypothesis=request.param)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 64 rows, the smallest there are, so that every case here has several and a shorter last one."""
    monkeypatch.setattr(ascent, "CHUNK_BYTES", 1)


@pytest.mark.parametrize("ascent_steps", [0, 1, 4, 5, 7, 20])
def test_numbers_of_ascent_steps(objective: Objective, ascent_steps: int) -> None:
    assert_equal_steps(Case.draw(CONFIG, 3, (6, 7), 0.3), replace(objective, ascent_steps=ascent_steps))


@pytest.mark.parametrize("project_every", [1, 2, 3, 100])
def test_distances_between_projections(objective: Objective, project_every: int) -> None:
    assert_equal_steps(
        Case.draw(CONFIG, 2, (7, 5), 0.3), replace(objective, ascent_steps=7, project_every=project_every)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"hard_quantile": 0.0},
        {"hard_quantile": 1.0},
        {"radius_quantile": 0.0},
        {"radius_quantile": 1.0},
        {"manifold_radii": (0.0, 0.01)},
        {"manifold_radii": (0.7, 0.7)},
        {"ascent_step_size": 0.5},
        {"focal_gamma": 0.0},
    ],
    ids=str,
)
def test_other_constants(objective: Objective, change: dict[str, Any]) -> None:
    assert_equal_steps(Case.draw(CONFIG, 2, (6, 6), 0.3), replace(objective, **change))


@pytest.mark.parametrize(("adaptor_layers", "discriminator_layers"), [(1, 3), (0, 2), (2, 2), (0, 4), (2, 3)])
def test_depth_of_the_head(objective: Objective, adaptor_layers: int, discriminator_layers: int) -> None:
    config = replace(CONFIG, adaptor_layers=adaptor_layers, discriminator_layers=discriminator_layers)
    assert_equal_steps(Case.draw(config, 2, (6, 6), 0.3), replace(objective, ascent_steps=6))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_no_patch_or_every_patch_anomalous(objective: Objective, share: float) -> None:
    case = Case.draw(CONFIG, 2, (6, 6), share)
    assert int(case.common["anomalous"].sum()) == share * 72
    assert_equal_steps(case, objective)


@pytest.mark.parametrize(("n", "hw"), [(1, (8, 8)), (1, (5, 13)), (5, (13, 1)), (1, (1, 2)), (64, (1, 1))])
def test_sizes_about_the_length_of_a_chunk(objective: Objective, n: int, hw: tuple[int, int]) -> None:
    assert_equal_steps(Case.draw(CONFIG, n, hw, 0.4), objective)


def test_features_that_are_all_the_same(objective: Objective) -> None:
    """Offsets of length 0 are divided by; nothing may become NaN."""
    case = Case.draw(CONFIG, 2, (4, 4), 0.5)
    for image in case.images.values():
        image.fill_(0.5)
    with torch.no_grad():
        case.common["center"].copy_(case.network.adaptor(torch.full((16, 12), 0.5, dtype=torch.float64)))
    for form in (case.published, case.fast):
        losses, network = form(objective)
        assert all(math.isfinite(step.total) for step in losses)
        assert all(bool(torch.isfinite(value).all()) for value in head(network).values())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    hypothesis=st.sampled_from(HYPOTHESES),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(2, 9)),
    embed=st.integers(2, 20),
    hidden=st.integers(1, 20),
    ascent_steps=st.integers(0, 8),
    project_every=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.2, 0.8, 1.0]),
    seed=st.integers(0, 99),
)
def test_any_case(
    hypothesis: Any,
    sizes: tuple[int, int, int],
    embed: int,
    hidden: int,
    ascent_steps: int,
    project_every: int,
    share: float,
    seed: int,
) -> None:
    config = replace(CONFIG, embed_dim=embed, hidden_dim=hidden)
    case = Case.draw(config, sizes[0], sizes[1:], share, seed)
    objective = Objective(hypothesis, ascent_steps=ascent_steps, project_every=project_every, radius_quantile=0.6)
    for left, right in zip(case.fast(objective)[0], case.published(objective)[0], strict=True):
        assert left.total == pytest.approx(right.total, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        lambda o: replace(o, ascent_step_size=1.001 * o.ascent_step_size),
        lambda o: replace(o, ascent_steps=o.ascent_steps + 1),
        lambda o: replace(o, hard_quantile=0.52),
        lambda o: replace(o, radius_quantile=0.76, manifold_radii=(0.501, 1.0)),
    ],
    ids=["step size", "steps", "hard quantile", "radius"],
)
def test_the_comparison_notices_a_change(objective: Objective, change: Callable[[Objective], Objective]) -> None:
    """Negative control."""
    case = Case.draw(CONFIG, 2, (6, 6), 0.3)
    pairs = zip(case.fast(change(objective))[0], case.published(objective)[0], strict=True)
    assert max(abs(got.total - wanted.total) for got, wanted in pairs) > 1e-9


def test_running_means_of_the_first_step(objective: Objective) -> None:
    """Before the optimisers have moved a bias, the running means have nothing to be apart by."""
    case = Case.draw(CONFIG, 2, (6, 6), 0.3)
    wanted, got = (head(form(objective, n_steps=1)[1]) for form in (case.published, case.fast))
    name = "discriminator.body.block1.1.running_mean"
    torch.testing.assert_close(got[name], wanted[name], rtol=TOLERANCE, atol=TOLERANCE)


def test_features_in_both_branches_train_the_adaptor(objective: Objective) -> None:
    case = Case.draw(CONFIG, 2, (6, 6), 0.3)
    _, network = case.fast(objective)
    for name, value in head(network).items():
        assert not torch.equal(value, head(case.network)[name]), name


# What the paper has not


def test_jitter_is_noise_on_the_normal_features(objective: Objective) -> None:
    """The same as a normal feature that lies there: an adaptor that does nothing lets both be written down."""
    case = Case.draw(replace(CONFIG, adaptor_layers=0), 2, (6, 6), 0.3)
    jitter = 0.1 * torch.randn(72, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got = case.fast(objective, jitter=jitter)
    moved = case.network.embed(case.images["image"])[0] + jitter
    wanted = case.fast(objective, normal_embedding=moved)
    assert got[0] == wanted[0]
    assert got[0] != case.fast(objective)[0]
