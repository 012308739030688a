"""What a picture is compared with: histograms, foregrounds and patches of the references."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.models.cpr.network import Cpr
from edge_ad.models.cpr.retrieval import codes, histograms
from edge_ad.models.training.drawing import chunks

BATCH = 4


@dataclass(frozen=True)
class ReferenceFacts:
    """Of R references.

    Attributes:
        histogram: (R, blocks, 13).
        foreground: (R, h, w); None where the whole picture counts.
    """

    histogram: Tensor
    foreground: Tensor | None


def taps_of(network: Cpr, preprocess: PreprocessSpec) -> Iterator[list[Tensor]]:
    """Taps of the references, a few pictures at a time."""
    mean, std = (
        torch.tensor(values, device=network.references.device)[:, None, None]
        for values in (preprocess.mean, preprocess.std)
    )
    for part in chunks(range(len(network.references)), BATCH):
        pictures = network.references[part[0] : part[-1] + 1]
        with torch.no_grad():
            yield network.backbone((pictures.permute(0, 3, 1, 2).float() / 255 - mean) / std)


def facts_of(network: Cpr, first: Tensor) -> ReferenceFacts:
    """Args: first: (R, C, h, w), the first tap of some references."""
    histogram = histograms(codes(first, network.centres))
    return ReferenceFacts(histogram, None if network.foreground is None else network.foreground(first))


def joined(parts: list[ReferenceFacts]) -> ReferenceFacts:
    """Those of all parts behind each other."""
    foregrounds = [part.foreground for part in parts if part.foreground is not None]
    return ReferenceFacts(
        torch.cat([part.histogram for part in parts]), torch.cat(foregrounds) if foregrounds else None
    )
