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
BLOCK = 64  # inputs whose errors are handed on together; the smaller, the more passes over what is left of the matrix


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
    rows = weight.reshape(layer.groups, outputs // layer.groups, -1)
    reach = np.abs(weight).reshape(outputs, -1).max(axis=1)
    scale = np.where(reach > 0, np.maximum(reach / LEVELS, SMALLEST), 1.0).astype(np.float32)
    steps = scale.astype(np.float64).reshape(layer.groups, -1, 1)
    levels = _nearest(rows, steps) if moments.second is None else _fed_back(rows, steps, moments.second)
    correction = (rows - levels * steps) @ moments.mean[:, :, None]
    return RoundedWeight(levels.reshape(weight.shape).astype(np.int8), scale, correction.ravel())


def _nearest(weights: Floats, steps: Floats) -> Floats:
    return np.asarray(np.clip(np.round(weights / steps), -LEVELS, LEVELS))


def _fed_back(rows: Floats, steps: Floats, second: Floats) -> Floats:
    """Levels of weights (groups, out, in), of steps (groups, out, 1); inputs of the greatest power first.

    With second moments R·Rᵀ, R upper triangular, the error of an output is Σⱼ (Σᵢ≤ⱼ Rᵢⱼ eᵢ)², e being the errors of its
    weights: each weight in turn is rounded to where its own summand is least. That is what GPTQ's updates with the
    inverse of the moments come to, and takes no inverse. Errors of a whole block go over to later blocks at once.
    """
    size = second.shape[1]
    power = np.diagonal(second, axis1=1, axis2=2)
    order = np.argsort(-power, axis=1, kind="stable")
    damping = DAMPING * power.mean(axis=1)
    damping[damping <= 0] = 1  # inputs that are zero throughout: any will do, as nothing goes together with anything
    shares = _shares(second, order, damping)
    weights = np.take_along_axis(rows.transpose(0, 2, 1), order[:, :, None], axis=1)
    steps = steps.transpose(0, 2, 1)
    levels, errors, shifts = np.empty_like(weights), np.empty_like(weights), np.zeros_like(weights)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        for index in range(start, stop):
            now = slice(index, index + 1)
            shift = shifts[:, now] + shares[:, now, start:index] @ errors[:, start:index]
            levels[:, now] = _nearest(weights[:, now] + shift, steps)
            errors[:, now] = weights[:, now] - levels[:, now] * steps
        shifts[:, stop:] += shares[:, stop:, start:stop] @ errors[:, start:stop]
    restored = np.empty_like(rows)
    np.put_along_axis(restored, order[:, None, :], levels.transpose(0, 2, 1), axis=2)
    return restored


def _shares(second: Floats, order: NDArray[np.intp], damping: Floats) -> Floats:
    """Share Rᵢⱼ/Rⱼⱼ of the error of input i that input j takes over: (groups, j, i), both in the order of rounding."""
    reverse = order[:, ::-1]  # of a matrix in reverse, the lower factor is the upper one of the matrix, in reverse
    damped = np.take_along_axis(np.take_along_axis(second, reverse[:, :, None], 1), reverse[:, None, :], 2)
    diagonal = np.arange(second.shape[1])
    damped[:, diagonal, diagonal] += damping[:, None]
    upper = np.linalg.cholesky(damped)[:, ::-1, ::-1]
    return np.asarray(np.ascontiguousarray(upper.transpose(0, 2, 1)) / upper[:, diagonal, diagonal][:, :, None])
