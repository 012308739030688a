"""PatchCore as a model family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_ad.bundle.graph.operators import ANY_BACKBONE
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.models.family import About, LoadedNetwork, ModelFamily
from edge_ad.models.patchcore.options import PatchCoreOptions
from edge_ad.models.patchcore.specs import INPUT, OUTPUT, SCORES
from edge_ad.models.patchcore.training.options import PatchCoreTrainOptions

if TYPE_CHECKING:
    from torch import nn

    from edge_ad.models.patchcore.network import PatchCore
    from edge_ad.models.patchcore.training.train import PatchCoreRecipe
    from edge_ad.models.references import References


class PatchCoreFamily(ModelFamily):
    """Roth et al., CVPR 2022."""

    name = "patchcore"
    about = About(
        paper="Roth et al., CVPR 2022, arXiv 2106.08265",
        good_at="parts and textures; fitted in seconds, no training; a picture costs more the larger the bank",
        cost="9.2 GMAC (WideResNet50-2, 224²), 0.3 (MobileNetV2, 256²), and patches × entries × numbers",
        training="one pass: fast: seconds on two cores; paper: minutes",
        checkpoints="the authors' (.faiss) and our own, and the backbone's weights; anomalib's",
        licence="Apache-2.0",
    )
    network_options = PatchCoreOptions
    train_options = PatchCoreTrainOptions
    preprocess = INPUT
    postprocess = OUTPUT
    score_ranges = SCORES
    known_by = ("memory_bank",)
    known_by_bytes = (b"IxF",)
    bank = "search"
    operators = ANY_BACKBONE | {"GatherElements"}

    def faults(self, options: PatchCoreOptions, faulty: set[str]) -> list[str]:
        from edge_ad.models.patchcore.checkpoint import option_faults

        return option_faults(options, faulty)

    def load(self, checkpoint: Path, options: PatchCoreOptions, references: References) -> LoadedNetwork[PatchCore]:
        from edge_ad.models.patchcore.checkpoint import load_patchcore

        return load_patchcore(checkpoint, options, references.preprocess)

    def recipe(self) -> PatchCoreRecipe:
        from edge_ad.models.patchcore.training.train import PatchCoreRecipe

        return PatchCoreRecipe()

    def published(
        self, loaded: LoadedNetwork[PatchCore], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        from edge_ad.models.patchcore.network import Reweighted

        return Reweighted(loaded.network) if postprocess.score == "reweighted" else loaded.network

    def fast(
        self, loaded: LoadedNetwork[PatchCore], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        from edge_ad.models.patchcore.fold import FoldedPatchCore

        return FoldedPatchCore(loaded.network, preprocess.size_hw, postprocess)


FAMILY = PatchCoreFamily()
