"""`edge-ad train` for GLASS: what it brings to a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_ad.models.glass.config import Hypothesis
from edge_ad.models.glass.network import Glass
from edge_ad.models.glass.training.batches import Batches
from edge_ad.models.glass.training.hypothesis import choose_hypothesis
from edge_ad.models.glass.training.options import GlassTrainOptions
from edge_ad.models.glass.training.trainer import GlassTrainer
from edge_ad.models.glass.training.whitening import whiten
from edge_ad.models.patch_head.frozen import Begun, begin, frozen_features
from edge_ad.models.progress import Progress
from edge_ad.models.training.pictures import Foreground, GoodPictures
from edge_ad.models.training.session import Material


class GlassRecipe:
    """A head is trained on the frozen features of a backbone."""

    family = "glass"

    def network(self, options: GlassTrainOptions, progress: Progress, begun: Path | None) -> Begun[Glass]:
        return begin(Glass, options, progress, begun)

    def frozen(self, network: Begun[Glass]) -> dict[str, Any]:
        return network.frozen

    def overlays(self, options: GlassTrainOptions) -> bool:
        return options.overlay_share > 0

    def foreground(self, options: GlassTrainOptions) -> Foreground:
        return options.foreground

    def trainer(
        self, network: Begun[Glass], material: Material[GlassTrainOptions]
    ) -> tuple[GlassTrainer, dict[str, Any]]:
        options, pictures, progress, glass = material.options, material.pictures, material.progress, network.network
        features = frozen_features(network, options, pictures, material.device, progress)
        if options.whiten is not None:
            parts = features.cache.batches(options.batch)
            whiten(glass.adaptor, (features.embedding(part) for part in parts), options.whiten)
        glass.adaptor.requires_grad_(not options.freeze_adaptor)
        hypothesis = _hypothesis(options, pictures, progress)
        batches = Batches(pictures, material.textures, options, features.patch_hw)
        objective = options.objective(hypothesis)
        trainer = GlassTrainer(glass, features, batches, material.labelled, objective, options)
        return trainer, {"hypothesis": hypothesis, "backbone_weights": network.origin}


def _hypothesis(options: GlassTrainOptions, pictures: GoodPictures, progress: Progress) -> Hypothesis:
    if options.hypothesis != "auto":
        return options.hypothesis
    choice = choose_hypothesis(picture.image_hwc for picture in pictures)
    progress.say(f"hypothesis: {choice}")
    return choice.hypothesis
