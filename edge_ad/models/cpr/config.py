"""What defines a CPR network apart from its weights, and the constants of the authors' code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_ad.validation import strict

RetrievalDistance = Literal["kl", "l2"]
"""Of two blocks' histograms: Kullback-Leibler divergence (query ‖ reference), or the Euclidean distance."""
ForegroundChoice = Literal["auto", "on", "off"]
BankType = Literal["float32", "float16", "int8"]

CENTRES = 12  # of the codebook
BLOCKS = 5  # along an axis
METRIC_CHANNELS = 384  # that the metric network gives
SEED = 66  # of k-means and of the draws around it
MOST_CELLS = 50_000  # that k-means looks at
ON_OBJECT = 0.5  # of a foreground, in 0..1: what is above it is object


@strict
@dataclass(frozen=True)
class CprConfig:
    """What is not a weight; the defaults are the authors' settings.

    Attributes:
        backbone: torchvision name, or `timm:<name>`.
        layers: two taps, the finer one first; 1/4 and 1/8 of the picture in all of the authors' settings.
        nearest: K, how many training pictures a picture is compared with.
        retrieval_distance: of the histograms of two blocks.
        retrieval_share: share of the blocks that count, those that are most alike; the paper's tau are the others.
        search_windows: side of the neighbourhood that is searched, by tap; odd.
        metric: whether patches are compared by the metric network, or by the taps as they are.
    """

    backbone: str = "densenet201"
    layers: tuple[str, str] = ("features.denseblock1", "features.denseblock2")
    nearest: int = 10
    retrieval_distance: RetrievalDistance = "kl"
    retrieval_share: float = 0.8
    search_windows: tuple[int, int] = (3, 1)
    metric: bool = True
