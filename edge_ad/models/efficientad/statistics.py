"""What good pictures say of the networks: the teacher's mean and deviation, and the quantiles of both maps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_ad.bundle.specs import IMAGENET_MEAN, IMAGENET_STD
from edge_ad.errors import CheckpointError
from edge_ad.image.frame import ImageArray
from edge_ad.models.efficientad.network import EfficientAd

QUANTILES = (0.9, 0.995)
"""Of the raw maps, that the combined map is scaled by (section 3.4)."""
ROUND_OFF = 1e-6  # of a mean; a deviation below it is what is left of none


def normalised(images: Collection[ImageArray], device: torch.device | None = None) -> Tensor:
    """(H, W, 3) uint8 RGB each → (N, 3, H, W) float32 as the networks see them."""
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    stacked = torch.from_numpy(np.stack(list(images))).to(device).permute(0, 3, 1, 2)
    return (stacked.float() / 255 - mean) / std


@torch.no_grad()
def measure_teacher(
    network: EfficientAd, images: Iterable[ImageArray], after_each: Callable[[], None] = lambda: None
) -> None:
    """Set mean and deviation of each channel of the teacher's answers, over all cells of all pictures.

    Raises: CheckpointError for a channel that says the same of all of them.
    """
    channels = network.config.channels
    count, total, squares = 0, np.zeros(channels), np.zeros(channels)
    for image in _seen(images, network):
        answer = network.teacher(image)[0].flatten(1).cpu().double().numpy()
        count += answer.shape[1]
        total += answer.sum(1)
        squares += np.square(answer).sum(1)
        after_each()
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    dead = np.flatnonzero(std <= ROUND_OFF * np.abs(mean))
    if len(dead):
        raise CheckpointError(
            f"teacher: channel {dead[0]} of {channels} answers the same to all good pictures ({len(dead)} such"
            " channels); is it a trained teacher?"
        )
    network.mean.copy_(torch.from_numpy(mean))
    network.std.copy_(torch.from_numpy(std))


@torch.no_grad()
def measure_quantiles(
    network: EfficientAd, images: Iterable[ImageArray], after_each: Callable[[], None] = lambda: None
) -> None:
    """Set the quantiles of both maps over all cells of good pictures, with the network in eval mode.

    Raises: CheckpointError where a map is the same everywhere.
    """
    network.eval()
    found: tuple[list[NDArray[np.float32]], ...] = ([], [])
    for image in _seen(images, network):
        for values, one in zip(found, network.raw_maps(image), strict=True):
            values.append(one.flatten().cpu().numpy())
        after_each()
    quantiles = [np.quantile(np.concatenate(values).astype(np.float64), QUANTILES) for values in found]
    check_quantiles(quantiles[0].tolist() + quantiles[1].tolist(), "the maps of the good pictures")
    network.quantiles.copy_(torch.from_numpy(np.concatenate(quantiles)))


def check_quantiles(quantiles: list[float], where: str) -> None:
    """Raise CheckpointError where an upper quantile is not above its lower one."""
    for name, (low, high) in (("local", quantiles[:2]), ("global", quantiles[2:])):
        if not low < high:
            raise CheckpointError(
                f"{where}: the {name} map has {low:g} and {high:g} as its quantiles, wanted two that differ"
            )


def _seen(images: Iterable[ImageArray], network: EfficientAd) -> Iterator[Tensor]:
    """One after the other: a batch would be no faster, and its features are tens of megabytes each."""
    device = network.mean.device
    return (normalised([image], device) for image in images)
