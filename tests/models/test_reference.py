"""The reference network against the published algorithm written out in NumPy, patch by patch, in float64.

The golden files have two taps, sizes that divide and pictures of whole strides; this covers the rest. From the taps to
the logits nothing of the package is used. Tolerance 2e-5 of a probability, as for the golden files: the reference
computes in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from edge_ad.models.glass.network import Glass
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.fold import FoldedHead

TOLERANCE = 2e-5


def neighbourhoods(feature: np.ndarray) -> np.ndarray:
    """(C, h, w) → (C · 9, h, w): the 3×3 neighbourhood of every position, zeros outside, channel first."""
    channels, rows, columns = feature.shape
    padded = np.pad(feature, ((0, 0), (1, 1), (1, 1)))
    out = np.empty((channels, 3, 3, rows, columns))
    for i in range(3):
        for j in range(3):
            out[:, i, j] = padded[:, i : i + rows, j : j + columns]
    return out.reshape(channels * 9, rows, columns)


def bilinear(values: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """(C, h, w) → (C, H, W), half-pixel centres, no antialias."""
    for axis, n_out in ((1, size_hw[0]), (2, size_hw[1])):
        n_in = values.shape[axis]
        at = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, n_in - 1)
        shape = [1, 1, 1]
        shape[axis] = n_out
        share = (at - low).reshape(shape)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values


def pooled(vector: np.ndarray, n_out: int) -> np.ndarray:
    """Adaptive average pooling of one vector: window k is from floor(k·n/m) to ceil((k+1)·n/m)."""
    n_in = len(vector)
    return np.array([vector[k * n_in // n_out : -(-(k + 1) * n_in // n_out)].mean() for k in range(n_out)])


def published_logits(model: Glass, features: list[np.ndarray]) -> np.ndarray:
    """(h, w) logits from the taps' features, each (C_i, h_i, w_i) float64."""
    config = model.config
    size_hw = features[0].shape[1:]
    stacks = [bilinear(neighbourhoods(feature), size_hw) for feature in features]
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items() if "backbone" not in name}
    logits = np.empty(size_hw)
    for position in np.ndindex(*size_hw):
        taps = [pooled(stack[(slice(None), *position)], config.pretrain_embed_dim) for stack in stacks]
        vector = pooled(np.concatenate(taps), config.embed_dim)
        vector = weights["adaptor.layers.0fc.weight"] @ vector + weights["adaptor.layers.0fc.bias"]
        block = "discriminator.body.block1"
        vector = weights[f"{block}.0.weight"] @ vector + weights[f"{block}.0.bias"]
        vector = (vector - weights[f"{block}.1.running_mean"]) / np.sqrt(weights[f"{block}.1.running_var"] + 1e-5)
        vector = vector * weights[f"{block}.1.weight"] + weights[f"{block}.1.bias"]
        vector = np.where(vector > 0, vector, 0.2 * vector)
        logits[position] = (weights["discriminator.tail.0.weight"] @ vector)[0]
    return logits


@pytest.mark.parametrize(
    ("layers", "size_hw", "pretrain", "embed"),
    [
        pytest.param(("layer2", "layer3"), (64, 64), 97, 51, id="sizes that do not divide"),
        pytest.param(("layer1", "layer2", "layer3"), (64, 96), 96, 64, id="three taps"),
        pytest.param(("layer2", "layer3"), (70, 101), 48, 48, id="no multiple of the stride"),
        pytest.param(
            ("layer2", "layer1", "layer4"), (65, 90), 700, 131, id="all of it, a finer tap behind a coarser one"
        ),
    ],
)
def test_reference_and_fold_are_the_published_algorithm(
    deterministic_state: Callable[[Any], dict[str, Any]],
    layers: tuple[str, ...],
    size_hw: tuple[int, int],
    pretrain: int,
    embed: int,
) -> None:
    model = Glass(HeadConfig("resnet18", layers, pretrain, embed, 32)).eval().requires_grad_(False)
    for part in (model.backbone.trunk, model.adaptor, model.discriminator):
        part.load_state_dict(deterministic_state(part.state_dict()))
    image = torch.randn(1, 3, *size_hw, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = [feature[0].double().numpy() for feature in model.backbone(image)]
        reference = torch.sigmoid(model(image))[0].numpy()
        folded = torch.sigmoid(FoldedHead(model, size_hw).eval()(image))[0].numpy()
    published = 1 / (1 + np.exp(-published_logits(model, features)))
    assert np.ptp(published) > 100 * TOLERANCE
    assert np.abs(reference - published).max() <= TOLERANCE
    assert np.abs(folded - published).max() <= TOLERANCE
