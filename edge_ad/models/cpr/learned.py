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
LEAST_MIDDLE = 0.5
LEAST_CONTRAST = 15.0
"""When `auto` takes a foreground for an object: by how much of the middle is object, and how many times as much as of
the border. MobileNetV2, 320²: photographs of cookies have 0.74 and 46, of aliens 0.77 and 130; of 32 textures, 16
pictures each cut out at random, those with 0.5 or more have 1.8 at most, and 7.4 with corners darkened by 40 %.
Foregrounds that are an object's outline alone have 0.2 to 0.3 of the middle, and those that cover its inside 0.63 and
more (aliens pasted on those textures)."""


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
        found = foreground(cells)
    except NoForegroundError as exc:
        if choice == "on":
            raise ConfigError("foreground", [f"on: {exc}; give --foreground off"]) from exc
        return None, (f"foreground: {exc}; the whole picture counts",)
    told = f"object is {found.middle:.0%} of the middle and {found.border:.1%} of the border"
    if found.middle >= LEAST_MIDDLE and found.middle >= LEAST_CONTRAST * found.border:
        return found.foreground, (f"foreground: found ({told}), the map counts on it; else give --foreground off",)
    if choice == "on":
        return found.foreground, (f"foreground: on, though {told}; look at maps, or give --foreground off",)
    return None, (f"foreground: none ({told}), the whole picture counts; else give --foreground on",)


def chosen(histogram: Tensor, count: int, config: CprConfig) -> list[int]:
    """Which pictures become references, in their order."""
    if count >= len(histogram):
        return list(range(len(histogram)))
    return spread_out(histogram, count, config.retrieval_distance, config.retrieval_share)
