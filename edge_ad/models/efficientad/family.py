"""EfficientAD as a model family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.models.efficientad.config import BORDER, MULTIPLE, side_faults
from edge_ad.models.efficientad.options import EfficientAdOptions
from edge_ad.models.efficientad.specs import INPUT, OUTPUT
from edge_ad.models.efficientad.training.options import EfficientAdTrainOptions
from edge_ad.models.family import About, LoadedNetwork, ModelFamily

if TYPE_CHECKING:
    from torch import nn

    from edge_ad.models.efficientad.network import EfficientAd
    from edge_ad.models.efficientad.training.train import EfficientAdRecipe
    from edge_ad.models.references import References


class EfficientAdFamily(ModelFamily):
    """Batzner et al., WACV 2024."""

    name = "efficientad"
    about = About(
        paper="Batzner et al., WACV 2024, arXiv 2303.14535",
        good_at="small defects, and parts that are missing or misplaced; scores without bounds",
        cost="38 GMAC (S, 256²), 117 (M, 256²)",
        training="needs a teacher file; fast: 4 minutes on two cores (S), 13 (M); paper: 70,000 steps on a GPU",
        checkpoints="state dicts of nelson1425's three networks (with --references), our own file, anomalib's",
        licence="Apache-2.0 (code of others)",
    )
    network_options = EfficientAdOptions
    train_options = EfficientAdTrainOptions
    preprocess = INPUT
    postprocess = OUTPUT
    known_by = ("autoencoder.38.weight", "quantiles.qa_st")
    multiple = MULTIPLE
    border = BORDER
    appearance = ("teacher",)

    def size_faults(self, size_hw: tuple[int, int]) -> list[str]:
        return side_faults(size_hw)

    def load(self, checkpoint: Path, options: EfficientAdOptions, references: References) -> LoadedNetwork[EfficientAd]:
        from edge_ad.models.efficientad.checkpoint import load_efficientad

        return load_efficientad(checkpoint, options, references)

    def recipe(self) -> EfficientAdRecipe:
        from edge_ad.models.efficientad.training.train import EfficientAdRecipe

        return EfficientAdRecipe()

    def published(
        self, loaded: LoadedNetwork[EfficientAd], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        return loaded.network

    def fast(
        self, loaded: LoadedNetwork[EfficientAd], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        from edge_ad.models.efficientad.fold import FoldedEfficientAd

        return FoldedEfficientAd(loaded.network, preprocess.size_hw)


FAMILY = EfficientAdFamily()
