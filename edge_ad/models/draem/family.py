"""DRAEM as a model family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.models.draem.config import MULTIPLE
from edge_ad.models.draem.options import DraemOptions
from edge_ad.models.draem.specs import INPUT, OUTPUT
from edge_ad.models.draem.training.options import DraemTrainOptions
from edge_ad.models.family import About, LoadedNetwork, ModelFamily

if TYPE_CHECKING:
    from torch import nn

    from edge_ad.models.draem.network import Draem
    from edge_ad.models.draem.training.train import DraemRecipe
    from edge_ad.models.references import References


class DraemFamily(ModelFamily):
    """Zavrtanik et al., ICCV 2021."""

    name = "draem"
    about = About(
        paper="Zavrtanik et al., ICCV 2021, arXiv 2108.07610",
        good_at="defects that a texture can imitate, sharp at the pixel; needs no pretrained weights",
        cost="198 GMAC (256², published widths), 1.2 (128², fast)",
        training="fast: 8 minutes on two cores; paper: 700 epochs on a GPU",
        checkpoints="the authors' pair, our own file, anomalib's (converted)",
        licence="MIT",
    )
    network_options = DraemOptions
    train_options = DraemTrainOptions
    preprocess = INPUT
    postprocess = OUTPUT
    known_by = ("encoder.block1.0.weight", "encoder_segment.block1.0.weight")
    multiple = MULTIPLE
    appearance = ("segmentation.encoder_segment.block3",)

    def load(self, checkpoint: Path, options: DraemOptions, references: References) -> LoadedNetwork[Draem]:
        from edge_ad.models.draem.checkpoint import load_draem

        return load_draem(checkpoint, options)

    def recipe(self) -> DraemRecipe:
        from edge_ad.models.draem.training.train import DraemRecipe

        return DraemRecipe()

    def published(
        self, loaded: LoadedNetwork[Draem], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        from edge_ad.models.draem.fold import PublishedDraem

        return PublishedDraem(loaded.network, loaded.config["color_order"])

    def fast(self, loaded: LoadedNetwork[Draem], preprocess: PreprocessSpec, postprocess: PostprocessSpec) -> nn.Module:
        from edge_ad.models.draem.fold import FoldedDraem

        return FoldedDraem(loaded.network, loaded.config["color_order"])


FAMILY = DraemFamily()
