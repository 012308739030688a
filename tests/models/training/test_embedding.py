"""Pooled embeddings against those of the published network, whitening, and the cache of frozen features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.models.backbone import Backbone
from edge_ad.models.glass.training.whitening import whiten
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.embedding import PooledEmbedding
from edge_ad.models.patch_head.features import FrozenTaps, TapCache, chunks
from edge_ad.models.patch_head.network import Adaptor, patch_embedding

RTOL = 2e-6  # float32 sums of some hundred terms


def taps_of(channels: list[int], sizes: list[tuple[int, int]], n: int = 2) -> list[Tensor]:
    source = torch.Generator().manual_seed(3)
    return [torch.randn(n, width, *hw, generator=source) for width, hw in zip(channels, sizes, strict=True)]


def published(config: HeadConfig, taps: list[Tensor]) -> Tensor:
    """Unfold, upsample, pool each tap, pool all: what the network itself does with these taps, in float64."""
    return patch_embedding([tap.double() for tap in taps], config)


def assert_same(config: HeadConfig, taps: list[Tensor]) -> None:
    got, wanted = PooledEmbedding(config, [tap.shape[1] for tap in taps])(taps), published(config, taps)
    assert got.shape == wanted.shape == (len(taps[0]) * taps[0].shape[2] * taps[0].shape[3], config.embed_dim)
    assert float((got.double() - wanted).abs().max()) <= RTOL * float(wanted.abs().max())


@pytest.mark.parametrize(
    ("pretrain", "embed"),
    [(48, 48), (64, 32), (97, 51), (51, 97), (1, 1), (700, 300), (96, 384), (100, 100)],
)
@pytest.mark.parametrize(
    ("channels", "sizes"),
    [
        ([16], [(6, 7)]),
        ([16, 36], [(8, 8), (4, 4)]),
        ([12, 30, 7], [(9, 7), (5, 4), (3, 2)]),
        ([8, 8], [(4, 4), (8, 8)]),
    ],
    ids=["one", "two", "three", "later finer"],
)
def test_pooled_embedding(channels: list[int], sizes: list[tuple[int, int]], pretrain: int, embed: int) -> None:
    config = HeadConfig("none", tuple("abc"[: len(channels)]), pretrain, embed)
    assert_same(config, taps_of(channels, sizes))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    channels=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    hw=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    pretrain=st.integers(1, 120),
    embed=st.integers(1, 120),
)
def test_any_pooled_embedding(channels: list[int], hw: tuple[int, int], pretrain: int, embed: int) -> None:
    sizes = [(max(1, hw[0] >> level), max(1, hw[1] >> level)) for level in range(len(channels))]
    config = HeadConfig("none", tuple("abc"[: len(channels)]), pretrain, embed)
    assert_same(config, taps_of(channels, sizes))


def test_a_changed_tap_is_noticed() -> None:
    """Negative control."""
    config, taps = HeadConfig("none", ("a", "b"), 48, 48), taps_of([16, 36], [(8, 8), (4, 4)])
    got = PooledEmbedding(config, [16, 36])(taps)
    taps[1][0, 35, 3, 3] += 1e-3
    wanted = published(config, taps)
    assert float((got.double() - wanted).abs().max()) > RTOL * float(wanted.abs().max())


# Whitening


def features(count: int, dim: int, seed: int = 0) -> Tensor:
    """Correlated, of very different spreads, far from zero."""
    source = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=source, dtype=torch.float64)
    spread = torch.logspace(0, -1.5, dim, dtype=torch.float64)
    drawn = torch.randn(count, dim, generator=source, dtype=torch.float64)
    return ((drawn * spread) @ mix + 3).float()


def test_whitened_features_have_mean_zero_and_covariance_one() -> None:
    x = features(900, 12)
    adaptor = Adaptor(12, 1).double()
    whiten(adaptor, iter(x.split(100)), ridge=0.0)
    with torch.no_grad():
        white = adaptor(x.double()).numpy()
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(12), atol=1e-8)


def test_whitening_with_a_ridge_is_that_of_the_formula() -> None:
    x = features(500, 7)
    adaptor = Adaptor(7, 1).double()
    whiten(adaptor, [x], ridge=0.3)
    wide = x.double().numpy()
    values, vectors = np.linalg.eigh(np.cov(wide.T, bias=True))
    wanted = vectors @ np.diag(1 / np.sqrt(values + 0.3 * values.mean())) @ vectors.T
    first = cast(nn.Linear, adaptor.layers[0])
    np.testing.assert_allclose(first.weight.detach().numpy(), wanted, atol=1e-10)
    np.testing.assert_allclose(first.bias.detach().numpy(), -wanted @ wide.mean(0), atol=1e-9)


def test_whitening_does_not_depend_on_the_batches() -> None:
    x = features(300, 6)
    weights = []
    for size in (300, 7):
        adaptor = Adaptor(6, 1).double()
        whiten(adaptor, x.split(size), ridge=0.1)
        weights.append(cast(nn.Linear, adaptor.layers[0]).weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-10, atol=1e-10)


def test_a_direction_without_spread_stays_finite_with_a_ridge() -> None:
    x = features(40, 6)
    x[:, 2] = 1.5
    adaptor = Adaptor(6, 1)
    whiten(adaptor, [x[:4]], ridge=0.1)  # fewer features than directions
    with torch.no_grad():
        assert float(adaptor(x).abs().max()) < 1e3


# Frozen features


class Counting:
    """A backbone's place: its taps are simple functions of the picture, and every picture is counted."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, images: Any) -> list[Tensor]:
        self.calls.append(len(images))
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
        return [batch, F.avg_pool2d(batch, 2)]


