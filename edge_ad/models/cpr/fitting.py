"""What CPR learns of good pictures without training: a codebook, and what is object (sections III-B and III-D).

Both are computed by scikit-learn from a generator of the authors' seed, in the order of their draws, so that they come
out as theirs do as far as its version lets them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_ad.errors import MissingExtraError
from edge_ad.models.cpr.config import CENTRES, MOST_CELLS, ON_OBJECT, SEED
from edge_ad.models.cpr.network import Foreground

CellArray = NDArray[np.float32]
LDA_CELLS = 15_000  # of object and of background each, the authors' figure
BORDER_SHARE = 3 / 80  # of a side, where cells count as background
MIDDLE_SHARE = 1 / 5  # of a side, on either side of the middle, where cells count as object
TAIL_SHARE = 0.01  # of the cells, which lie beyond 0 and beyond 1
FEW_PICTURES = 0.1  # share of the pictures whose middle may be less object than is told of all


@dataclass(frozen=True)
class Cells:
    """First taps of some good pictures, which are computed again where memory does not hold them.

    Attributes:
        count: of the pictures.
        channels, height, width: of a tap.
        batches: taps of all pictures in order, (n, C, h, w), as often as it is called.
    """

    count: int
    channels: int
    height: int
    width: int
    batches: Callable[[], Iterator[Tensor]]

    @property
    def total(self) -> int:
        return self.count * self.height * self.width

    def rows(self) -> Iterator[tuple[int, CellArray]]:
        """Cells of a few pictures at a time: the first's number, and (n, C)."""
        first = 0
        for taps in self.batches():
            cells = np.ascontiguousarray(taps.permute(0, 2, 3, 1).reshape(-1, self.channels).cpu().numpy())
            yield first, cells
            first += len(cells)

    def picked(self, wanted: NDArray[np.int64]) -> CellArray:
        """Cells by number, in the order of `wanted`: (len(wanted), C)."""
        found = np.empty((len(wanted), self.channels), np.float32)
        for first, cells in self.rows():
            here = (wanted >= first) & (wanted < first + len(cells))
            found[here] = cells[wanted[here] - first]
        return found


def codebook(cells: Cells) -> Tensor:
    """Centres of the codes, (12, C) float32. Raises: MissingExtraError."""
    state = np.random.RandomState(SEED)
    return torch.from_numpy(_k_means(cells, CENTRES, state).cluster_centers_).float()


class NoForegroundError(Exception):
    """Why what is object cannot be told from its background."""


class FittedForeground(NamedTuple):
    """A foreground, and what it says of the pictures that it was fitted to.

    Attributes:
        foreground: found as the authors find it, which also finds one where there is none.
        middle: share of the middle that is object, or more, in nine of ten pictures.
        border: share of the border that is object, in all pictures together; of none, one cell's.
    """

    foreground: Foreground
    middle: float
    border: float


def foreground(cells: Cells) -> FittedForeground:
    """Fit the direction that tells object from background. Raises: NoForegroundError, MissingExtraError."""
    edge = int(BORDER_SHARE * cells.height), int(BORDER_SHARE * cells.width)
    if min(edge) < 1:
        raise NoForegroundError(
            f"{cells.height}x{cells.width} patches have no border to speak of, 27x27 are the fewest"
        )
    state = np.random.RandomState(SEED)
    clusters = _k_means(cells, 2, state)
    code = np.concatenate([clusters.predict(part) for _, part in cells.rows()])
    code = code.reshape(cells.count, cells.height, cells.width)
    border, middle = _border(cells, edge), _middle(cells)
    background = int(np.argsort(np.bincount(code[:, border].ravel(), minlength=2))[-1])
    numbers = np.arange(cells.total).reshape(code.shape)
    behind = numbers[(code == background) & border]
    on_it = numbers[(code != background) & middle]
    if not len(behind) or not len(on_it):
        what = "background at the border" if not len(behind) else "object in the middle"
        raise NoForegroundError(f"no {what} is found")
    fewest = min(LDA_CELLS, len(behind), len(on_it))
    chosen = [part[state.permutation(len(part))[:fewest]] for part in (behind, on_it)]
    features = cells.picked(np.concatenate(chosen))
    weight, bias = _direction(features, np.repeat([0, 1], fewest))
    decisions = np.concatenate([part @ weight + bias for _, part in cells.rows()])
    least, most = _range(decisions)
    if not most > least:
        raise NoForegroundError("object and background look the same")
    is_object = (decisions > least + ON_OBJECT * (most - least)).reshape(code.shape)
    of_border, of_middle = is_object[:, border], is_object[:, middle].mean(1)
    return FittedForeground(
        scaled(weight, bias, least, most),
        float(np.quantile(of_middle, FEW_PICTURES)),
        float(max(1, of_border.sum()) / of_border.size),
    )


def scaled(weight: NDArray[Any], bias: float, least: float, most: float) -> Foreground:
    """The decision w · f + b with [least, most] as [0, 1]."""
    span = most - least
    return Foreground(torch.from_numpy(weight / span).float(), torch.tensor((bias - least) / span).float())


def _range(decisions: NDArray[np.float64]) -> tuple[float, float]:
    """The n-th smallest and the n-th largest, n a hundredth of them."""
    tail = max(1, int(TAIL_SHARE * len(decisions)))
    ordered = np.partition(decisions, (tail - 1, len(decisions) - tail))
    return float(ordered[tail - 1]), float(ordered[-tail])


def _border(cells: Cells, edge: tuple[int, int]) -> NDArray[np.bool_]:
    inside = np.zeros((cells.height, cells.width), np.bool_)
    inside[edge[0] : cells.height - edge[0], edge[1] : cells.width - edge[1]] = True
    return ~inside


def _middle(cells: Cells) -> NDArray[np.bool_]:
    middle = np.zeros((cells.height, cells.width), np.bool_)
    rows, columns = (
        slice(int(side / 2 - side * MIDDLE_SHARE), int(side / 2 + side * MIDDLE_SHARE))
        for side in (cells.height, cells.width)
    )
    middle[rows, columns] = True
    return middle


def _k_means(cells: Cells, count: int, state: np.random.RandomState) -> Any:
    try:
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits  # scikit-learn's own dependency
    except ImportError as exc:
        raise MissingExtraError("family cpr", "scikit-learn", "export") from exc
    sample = cells.picked(state.permutation(cells.total)[:MOST_CELLS])
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        # One thread: those of k-means wait for each other in a loop, ten times as long on a busy machine.
        warnings.simplefilter("ignore")  # that there are fewer different cells than centres; then some centres are one
        return KMeans(min(count, len(sample)), n_init=10, random_state=state).fit(sample)


def _direction(features: CellArray, is_object: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
    """Weight (C,) and bias of a linear discriminant."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that channels are collinear, which the solver can do with
        fitted = LinearDiscriminantAnalysis().fit(features, is_object)
    return np.asarray(fitted.coef_[0], np.float64), float(fitted.intercept_[0])
