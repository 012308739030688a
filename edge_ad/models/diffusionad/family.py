"""DiffusionAD as a model family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ad.bundle.graph.operators import COMMON
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.models.diffusionad.config import MULTIPLE
from edge_ad.models.diffusionad.options import DiffusionAdOptions
from edge_ad.models.diffusionad.specs import INPUT, OUTPUT
from edge_ad.models.diffusionad.training.options import DiffusionAdTrainOptions
from edge_ad.models.family import About, LoadedNetwork, ModelFamily

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from edge_ad.models.diffusionad.network import DiffusionAd
    from edge_ad.models.diffusionad.training.train import DiffusionAdRecipe
    from edge_ad.models.references import References


class DiffusionAdFamily(ModelFamily):
    """Zhang et al., 2023."""

    name = "diffusionad"
    about = About(
        paper="Zhang et al., arXiv 2303.08730",
        good_at="defects outlined to the pixel, where a GPU trains and judges; the slowest by far",
        cost="601 GMAC (256², published widths), 6.2 (64², fast)",
        training="fast: 480 steps, not measured to its end; paper: 3000 epochs, 16 hours on a large GPU",
        checkpoints="the authors' params-best.pt and params-last.pt, our own file",
        licence="MIT (no licence file)",
    )
    network_options = DiffusionAdOptions
    train_options = DiffusionAdTrainOptions
    preprocess = INPUT
    postprocess = OUTPUT
    known_by = ("time_embedding.1.weight",)
    builds_on = ("draem",)
    multiple = MULTIPLE
    appearance = ("segmentation.encoder_segment.block3",)
    operators = COMMON | {"Softmax"}

    def faults(self, options: DiffusionAdOptions, faulty: set[str]) -> list[str]:
        normal, noisier = options.normal_t, options.noisier_t
        if not faulty & {"normal_t", "noisier_t"} and normal is not None and noisier is not None and normal >= noisier:
            return [f"normal_t: wanted a time step before noisier_t {noisier}, got {normal}"]
        return []

    def noise(self, config: Mapping[str, Any], size_hw: tuple[int, int], seed: int) -> dict[str, NDArray[np.float32]]:
        from edge_ad.models.diffusionad.noise import graph_noise

        return graph_noise(config, size_hw, seed)

    def load(self, checkpoint: Path, options: DiffusionAdOptions, references: References) -> LoadedNetwork[DiffusionAd]:
        from edge_ad.models.diffusionad.checkpoint import load_diffusionad

        return load_diffusionad(checkpoint, options)

    def recipe(self) -> DiffusionAdRecipe:
        from edge_ad.models.diffusionad.training.train import DiffusionAdRecipe

        return DiffusionAdRecipe()

    def published(
        self, loaded: LoadedNetwork[DiffusionAd], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        from edge_ad.models.diffusionad.checkpoint import settings_of
        from edge_ad.models.diffusionad.fold import PublishedDiffusionAd

        return PublishedDiffusionAd(loaded.network, settings_of(loaded.config), preprocess.size_hw)

    def fast(
        self, loaded: LoadedNetwork[DiffusionAd], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        from edge_ad.models.diffusionad.checkpoint import settings_of
        from edge_ad.models.diffusionad.fold import FoldedDiffusionAd

        return FoldedDiffusionAd(loaded.network, settings_of(loaded.config), preprocess.size_hw)


FAMILY = DiffusionAdFamily()
