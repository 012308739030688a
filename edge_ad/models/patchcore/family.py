"""PatchCore as a model family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ad.bundle.graph.operators import ANY_BACKBONE
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.models.family import About, LoadedNetwork, ModelFamily
from edge_ad.models.patchcore.options import PatchCoreOptions
from edge_ad.models.patchcore.specs import INPUT, OUTPUT, SCORES
from edge_ad.models.patchcore.training.options import PatchCoreTrainOptions

if TYPE_CHECKING:
    from torch import nn

    from edge_ad.bundle.tiles import TileGrid
    from edge_ad.models.backbone import Backbone
    from edge_ad.models.patchcore.network import PatchCore
    from edge_ad.models.patchcore.training.train import PatchCoreRecipe
    from edge_ad.models.references import References
    from edge_ad.models.training.session import Material


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
    takes_students = True
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

    def on_backbone(self, network: PatchCore, backbone: Backbone) -> PatchCore:
        from edge_ad.models.patchcore.checkpoint import on_backbone

        return on_backbone(network, backbone)

    def refit(self, network: PatchCore, told: Mapping[str, Any], material: Material[Any]) -> None:
        """A bank of the new features, chosen as the old one was: the old one, kept, was far from them all."""
        from edge_ad.models.patchcore.training.fit import refit

        refit(network, told, material)

    def checkpoint(self, network: PatchCore) -> dict[str, Any]:
        from edge_ad.models.patchcore.checkpoint import checkpoint_parts

        return checkpoint_parts(network)

    def on_canvas(
        self, loaded: LoadedNetwork[PatchCore], preprocess: PreprocessSpec, tiles: TileGrid | None
    ) -> LoadedNetwork[PatchCore]:
        loaded.network.lie_on(preprocess.size_hw, tiles)
        return loaded

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
