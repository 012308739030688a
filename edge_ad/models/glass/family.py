"""GLASS as a model family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ad.bundle.graph.operators import ANY_BACKBONE
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.models.family import About, LoadedNetwork, ModelFamily
from edge_ad.models.glass.training.options import GlassTrainOptions
from edge_ad.models.patch_head.options import HeadOptions

if TYPE_CHECKING:
    from torch import nn

    from edge_ad.models.backbone import Backbone
    from edge_ad.models.glass.network import Glass
    from edge_ad.models.glass.training.train import GlassRecipe
    from edge_ad.models.references import References


class GlassFamily(ModelFamily):
    """Chen et al., ECCV 2024."""

    name = "glass"
    about = About(
        paper="Chen et al., ECCV 2024, arXiv 2407.09359",
        good_at="parts and textures; small defects; constant cost, whatever it was trained on",
        cost="16.5 GMAC (WideResNet50-2, 288²), 0.4 (MobileNetV2, 256²)",
        training="fast: a minute on two cores; paper: hours on a GPU",
        checkpoints="the authors' (discriminator, pre_projection), and the backbone's weights",
        licence="MIT",
    )
    network_options = HeadOptions
    train_options = GlassTrainOptions
    preprocess = PreprocessSpec(288, 288, resize=288)
    known_by = ("discriminator.tail.0.weight",)
    appearance = ("backbone",)
    takes_students = True
    operators = ANY_BACKBONE

    def faults(self, options: HeadOptions, faulty: set[str]) -> list[str]:
        from edge_ad.models.patch_head.checkpoint import option_faults

        return option_faults(options, faulty)

    def load(self, checkpoint: Path, options: HeadOptions, references: References) -> LoadedNetwork[Glass]:
        from edge_ad.models.glass.checkpoint import load_glass

        return load_glass(checkpoint, options)

    def recipe(self) -> GlassRecipe:
        from edge_ad.models.glass.training.train import GlassRecipe

        return GlassRecipe()

    def on_backbone(self, network: Glass, backbone: Backbone) -> Glass:
        from edge_ad.models.patch_head.checkpoint import on_backbone

        return on_backbone(network, backbone)

    def checkpoint(self, network: Glass) -> dict[str, Any]:
        from edge_ad.models.patch_head.checkpoint import head_parts

        return head_parts(network)

    def published(
        self, loaded: LoadedNetwork[Glass], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        return loaded.network

    def fast(self, loaded: LoadedNetwork[Glass], preprocess: PreprocessSpec, postprocess: PostprocessSpec) -> nn.Module:
        from edge_ad.models.patch_head.fold import FoldedHead

        return FoldedHead(loaded.network, preprocess.size_hw)


FAMILY = GlassFamily()
