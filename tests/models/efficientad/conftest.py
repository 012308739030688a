"""Small networks with drawn weights in every form of file, and a few pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import drawn
from PIL import Image

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.models.efficientad.config import EfficientAdConfig, PdnSize
from edge_ad.models.efficientad.network import EfficientAd
from edge_ad.models.efficientad.specs import INPUT
from edge_ad.models.references import References


def _made(size: PdnSize = "small", map_padding: Any = "after") -> EfficientAd:
    """Tiny widths that are all different; statistics are set."""
    network = EfficientAd(EfficientAdConfig(size, width=4, channels=6, autoencoder_width=3), map_padding).eval()
    network.load_state_dict(drawn(network.state_dict()))
    rng = np.random.default_rng(2)
    network.mean.copy_(torch.from_numpy(rng.normal(0, 0.5, 6)))
    network.std.copy_(torch.from_numpy(rng.uniform(0.5, 2, 6)))
    network.quantiles.copy_(torch.tensor([0.4, 2.0, 0.1, 0.8]))
    return network.requires_grad_(False)


@pytest.fixture(scope="session")
def make() -> Callable[..., EfficientAd]:
    """Networks by size and padding of the map."""
    return _made


@pytest.fixture(scope="session")
def small() -> EfficientAd:
    """Do not change it."""
    return _made()


@pytest.fixture(scope="session")
def medium() -> EfficientAd:
    """Do not change it."""
    return _made("medium")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good ones, none of the model's size, and not all of one size. Do not change them."""
    folder, rng = tmp_path_factory.mktemp("good"), np.random.default_rng(4)
    for number, shape in enumerate(((40, 56, 3), (40, 56, 3), (64, 32, 3))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def references(pictures: Path) -> Callable[..., References]:
    def of(folder: Path | None = pictures, preprocess: PreprocessSpec = INPUT) -> References:
        return References(folder, preprocess)

    return of


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[EfficientAd], Path]:
    """The three state dicts as nelson1425's training leaves its modules."""

    def write(network: EfficientAd, ending: str = "_final.pth") -> Path:
        for part in ("teacher", "student", "autoencoder"):
            torch.save(network.get_submodule(part).state_dict(), tmp_path / f"{part}{ending}")
        return tmp_path

    return write
