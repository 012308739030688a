"""`edge-ad train --family draem`: what it brings to a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edge_ad.models.draem.network import Draem, initialise
from edge_ad.models.draem.training.options import DraemTrainOptions
from edge_ad.models.draem.training.samples import Samples
from edge_ad.models.draem.training.trainer import DraemTrainer
from edge_ad.models.progress import Progress
from edge_ad.models.training.overlaid import millions
from edge_ad.models.training.pictures import Foreground
from edge_ad.models.training.session import Material


class DraemRecipe:
    """Two networks from nothing but good pictures and textures."""

    family = "draem"

    def network(self, options: DraemTrainOptions, progress: Progress, begun: Path | None) -> Draem:
        """Both networks, drawn from the seed."""
        torch.manual_seed(options.seed)
        network = Draem(options.network)
        initialise(network, torch.Generator().manual_seed(options.seed))
        return network

    def frozen(self, network: Draem) -> dict[str, Any]:
        return {}

    def overlays(self, options: DraemTrainOptions) -> bool:
        return options.clean_share < 1

    def foreground(self, options: DraemTrainOptions) -> Foreground:
        return "none"

    def trainer(self, network: Draem, material: Material[DraemTrainOptions]) -> tuple[DraemTrainer, dict[str, Any]]:
        options = material.options
        network.to(material.device).to(memory_format=torch.channels_last)
        material.progress.say(f"two networks of {millions(network):.1f} million weights, on {material.device}")
        samples = Samples(material.pictures, material.textures, options)
        return DraemTrainer(network, samples, material.labelled, options), {}
