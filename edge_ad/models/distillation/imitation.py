"""Steps of a student: its taps come to give what its teacher's give, each channel measured by its own deviation.

The 1×1 convolutions begin where least squares puts them for the network as it is, so the steps only have to bend the
network itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from edge_ad.models.backbone import Backbone
from edge_ad.models.student import StudentTrunk

RIDGE = 1e-3
"""Share of the mean square of the features that is added to each, so that what nothing tells stays near 0."""
LEAST_STD = 1e-6
"""Of a channel that never changes."""


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of every channel of a tap over the good pictures, (C, 1, 1) float32 each."""

    mean: Tensor
    std: Tensor


def measured(batches: Iterable[Sequence[Tensor]]) -> list[Scale]:
    """Scales of the teacher's taps. Args: batches: taps of the good pictures."""
    sums: list[tuple[Tensor, ...]] = []
    for taps in batches:
        own = [_sums(tap.double()) for tap in taps]
        sums = [_added(a, b) for a, b in zip(sums, own, strict=True)] if sums else own
    scales = []
    for count, total, squares in sums:
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=LEAST_STD)
        scales.append(Scale(mean.float()[:, None, None], std.float()[:, None, None]))
    return scales


def _sums(tap: Tensor) -> tuple[Tensor, ...]:
    """Numbers of a channel, and of every channel their sum and that of their squares."""
    return torch.full_like(tap[0, :, 0, 0], tap[:, 0].numel()), tap.sum((0, 2, 3)), tap.square().sum((0, 2, 3))


def _added(one: Sequence[Tensor], other: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def losses(student: Backbone, image: Tensor, wanted: Sequence[Tensor], scales: Sequence[Scale]) -> list[Tensor]:
    """For each tap the share of its variance that the student does not give: mean of ((s - t) / std)²."""
    given = zip(student(image), wanted, scales, strict=True)
    return [((own - other) / scale.std).square().mean() for own, other, scale in given]


@torch.no_grad()
def fit_projections(
    student: Backbone, lessons: Iterable[tuple[Tensor, Sequence[Tensor]]], scales: Sequence[Scale]
) -> None:
    """Put the 1×1 convolutions of a student where the squares are least, in float64.

    Args:
        lessons: normalised pictures and what the teacher's taps give of them.
    """
    trunk = cast("StudentTrunk", student.trunk)
    sums: list[tuple[Tensor, ...]] = []
    for image, wanted in lessons:
        sought = [_rows((tap - scale.mean) / scale.std) for tap, scale in zip(wanted, scales, strict=True)]
        rows = [_rows(feature, ones=True) for feature in trunk.own_features(image)]
        own = [(row.T @ row, row.T @ other) for row, other in zip(rows, sought, strict=True)]
        sums = [_added(a, b) for a, b in zip(sums, own, strict=True)] if sums else [*own]
    for layer, (gram, product), scale in zip(trunk.projections, sums, scales, strict=True):
        projection = cast("nn.Conv2d", layer)
        ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        solved = torch.linalg.solve(gram + ridge, product)
        std, mean = scale.std.flatten().double(), scale.mean.flatten().double()
        projection.weight.copy_((solved[:-1] * std).T[:, :, None, None])
        assert projection.bias is not None
        projection.bias.copy_(solved[-1] * std + mean)


def _rows(feature: Tensor, *, ones: bool = False) -> Tensor:
    """(N, C, h, w) → (N·h·w, C) float64, with a last column of ones where there is to be one."""
    rows = feature.permute(0, 2, 3, 1).flatten(0, 2).double()
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1) if ones else rows
