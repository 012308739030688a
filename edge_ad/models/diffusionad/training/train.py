"""`edge-ad train --family diffusionad`: what it brings to a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edge_ad.models.diffusionad.config import BLIND
from edge_ad.models.diffusionad.network import DiffusionAd, initialise
from edge_ad.models.diffusionad.training.options import DiffusionAdTrainOptions
from edge_ad.models.diffusionad.training.samples import Samples
from edge_ad.models.diffusionad.training.trainer import DiffusionAdTrainer
from edge_ad.models.progress import Progress
from edge_ad.models.training.overlaid import millions
from edge_ad.models.training.pictures import Foreground
from edge_ad.models.training.session import Material


class DiffusionAdRecipe:
    """Two networks from nothing but good pictures, textures and noise."""

    family = "diffusionad"

    def network(self, options: DiffusionAdTrainOptions, progress: Progress, begun: Path | None) -> DiffusionAd:
        """Both networks, drawn from the seed."""
        if options.network.blind:
            progress.say(f"warning: {BLIND}; give fewer --groups or more --base-channels")
        torch.manual_seed(options.seed)
        network = DiffusionAd(options.network)
        initialise(network)
        return network

    def frozen(self, network: DiffusionAd) -> dict[str, Any]:
        return {}

    def overlays(self, options: DiffusionAdTrainOptions) -> bool:
        return options.clean_share < 1

    def foreground(self, options: DiffusionAdTrainOptions) -> Foreground:
        return options.foreground

    def trainer(
        self, network: DiffusionAd, material: Material[DiffusionAdTrainOptions]
    ) -> tuple[DiffusionAdTrainer, dict[str, Any]]:
        options = material.options
        network.to(material.device).to(memory_format=torch.channels_last)
        material.progress.say(f"two networks of {millions(network):.1f} million weights, on {material.device}")
        samples = Samples(material.pictures, material.textures, options)
        return DiffusionAdTrainer(network, samples, material.labelled, options), {}
