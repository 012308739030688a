"""Banded matrices as a kernel reads them: a first column and a few weights for each row. Pillow's filter is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Banded:
    """What each output of one axis reads: `weights[i] · input[starts[i] : starts[i] + taps]`.

    Every row has the same number of taps, padded with zeros, and none of them lies outside of the input.

    Attributes:
        starts: (n_out,) int32.
        weights: (n_out, taps).
        n_in: length of the input.
    """

    starts: NDArray[np.int32]
    weights: NDArray[Any]
    n_in: int

    @classmethod
    def of(cls, matrix: NDArray[Any]) -> Banded:
        """The band of an (n_out, n_in) matrix, in its own type."""
        n_in = matrix.shape[1]
        used = matrix != 0
        first = np.where(used.any(axis=1), used.argmax(axis=1), 0)
        last = np.where(used.any(axis=1), n_in - used[:, ::-1].argmax(axis=1), 1)
        taps = int((last - first).max())
        starts = np.minimum(first, n_in - taps)
        weights = np.take_along_axis(matrix, starts[:, None] + np.arange(taps), axis=1)
        return cls(starts.astype(np.int32), weights, n_in)

    @property
    def taps(self) -> int:
        return int(self.weights.shape[1])

    def reach(self, tile: int) -> tuple[NDArray[np.int32], int]:
        """What each `tile` neighbouring outputs read together.

        Returns: the first input of every tile, int32, and a number of inputs that is enough for all of them; the two
        never reach beyond the input.
        """
        corners = np.arange(0, len(self.starts), tile)
        first = np.minimum.reduceat(self.starts, corners)
        span = int((np.maximum.reduceat(self.starts, corners) + self.taps - first).max())
        return np.minimum(first, self.n_in - span).astype(np.int32), span


WEIGHT_BITS = 22  # Pillow's PRECISION_BITS for 8-bit images


def resize_taps(n_in: int, n_out: int, first: int = 0, last: int | None = None) -> Banded:
    """Pillow's antialiased bilinear filter for one axis (`precompute_coeffs` of its Resample.c).

    Args:
        n_in, n_out: samples of the axis before and after.
        first, last: the outputs that are wanted, half open; all of them by default.

    Returns: taps whose weights are int32, 2^22 times the share of a sample, and whose starts do not fall.
    """
    scale = n_in / n_out
    support = max(scale, 1.0)
    centres = (np.arange(first, n_out if last is None else last) + 0.5) * scale
    begin = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centres + support + 0.5).astype(np.int64), n_in)
    taps = int((end - begin).max())
    starts = np.minimum(begin, n_in - taps)
    samples = starts[:, None] + np.arange(taps)
    shares = np.maximum(1 - np.abs((samples - centres[:, None] + 0.5) / support), 0)
    shares[(samples < begin[:, None]) | (samples >= end[:, None])] = 0
    shares /= shares.sum(axis=1, keepdims=True)
    return Banded(starts.astype(np.int32), (shares * (1 << WEIGHT_BITS) + 0.5).astype(np.int32), n_in)
