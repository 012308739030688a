"""SimpleNet as a model family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ad.bundle.graph.operators import ANY_BACKBONE
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.models.family import About, LoadedNetwork, ModelFamily
from edge_ad.models.patch_head.options import HeadOptions
from edge_ad.models.simplenet.specs import INPUT, OUTPUT
from edge_ad.models.simplenet.training.options import SimpleNetTrainOptions

if TYPE_CHECKING:
    from torch import nn

    from edge_ad.models.backbone import Backbone
    from edge_ad.models.references import References
    from edge_ad.models.simplenet.network import SimpleNet
    from edge_ad.models.simplenet.training.train import SimpleNetRecipe


class SimpleNetFamily(ModelFamily):
    """Liu et al., CVPR 2023."""

    name = "simplenet"
    about = About(
        paper="Liu et al., CVPR 2023, arXiv 2303.15140",
        good_at="parts and textures; scores without bounds",
        cost="16.5 GMAC (WideResNet50-2, 288²), 0.4 (MobileNetV2, 256²)",
        training="fast: half a minute on two cores; paper: hours on a GPU",
        checkpoints="the authors' (discriminator, pre_projection), and the backbone's weights",
        licence="MIT",
    )
    network_options = HeadOptions
    train_options = SimpleNetTrainOptions
    preprocess = INPUT
    postprocess = OUTPUT
    known_by = ("discriminator.tail.weight",)
    appearance = ("backbone",)
    takes_students = True
    operators = ANY_BACKBONE

    def faults(self, options: HeadOptions, faulty: set[str]) -> list[str]:
        from edge_ad.models.patch_head.checkpoint import option_faults

        return option_faults(options, faulty)

    def load(self, checkpoint: Path, options: HeadOptions, references: References) -> LoadedNetwork[SimpleNet]:
        from edge_ad.models.patch_head.checkpoint import load_head
        from edge_ad.models.simplenet.network import SimpleNet

        return load_head(checkpoint, options, SimpleNet)

    def recipe(self) -> SimpleNetRecipe:
        from edge_ad.models.simplenet.training.train import SimpleNetRecipe

        return SimpleNetRecipe()

    def on_backbone(self, network: SimpleNet, backbone: Backbone) -> SimpleNet:
        from edge_ad.models.patch_head.checkpoint import on_backbone

        return on_backbone(network, backbone)

    def checkpoint(self, network: SimpleNet) -> dict[str, Any]:
        from edge_ad.models.patch_head.checkpoint import head_parts

        return head_parts(network)

    def published(
        self, loaded: LoadedNetwork[SimpleNet], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        return loaded.network

    def fast(
        self, loaded: LoadedNetwork[SimpleNet], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        from edge_ad.models.patch_head.fold import FoldedHead

        return FoldedHead(loaded.network, preprocess.size_hw)


FAMILY = SimpleNetFamily()