def pictures(count: int) -> list[Any]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))


PICTURE_BYTES = 4 * 3 * (64 + 16)  # of the taps of one picture above


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (3, 3), (5, 3), (6, 6), (7, 7), (100, 7)])
def test_cached_and_computed_taps_are_the_same(room: int, kept: int) -> None:
    taps, images = Counting(), pictures(7)
    cache = TapCache(cast(FrozenTaps, taps), images, 3, room * PICTURE_BYTES)
    assert cache.cached == kept
    everything = Counting()(images)
    for mean, all_of_it in zip(cache.mean, everything, strict=True):
        torch.testing.assert_close(mean, all_of_it.double().mean(0, keepdim=True).float())
    taps.calls.clear()
    others = pictures(9)[7:]
    own, augmented = cache.with_others([6, 0, 3, 0], others)
    assert taps.calls == [2 + sum(index >= kept for index in (6, 0, 3, 0))], "one batch, and nothing that is known"
    for got, wanted in zip(own, everything, strict=True):
        assert torch.equal(got, wanted[[6, 0, 3, 0]])
    for got, wanted in zip(augmented, Counting()(others), strict=True):
        assert torch.equal(got, wanted)
    for number, wanted in enumerate(everything):
        assert torch.equal(torch.cat([part[number] for part in cache.batches(3)]), wanted)
        assert torch.equal(torch.cat([part[number] for part in cache.batches(2)]), wanted)


def test_frozen_taps_are_those_of_the_backbone(deterministic_state: Callable[[Any], dict[str, Any]]) -> None:
    backbone = Backbone("resnet18", ("layer1", "layer2"))
    backbone.trunk.load_state_dict(deterministic_state(backbone.trunk.state_dict()))
    images = list(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))
    spec = PreprocessSpec(32, 32)
    taps = FrozenTaps(backbone.train(), spec, amp=True)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    got = taps(images)
    image = (np.stack(images) / 255.0 - np.array(spec.mean)) / np.array(spec.std)
    with torch.no_grad():
        wanted = backbone(torch.from_numpy(image.transpose(0, 3, 1, 2)).float())
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == torch.float32
        assert float((a - b).abs().max()) <= 1e-5 * float(b.abs().max())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items()), "it is not frozen"
    assert not any(value.requires_grad for value in backbone.parameters())


def test_chunks() -> None:
    assert [list(part) for part in chunks(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert chunks([], 3) == []
