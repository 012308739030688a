"""From good pictures to what CPR keeps of them: codebook, foreground, and which of them become references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.errors import ConfigError
from edge_ad.image.frame import ImageArray
from edge_ad.models.backbone import Backbone
from edge_ad.models.cpr.config import CENTRES, CprConfig, ForegroundChoice
from edge_ad.models.cpr.fitting import Cells, NoForegroundError, codebook, foreground
from edge_ad.models.cpr.network import Foreground
from edge_ad.models.cpr.retrieval import codes, histograms, spread_out
from edge_ad.models.patch_head.features import FrozenTaps, TapCache

BATCH = 4
CACHE_BYTES = 2 * 10**9
BORDER_AGREEMENT = 0.8
"""Share of the border in one cluster from which on it is taken for background. A guess: objects on a plain ground have
0.95 and more."""


@dataclass(frozen=True)
class Learned:
    """What good pictures say.

    Attributes:
        centres: (12, C).
        foreground: None where the whole picture counts.
        histogram: (R, blocks, 13), of all pictures.
        taps: of all pictures, as far as memory holds them.
        notes: what the user should know, one line each.
    """

    centres: Tensor
    foreground: Foreground | None
    histogram: Tensor
    taps: TapCache
    notes: tuple[str, ...]


def learned(
    backbone: Backbone,
    images: Sequence[ImageArray],
    preprocess: PreprocessSpec,
    choice: ForegroundChoice,
    cache_bytes: int = CACHE_BYTES,
) -> Learned:
    """Codebook, foreground and histograms of good pictures.

    Args:
        images: (H, W, 3) uint8 RGB at model size.
        choice: whether there is to be a foreground.

    Raises: ConfigError where one is wanted and cannot be found.
    """
    cache = TapCache(FrozenTaps(backbone, preprocess, amp=False), images, BATCH, cache_bytes)
    _, channels, height, width = cache.mean[0].shape
    cells = Cells(len(images), channels, height, width, lambda: (taps[0] for taps in cache.batches(BATCH)))
    centres = codebook(cells)
    if len(centres) < CENTRES:
        raise ConfigError("references", [f"{cells.total} patches are fewer than a codebook has entries; give more"])
    found, notes = _foreground(cells, choice)
    device = cache.mean[0].device
    parts = [histograms(codes(taps, centres.to(device))).cpu() for taps in cells.batches()]
    return Learned(centres, found, torch.cat(parts), cache, notes)


def _foreground(cells: Cells, choice: ForegroundChoice) -> tuple[Foreground | None, tuple[str, ...]]:
    if choice == "off":
        return None, ()
    try:
        found, share = foreground(cells)
    except NoForegroundError as exc:
        if choice == "on":
            raise ConfigError("foreground", [f"on: {exc}; give --foreground off"]) from exc
        return None, (f"foreground: {exc}; the whole picture counts",)
    of_one_kind = f"{share:.0%} of the border is of one kind"
    if share >= BORDER_AGREEMENT:
        return found, (f"foreground: found ({of_one_kind}), the map counts on the object; else give --foreground off",)
    if choice == "on":
        return found, (f"foreground: on, and only {of_one_kind}, as on a texture; look at maps, or --foreground off",)
    return None, (f"foreground: only {of_one_kind}, as on a texture; the whole picture counts",)


def chosen(histogram: Tensor, count: int, config: CprConfig) -> list[int]:
    """Which pictures become references, in their order."""
    if count >= len(histogram):
        return list(range(len(histogram)))
    return spread_out(histogram, count, config.retrieval_distance, config.retrieval_share)
