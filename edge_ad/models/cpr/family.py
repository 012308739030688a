"""CPR as a model family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_ad.bundle.graph.operators import ANY_BACKBONE
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.models.cpr.config import CprConfig
from edge_ad.models.cpr.options import CprOptions, layer_faults
from edge_ad.models.cpr.specs import INPUT, OUTPUT
from edge_ad.models.cpr.training.options import CprTrainOptions
from edge_ad.models.family import About, LoadedNetwork, ModelFamily

if TYPE_CHECKING:
    from torch import nn

    from edge_ad.models.cpr.network import Cpr
    from edge_ad.models.cpr.training.train import CprRecipe
    from edge_ad.models.references import References


class CprFamily(ModelFamily):
    """Li et al., IEEE TIP 2024."""

    name = "cpr"
    about = About(
        paper="Li et al., IEEE TIP 33 (2024), arXiv 2308.06748",
        good_at="parts that lie alike in every picture, textures; no training where taps are enough; large files",
        cost="6.3 GMAC (DenseNet201, 320²), 2.0 (MobileNetV2, 320²)",
        training="none with --no-metric; fast: 3 minutes on two cores; paper: 40 000 steps, on a GPU",
        checkpoints="the authors' with the training pictures beside it, our own file",
        licence="MIT",
    )
    network_options = CprOptions
    train_options = CprTrainOptions
    preprocess = INPUT
    postprocess = OUTPUT
    untiled = "it compares whole pictures"
    rounding_unit = 1.0  # distances are 1 - cosine
    operators = ANY_BACKBONE | {"Log"}  # of the shares of histograms
    known_by = ("lrb.conv.0.0.weight", "grb.centers")

    def faults(self, options: CprOptions, faulty: set[str]) -> list[str]:
        from edge_ad.models.backbone import backbone_faults

        if faulty & {"backbone", "layers"}:
            return []
        if options.backbone is None and options.layers is None:
            return []  # the checkpoint's
        backbone = options.backbone or CprConfig.backbone
        found = layer_faults(options.layers, backbone)
        return found or (backbone_faults(backbone, options.layers) if options.backbone and options.layers else [])

    def load(self, checkpoint: Path, options: CprOptions, references: References) -> LoadedNetwork[Cpr]:
        from edge_ad.models.cpr.checkpoint import load_cpr

        return load_cpr(checkpoint, options, references)

    def recipe(self) -> CprRecipe:
        from edge_ad.models.cpr.training.train import CprRecipe

        return CprRecipe()

    def published(
        self, loaded: LoadedNetwork[Cpr], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        from edge_ad.models.cpr.fast import FastCpr
        from edge_ad.models.cpr.published import PublishedCpr

        network = loaded.network
        bank = None if network.bank == "float32" else FastCpr(network, preprocess, postprocess).bank()
        return PublishedCpr(network, preprocess, postprocess, bank)

    def fast(self, loaded: LoadedNetwork[Cpr], preprocess: PreprocessSpec, postprocess: PostprocessSpec) -> nn.Module:
        from edge_ad.models.cpr.fast import FastCpr

        return FastCpr(loaded.network, preprocess, postprocess)


FAMILY = CprFamily()
