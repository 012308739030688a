"""Which patches stay in the bank: k-centre greedy (Sener and Savarese, ICLR 2018) on projected features.

Each pick is the patch that is farthest from all picks before it. As published, every pick looks at every patch, which
is bound by memory. Here a pick looks at the front, those patches that were farthest when all were looked at last: a
patch only ever comes nearer, so while the farthest of the front is farther than all others were, it is the farthest of
all. When it no longer is, all patches are compared with the picks since then, in one matrix product. The picks are the
same.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from edge_ad.errors import ConfigError
from edge_ad.models.patchcore.options import Coreset

PROJECTED_DIM = 128  # the authors' dimension_to_project_features_to
STARTS = 10  # random patches whose mean distance starts the search (the authors' number_of_starting_points)
LEAST_FRONT = 512
FRONT_SHARE = 32  # of the patches, one in so many is in the front
CHOSEN = -1.0  # in place of the distance of a pick, so that none is picked twice
ROWS = 8192  # patches that are compared at a time, so that a product stays in the cache


def entries_of(coreset: Coreset, patches: int) -> int:
    """How many of the patches stay. Raises: ConfigError for more than there are."""
    if isinstance(coreset, float):
        return max(1, int(patches * coreset))
    if coreset > patches:
        raise ConfigError(
            "coreset", [f"{coreset} entries of {patches} patches; wanted at most {patches}, or a share such as 0.01"]
        )
    return coreset


def random_projection(dim: int, seed: int, to: int = PROJECTED_DIM) -> Tensor | None:
    """(dim, to) float32 Gaussian map that keeps distances (Johnson and Lindenstrauss); None where dim is no larger."""
    if dim <= to:
        return None
    source = torch.Generator().manual_seed(seed)
    return torch.randn(dim, to, generator=source) / math.sqrt(to)


def random_start(features: Tensor, seed: int) -> Tensor:
    """How far each patch is taken to be at the start: (P,) float32, mean distance to STARTS random ones, squared."""
    source = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(features), generator=source)[:STARTS].to(features.device)
    return start_distances(features, chosen)


def start_distances(features: Tensor, chosen: Tensor) -> Tensor:
    """The squared mean of the distances to the patches `chosen`: (P,)."""
    norms = (features * features).sum(1)
    total = torch.zeros_like(norms)
    for index in chosen:
        total += _squares(features, norms, features[index][None])[:, 0].sqrt()
    return (total / len(chosen)).square()


def k_centre(
    features: Tensor, count: int, start: Tensor | int, step: Callable[[int], None] = lambda _: None
) -> tuple[Tensor, float]:
    """Greedy k-centre picks.

    Args:
        features: (P, d) float32, projected.
        count: how many to pick, at most P.
        start: (P,) squared distance that each patch is taken to have before the first pick (which stays in the
            running minimum, as in the authors' code); or the index of the first pick.
        step: is told how many more have been picked.

    Returns: (count,) indices in the order of the picks, and how far from the nearest pick the farthest patch is left.
    """
    norms = (features * features).sum(1)
    picks: list[int] = []
    if isinstance(start, int):
        picks.append(start)
        least = _squares(features, norms, features[start][None])[:, 0]
        least[start] = CHOSEN
    else:
        least = start.clone()
    size = min(len(features), max(LEAST_FRONT, len(features) // FRONT_SHARE))
    told = 0
    while len(picks) < count:
        ranked, front = least.topk(min(size + 1, len(features)))
        beyond = float(ranked[size]) if len(front) > size else -math.inf
        front, farthest = front[:size], least.argmax()  # the first of equals, which `topk` may have left out
        if not bool((front == farthest).any()):
            front[-1] = farthest
        front = front.sort().values  # so that here too the first of equals is picked
        own, own_norms, own_least = features[front], norms[front], least[front]
        at = int((front == farthest).nonzero())
        since: list[int] = []
        while len(picks) < count and (not since or float(own_least[at]) > beyond):
            since.append(int(front[at]))
            picks.append(since[-1])
            distances = _squares(own, own_norms, own[at][None])[:, 0]
            distances[at] = CHOSEN
            own_least = torch.minimum(own_least, distances)
            at = int(own_least.argmax())
        _lower(least, features, norms, torch.tensor(since, device=features.device))
        step(len(picks) - told)
        told = len(picks)
    return torch.tensor(picks), float(least.max().clamp(min=0).sqrt())


def _lower(least: Tensor, features: Tensor, norms: Tensor, picks: Tensor) -> None:
    """Bring the running minimum up to date with further picks, in place."""
    centres = features[picks]
    for first in range(0, len(features), ROWS):
        part = slice(first, first + ROWS)
        nearest = _squares(features[part], norms[part], centres).amin(1)
        least[part] = torch.minimum(least[part], nearest)
    least[picks] = CHOSEN


def _squares(rows: Tensor, norms: Tensor, centres: Tensor) -> Tensor:
    """(P, c) squared distances of rows (P, d) with squared norms (P,) to centres (c, d)."""
    distances = torch.addmm(norms[:, None], rows, centres.T, alpha=-2)
    distances += (centres * centres).sum(1)
    return distances.clamp_(min=0)
