"""`edge-ad train --family patchcore`: what it brings to a training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_ad.models.patch_head.frozen import load_backbone
from edge_ad.models.patchcore.embedding import embedding_dim
from edge_ad.models.patchcore.network import PatchCore
from edge_ad.models.patchcore.training.fit import BankFit
from edge_ad.models.patchcore.training.options import PatchCoreTrainOptions
from edge_ad.models.progress import Progress
from edge_ad.models.training.pictures import Foreground
from edge_ad.models.training.session import Material
from edge_ad.training_run import BACKBONE_FILE


@dataclass(frozen=True)
class Begun:
    """A network without a bank on its backbone's weights. Attributes: origin: of these."""

    network: PatchCore
    origin: str


class PatchCoreRecipe:
    """A bank is made of the frozen features of a backbone."""

    family = "patchcore"

    def network(self, options: PatchCoreTrainOptions, progress: Progress, begun: Path | None) -> Begun:
        network = PatchCore(options.network)
        origin = load_backbone(network.backbone, options, progress, begun)
        if options.embedding == "averaged":
            channels = [channels for channels, _, _ in network.backbone.shapes(*options.imgsz)]
            network.config = replace(network.config, embed_dim=embedding_dim(network.config, channels))
        return Begun(network.eval().requires_grad_(False), origin)

    def frozen(self, network: Begun) -> dict[str, Any]:
        return {BACKBONE_FILE: network.network.backbone.trunk.state_dict()}

    def overlays(self, options: PatchCoreTrainOptions) -> bool:
        return False

    def foreground(self, options: PatchCoreTrainOptions) -> Foreground:
        return "none"

    def trainer(self, network: Begun, material: Material[PatchCoreTrainOptions]) -> tuple[BankFit, dict[str, Any]]:
        material.progress.say(f"backbone {material.options.backbone}, weights: {network.origin}, on {material.device}")
        fit = BankFit(network.network.to(material.device), material)
        return fit, {"backbone_weights": network.origin, "patches": fit.patches, "entries": fit.entries}
