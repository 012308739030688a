"""Weights as int8, with the error of the rounding fed back, and biases that take out what is left of it on average.

Rounding to nearest makes the error of every weight small; what matters is the error of the output. Weights are rounded
one input after the other, and the error of each is taken over by those that are still to be rounded, as far as their
inputs go together on the calibration images (GPTQ, Frantar et al. 2022, arXiv 2210.17323, after Hassibi's optimal brain
surgeon). What remains shifts every output by the mean of its error, which the bias takes out (bias correction, Nagel et
al. 2019, arXiv 1906.04721, section 4.2). Neither costs anything at run time. Networks with batch normalisation folded
into depthwise convolutions need it: there a small error of a weight is a large constant at the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.quantize.graph import Convolution, Floats, Graph
from edge_ad.calibration.quantize.observe import InputMoments

SMALLEST = float(np.finfo(np.float32).tiny)  # of a scale: weights of dead channels may be smaller still
LEVELS = 127  # symmetric: -128 is not used, so that a weight and its negative round alike
DAMPING = 0.01  # of the mean square of the inputs, added to each: GPTQ's


@dataclass(frozen=True)
class RoundedWeight:
    """Weights of a convolution in int8.

    Attributes:
        levels: (out, in / groups, rows, columns) int8.
        scale: (out,) float32, positive: weight = levels · scale.
        bias_correction: (out,) to be added to the bias.
    """

    levels: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias_correction: Floats

    @property
    def value(self) -> NDArray[np.float32]:
        """The weights that int8 stands for."""
        return self.levels.astype(np.float32) * self.scale[:, None, None, None]


def round_weights(graph: Graph, layer: Convolution, moments: InputMoments) -> RoundedWeight:
    """Round the weights of a convolution, one scale for each output channel."""
    weight = graph.constant(layer.weight)
    outputs = len(weight)
    flat = weight.reshape(layer.groups, outputs // layer.groups, -1)
    reach = np.abs(weight).reshape(outputs, -1).max(axis=1)
    scale = np.where(reach > 0, np.maximum(reach / LEVELS, SMALLEST), 1.0).astype(np.float32)
    steps = scale.astype(np.float64).reshape(layer.groups, -1)
    levels = np.empty_like(flat)
    correction = np.empty_like(steps)
    for group, rows in enumerate(flat):
        second = None if moments.second is None else moments.second[group]
        levels[group] = _nearest(rows, steps[group]) if second is None else _fed_back(rows, steps[group], second)
        error = rows - levels[group] * steps[group][:, None]
        correction[group] = error @ moments.mean[group]
    return RoundedWeight(levels.reshape(weight.shape).astype(np.int8), scale, correction.ravel())


def _nearest(rows: Floats, steps: Floats) -> Floats:
    return np.asarray(np.clip(np.round(rows / steps[:, None]), -LEVELS, LEVELS))


def _fed_back(rows: Floats, steps: Floats, second: Floats) -> Floats:
    """Levels of weights (out, in), inputs of the greatest power first."""
    size = len(second)
    damping = DAMPING * float(np.trace(second)) / size
    if damping <= 0:
        return _nearest(rows, steps)
    order = np.argsort(-np.diag(second), kind="stable")
    damped = second[np.ix_(order, order)] + damping * np.eye(size)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    waiting = rows[:, order].copy()
    levels = np.empty_like(waiting)
    for index in range(size):
        levels[:, index] = np.clip(np.round(waiting[:, index] / steps), -LEVELS, LEVELS)
        error = (waiting[:, index] - levels[:, index] * steps) / upper[index, index]
        waiting[:, index + 1 :] -= error[:, None] * upper[index, index + 1 :]
    restored = np.empty_like(levels)
    restored[:, order] = levels
    return restored
