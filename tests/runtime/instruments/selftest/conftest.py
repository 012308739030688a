"""Engines of a few lines that are right, or wrong in one way each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edge_ad.bundle.specs import PostprocessSpec, contract
from edge_ad.engine import Engine, EngineSpec, Outputs
from edge_ad.image.operators import ResizeSmooth

SIZE = 48
PATCHES = 12
Fault = Callable[[Outputs], Outputs]


class SmallEngine(Engine):
    """Brightness of the patches, smoothed as GLASS does; then a fault, if there is one.

    Attributes:
        fault: what is done to the outputs.
        sizes: of the batches that were computed.
    """

    name = "small"

    def __init__(self, fault: Fault = lambda outputs: outputs, batch: int | None = None) -> None:
        image, outputs = contract(SIZE, SIZE, (PATCHES, PATCHES), batch)
        super().__init__(bytes, EngineSpec(image, outputs, "fp32", batch, "0" * 64))
        self.fault = fault
        self.sizes: list[int] = []

    def load_impl(self) -> None: ...

    def close_impl(self) -> None: ...

    def infer_impl(self, batch_nhwc: Any) -> Outputs:
        self.sizes.append(len(batch_nhwc))
        step = SIZE // PATCHES
        cells = batch_nhwc.reshape(len(batch_nhwc), PATCHES, step, PATCHES, step, 3)
        patch_map = (cells.mean(axis=(2, 4, 5)) / 255).astype(np.float32)
        return self.fault(outputs_of(patch_map))


def outputs_of(patch_map: Any, sigma: float = 4.0) -> Outputs:
    """What belongs to a patch map."""
    maps = ResizeSmooth(patch_map.shape[1:], (SIZE, SIZE), PostprocessSpec(sigma))(patch_map)
    return Outputs(patch_map, maps, maps.max(axis=(1, 2)))


@dataclass(frozen=True)
class Faults:
    """Each makes an engine wrong in one way."""

    wrong_tail: Fault
    shifted: Fault
    noisy: Fault
    scaled: Fault
    stuck: Fault


@pytest.fixture
def faults() -> Faults:
    rng = np.random.default_rng(3)

    def noisy(outputs: Outputs) -> Outputs:
        noise = rng.normal(0, 1e-3, outputs.patch_map.shape).astype(np.float32)
        return outputs_of(outputs.patch_map + noise)

    def stuck(outputs: Outputs) -> Outputs:
        """The first image's answer for all."""
        arrays = (outputs.patch_map, outputs.anomaly_map, outputs.pred_score)
        return Outputs(*(np.repeat(array[:1], len(array), axis=0) for array in arrays))

    return Faults(
        wrong_tail=lambda outputs: outputs_of(outputs.patch_map, sigma=3.9),
        shifted=lambda outputs: Outputs(outputs.patch_map, np.roll(outputs.anomaly_map, 1, axis=2), outputs.pred_score),
        noisy=noisy,
        scaled=lambda outputs: outputs_of(outputs.patch_map * np.float32(0.99)),
        stuck=stuck,
    )


@pytest.fixture
def postprocess() -> PostprocessSpec:
    return PostprocessSpec()


@pytest.fixture
def make_engine() -> type[SmallEngine]:
    return SmallEngine


@pytest.fixture
def frames() -> tuple[Any, ...]:
    """Frames with something to see in each, of several sizes."""
    rng = np.random.default_rng(1)
    found = []
    for height, width in ((SIZE, SIZE), (70, 90), (50, 49), (120, 61), (64, 64)):
        frame = np.repeat(np.repeat(rng.integers(0, 256, (10, 10, 3)), -(-height // 10), 0), -(-width // 10), 1)
        found.append(frame[:height, :width].astype(np.uint8))
    return tuple(found)
