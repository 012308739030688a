"""`edge-ad train --family cpr`: what it brings to a training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_ad.errors import ConfigError
from edge_ad.models.backbone import Backbone
from edge_ad.models.cpr.learned import chosen, learned
from edge_ad.models.cpr.network import Cpr, LocalBranch
from edge_ad.models.cpr.training.options import CprTrainOptions
from edge_ad.models.cpr.training.samples import Samples, nearest_others
from edge_ad.models.cpr.training.trainer import CprTrainer
from edge_ad.models.patch_head.features import FrozenTaps
from edge_ad.models.progress import Progress
from edge_ad.models.training.pictures import Foreground
from edge_ad.models.training.session import Material
from edge_ad.models.weights import backbone_state


@dataclass(frozen=True)
class Trunk:
    """A frozen backbone. Attributes: origin: of its weights."""

    backbone: Backbone
    origin: str


class CprRecipe:
    """Codebook, foreground and references of good pictures, and metric networks trained on pairs of them."""

    family = "cpr"

    def network(self, options: CprTrainOptions, progress: Progress, begun: Path | None) -> Trunk:
        backbone = Backbone(options.backbone, options.network.layers)
        weights = backbone_state(options.backbone, options.backbone_weights)
        backbone.load_weights(weights.tensors, weights.origin)
        for note in weights.notes:
            progress.say(f"note: {note}")
        return Trunk(backbone.eval().requires_grad_(False), weights.origin)

    def frozen(self, network: Trunk) -> dict[str, Any]:
        """None beside the checkpoint, which holds the backbone."""
        return {}

    def overlays(self, options: CprTrainOptions) -> bool:
        return options.metric and options.overlay_share > 0

    def foreground(self, options: CprTrainOptions) -> Foreground:
        return "none"  # its own, of the backbone's features

    def trainer(self, network: Trunk, material: Material[CprTrainOptions]) -> tuple[CprTrainer, dict[str, Any]]:
        options, progress = material.options, material.progress
        backbone = network.backbone.to(material.device).to(memory_format=torch.channels_last)
        progress.say(f"backbone {options.backbone}, weights: {network.origin}, on {material.device}")
        images = [picture.image_hwc for picture in material.pictures]
        progress.begin("codebook and foreground", 1)
        found = learned(backbone, images, options.preprocess, options.foreground, options.cache_mb * 1_000_000)
        progress.step(f"{found.taps.cached} of {len(images)} kept")
        for note in found.notes:
            progress.say(f"note: {note}")
        config = _fitting_config(options, len(images), progress)
        numbers = chosen(found.histogram, options.reference_count, config)
        each = material.pictures.per_sample
        names = tuple(material.pictures.samples[number // each].image.name for number in numbers)
        torch.manual_seed(options.seed)
        channels = [int(tap.shape[1]) for tap in found.taps.mean]
        lrb = LocalBranch(channels).to(memory_format=torch.channels_last) if options.metric else None
        kept = torch.from_numpy(np.stack([images[number] for number in numbers]))
        cpr = Cpr(config, backbone, lrb, found.centres, found.foreground, kept, names).to(material.device)
        grid_hw = int(found.taps.mean[0].shape[2]), int(found.taps.mean[0].shape[3])
        foreground = None
        if cpr.foreground is not None:
            parts = [cpr.foreground(taps[0]) for taps in found.taps.batches(options.batch)]
            foreground = torch.cat(parts).cpu().numpy()
        nearest = nearest_others(found.histogram, config)
        samples = Samples(images, foreground, nearest, grid_hw, material.textures, options)
        taps = FrozenTaps(backbone, options.preprocess, amp=False)
        trainer = CprTrainer(cpr, samples, found.taps, taps, material.labelled, options)
        facts = {
            "backbone_weights": network.origin,
            "references": len(numbers),
            "foreground": found.foreground is not None,
        }
        return trainer, facts


def _fitting_config(options: CprTrainOptions, images: int, progress: Progress) -> Any:
    """The configuration, with no more neighbours than there are references."""
    config, most = options.network, min(options.reference_count, images)
    if config.nearest <= most:
        return config
    if config.nearest != CprTrainOptions.nearest:
        raise ConfigError("nearest", [f"wanted at most {most}, the number of references, got {config.nearest}"])
    progress.say(f"note: {most} references are all that there are to compare with; {config.nearest} are usual")
    return replace(config, nearest=most)
