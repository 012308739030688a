"""`edge-ad train --family simplenet`: what it brings to a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_ad.models.patch_head.frozen import Begun, begin, frozen_features
from edge_ad.models.progress import Progress
from edge_ad.models.simplenet.network import SimpleNet
from edge_ad.models.simplenet.training.options import SimpleNetTrainOptions
from edge_ad.models.simplenet.training.trainer import SimpleNetTrainer
from edge_ad.models.training.pictures import Foreground
from edge_ad.models.training.session import Material


class SimpleNetRecipe:
    """A head is trained on the frozen features of a backbone, against noise on them."""

    family = "simplenet"

    def network(self, options: SimpleNetTrainOptions, progress: Progress, begun: Path | None) -> Begun[SimpleNet]:
        return begin(SimpleNet, options, progress, begun)

    def frozen(self, network: Begun[SimpleNet]) -> dict[str, Any]:
        return network.frozen

    def overlays(self, options: SimpleNetTrainOptions) -> bool:
        return False

    def foreground(self, options: SimpleNetTrainOptions) -> Foreground:
        return "none"

    def trainer(
        self, network: Begun[SimpleNet], material: Material[SimpleNetTrainOptions]
    ) -> tuple[SimpleNetTrainer, dict[str, Any]]:
        options, pictures = material.options, material.pictures
        features = frozen_features(network, options, pictures, material.device, material.progress)
        trainer = SimpleNetTrainer(network.network, features, len(pictures), material.labelled, options)
        return trainer, {"backbone_weights": network.origin}
