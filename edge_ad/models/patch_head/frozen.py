"""What a head is trained on: a network on its backbone's weights, and the features of the good pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.errors import ConfigError
from edge_ad.image.frame import ImageArray
from edge_ad.models.backbone import Backbone
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.embedding import PooledEmbedding
from edge_ad.models.patch_head.features import FrozenTaps, TapCache
from edge_ad.models.patch_head.network import PatchHead
from edge_ad.models.progress import Progress
from edge_ad.models.training.pictures import GoodPictures
from edge_ad.models.weights import backbone_state
from edge_ad.training_run import BACKBONE_FILE, STATE_FILE

HeadT = TypeVar("HeadT", bound=PatchHead)


class BackboneTraining(Protocol):
    """Options of everything that is trained on a frozen backbone."""

    @property
    def output(self) -> Path: ...
    @property
    def backbone(self) -> str: ...
    @property
    def backbone_weights(self) -> Path | None: ...
    @property
    def layers(self) -> tuple[str, ...]: ...


class HeadTraining(BackboneTraining, Protocol):
    """Options that the training of every head has."""

    @property
    def seed(self) -> int: ...
    @property
    def network(self) -> HeadConfig: ...
    @property
    def preprocess(self) -> PreprocessSpec: ...
    @property
    def amp(self) -> bool: ...
    @property
    def batch(self) -> int: ...
    @property
    def cache_mb(self) -> int: ...


@dataclass(frozen=True)
class Begun(Generic[HeadT]):
    """A network on its backbone's weights. Attributes: origin: of these."""

    network: HeadT
    origin: str

    @property
    def frozen(self) -> dict[str, Any]:
        """Weights that training does not change, by the file that keeps them."""
        return {BACKBONE_FILE: self.network.backbone.trunk.state_dict()}


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of the good pictures, computed once as far as memory goes.

    Attributes:
        patch_hw: size of the patch map.
    """

    embedding: PooledEmbedding
    taps: FrozenTaps
    cache: TapCache
    patch_hw: tuple[int, int]


def begin(kind: type[HeadT], options: HeadTraining, progress: Progress, begun: Path | None) -> Begun[HeadT]:
    """A network whose head is drawn from the seed, on its backbone's weights.

    Args:
        begun: folder of the run that is gone on with; its backbone is taken.
    """
    torch.manual_seed(options.seed)
    network = kind(options.network)
    origin = load_backbone(network.backbone, options, progress, begun)
    return Begun(network.eval(), origin)


def load_backbone(backbone: Backbone, options: BackboneTraining, progress: Progress, begun: Path | None) -> str:
    """Give a backbone its weights. Args: begun: see `begin`. Returns: where they came from."""
    of_run = begun is not None and (begun / STATE_FILE).exists()
    file = options.output / BACKBONE_FILE if of_run else options.backbone_weights
    weights = backbone_state(options.backbone, file)
    backbone.load_weights(weights.tensors, weights.origin)
    for note in weights.notes:
        progress.say(f"note: {note}")
    return weights.origin


def frozen_features(
    begun: Begun[HeadT], options: HeadTraining, pictures: GoodPictures, device: torch.device, progress: Progress
) -> FrozenFeatures:
    """Features of the good pictures; the network is moved to the device. Raises: ConfigError for a single patch."""
    network = begun.network.to(device)
    progress.say(f"backbone {options.backbone}, weights: {begun.origin}, on {device}")
    taps = FrozenTaps(network.backbone, options.preprocess, amp=options.amp)
    progress.begin("features of the good pictures", 1)
    cache = TapCache(taps, _Images(pictures), options.batch, options.cache_mb * 1_000_000)
    progress.step(f"{cache.cached} of {len(pictures)} kept")
    patch_hw = (int(cache.mean[0].shape[2]), int(cache.mean[0].shape[3]))
    if patch_hw == (1, 1):
        raise ConfigError(
            "imgsz", [f"one patch is all that {options.layers[0]!r} has of a picture; wanted a larger size"]
        )
    embedding = PooledEmbedding(network.config, [int(tap.shape[1]) for tap in cache.mean]).to(device)
    return FrozenFeatures(embedding, taps, cache, patch_hw)


class _Images:
    """The images of pictures, by index."""

    def __init__(self, pictures: GoodPictures) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> ImageArray:
        return self._pictures[index].image_hwc
