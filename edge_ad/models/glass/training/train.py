"""`edge-ad train` for GLASS: what it brings to a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edge_ad.errors import ConfigError
from edge_ad.image.frame import ImageArray
from edge_ad.models.backbone import backbone_faults
from edge_ad.models.family import Progress
from edge_ad.models.glass.config import Hypothesis
from edge_ad.models.glass.network import Glass
from edge_ad.models.glass.training.batches import Batches
from edge_ad.models.glass.training.embedding import PooledEmbedding
from edge_ad.models.glass.training.features import FrozenTaps, TapCache
from edge_ad.models.glass.training.hypothesis import choose_hypothesis
from edge_ad.models.glass.training.options import GlassTrainOptions
from edge_ad.models.glass.training.trainer import GlassTrainer
from edge_ad.models.glass.training.whitening import whiten
from edge_ad.models.training.pictures import Foreground, GoodPictures
from edge_ad.models.training.session import Material
from edge_ad.models.weights import backbone_state
from edge_ad.training_run import BACKBONE_FILE, STATE_FILE


def train_options(values: Mapping[str, Any], where: str) -> GlassTrainOptions:
    """Check options by name; None is the same as not given. Raises: ConfigError with every fault."""

    def network_faults(options: GlassTrainOptions, faulty: set[str]) -> list[str]:
        return [] if faulty & {"backbone", "layers"} else backbone_faults(options.backbone, options.layers)

    options: GlassTrainOptions = GlassTrainOptions.checked(values, where, faults_of=network_faults)
    return options


@dataclass(frozen=True)
class Begun:
    """A network on its backbone's weights. Attributes: origin: of these."""

    network: Glass
    origin: str


class GlassRecipe:
    """A head is trained on the frozen features of a backbone."""

    family = "glass"

    def network(self, options: GlassTrainOptions, progress: Progress, begun: Path | None) -> Begun:
        """A network whose head is drawn from the seed, on its backbone's weights."""
        torch.manual_seed(options.seed)
        network = Glass(options.network)
        of_run = begun is not None and (begun / STATE_FILE).exists()
        file = options.output / BACKBONE_FILE if of_run else options.backbone_weights
        weights = backbone_state(options.backbone, file)
        network.backbone.load_weights(weights.tensors, weights.origin)
        for note in weights.notes:
            progress.say(f"note: {note}")
        return Begun(network.eval(), weights.origin)

    def frozen(self, network: Begun) -> dict[str, Any]:
        return {BACKBONE_FILE: network.network.backbone.trunk.state_dict()}

    def overlays(self, options: GlassTrainOptions) -> bool:
        return options.overlay_share > 0

    def foreground(self, options: GlassTrainOptions) -> Foreground:
        return options.foreground

    def trainer(self, network: Begun, material: Material[GlassTrainOptions]) -> tuple[GlassTrainer, dict[str, Any]]:
        options, pictures, progress = material.options, material.pictures, material.progress
        glass = network.network.to(material.device)
        progress.say(f"backbone {options.backbone}, weights: {network.origin}, on {material.device}")
        taps = FrozenTaps(glass.backbone, options.preprocess, amp=options.amp)
        progress.begin("features of the good pictures", 1)
        cache = TapCache(taps, _Images(pictures), options.batch, options.cache_mb * 1_000_000)
        progress.step(f"{cache.cached} of {len(pictures)} kept")
        patch_hw = (int(cache.mean[0].shape[2]), int(cache.mean[0].shape[3]))
        if patch_hw == (1, 1):
            raise ConfigError(
                "imgsz", [f"one patch is all that {options.layers[0]!r} has of a picture; wanted a larger size"]
            )
        embedding = PooledEmbedding(glass.config, [int(tap.shape[1]) for tap in cache.mean]).to(material.device)
        if options.whiten is not None:
            whiten(glass.adaptor, (embedding(part) for part in cache.batches(options.batch)), options.whiten)
        glass.adaptor.requires_grad_(not options.freeze_adaptor)
        hypothesis = _hypothesis(options, pictures, progress)
        batches = Batches(pictures, material.textures, options, patch_hw)
        objective = options.objective(hypothesis)
        trainer = GlassTrainer(glass, embedding, taps, cache, batches, material.labelled, objective, options)
        return trainer, {"hypothesis": hypothesis, "backbone_weights": network.origin}


class _Images:
    """The images of pictures, by index."""

    def __init__(self, pictures: GoodPictures) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> ImageArray:
        return self._pictures[index].image_hwc


def _hypothesis(options: GlassTrainOptions, pictures: GoodPictures, progress: Progress) -> Hypothesis:
    if options.hypothesis != "auto":
        return options.hypothesis
    choice = choose_hypothesis(picture.image_hwc for picture in pictures)
    progress.say(f"hypothesis: {choice}")
    return choice.hypothesis
