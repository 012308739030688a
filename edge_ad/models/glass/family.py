"""GLASS as a model family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.models.backbone import backbone_faults
from edge_ad.models.contract import ContractModule
from edge_ad.models.family import LoadedNetwork, NetworkOptions, Progress
from edge_ad.models.glass.checkpoint import load_glass
from edge_ad.models.glass.config import GlassConfig
from edge_ad.models.glass.fold import FoldedGlass
from edge_ad.models.glass.network import Glass
from edge_ad.training_run import RunRecord


class GlassFamily:
    """Chen et al., ECCV 2024."""

    name = "glass"

    def faults(self, options: NetworkOptions) -> list[str]:
        layers = GlassConfig.layers if options.layers is None else options.layers
        return backbone_faults(options.backbone or GlassConfig.backbone, layers)

    def load(self, checkpoint: Path, options: NetworkOptions) -> LoadedNetwork[Glass]:
        return load_glass(checkpoint, options)

    def train(
        self, values: Mapping[str, Any], where: str, progress: Progress, *, resume: bool = False, force: bool = False
    ) -> RunRecord:
        from edge_ad.models.glass.training.train import GlassRecipe, train_options
        from edge_ad.models.training.session import train

        return train(GlassRecipe(), train_options(values, where), progress, resume=resume, force=force)

    def reference_module(
        self, loaded: LoadedNetwork[Glass], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        patch_hw = loaded.network.backbone.shapes(*preprocess.size_hw)[0][1:]
        return ContractModule(loaded.network, patch_hw, preprocess, postprocess).eval()

    def export_module(
        self, loaded: LoadedNetwork[Glass], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        folded = FoldedGlass(loaded.network, preprocess.size_hw)
        return ContractModule(folded, folded.patch_hw, preprocess, postprocess).eval()


FAMILY = GlassFamily()
