"""Calibration: from a float graph and images to what is needed to write its quantized form, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import RangeMethod
from edge_ad.calibration.quantize.centre import apply_shifts, moved, plan_shifts
from edge_ad.calibration.quantize.equalize import apply_scales, plan_scales, scaled
from edge_ad.calibration.quantize.graph import Graph
from edge_ad.calibration.quantize.observe import (
    ModelInputs,
    channel_ranges,
    histograms_and_moments,
    of_any_picture,
)
from edge_ad.calibration.quantize.parts import in_parts
from edge_ad.calibration.quantize.qdq import with_qdq
from edge_ad.calibration.quantize.ranges import choose_range
from edge_ad.calibration.quantize.rounding import RoundedWeight, round_weights
from edge_ad.errors import ExportError

REVISION = 2
"""Of what is computed here from the same images and options; part of the cache's key, so raise it with every change."""

Arrays = Mapping[str, NDArray[np.generic]]
Images = Callable[[str], ModelInputs]
"""Starts a pass over the calibration images; the text says what for."""


@dataclass(frozen=True)
class Calibration:
    """A float graph prepared for int8, and what its layers become.

    Attributes:
        graph: computes what the float graph computes, with channels centred and equalized.
        ranges: greatest representable value by tensor.
        weights: by layer.
    """

    graph: Graph
    ranges: Mapping[str, float]
    weights: Mapping[str, RoundedWeight]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that can be quantized, in the order of computation."""
        return tuple(self.weights)

    def build(self, float_layers: Collection[str] = ()) -> bytes:
        """The graph with Q/DQ on all layers but `float_layers`. Raises: ExportError."""
        chosen = {name: weight for name, weight in self.weights.items() if name not in float_layers}
        return with_qdq(self.graph, self.ranges, chosen)


def calibrate(graph: bytes, images: Images, method: RangeMethod, seed: int = 0) -> tuple[Calibration, Arrays]:
    """Calibrate a float graph.

    Args:
        graph: serialised ONNX that honours the contract; all its convolutions but the last are quantized.
        images: gives the calibration images, twice.
        method: how ranges are chosen.
        seed: which positions of the feature maps are looked at.

    Returns: the calibration, and arrays from which `restored` makes it again without an image.

    Raises: ExportError when the graph cannot be read or run, or has nothing to quantize; or without an image.
    """
    prepared = in_parts(Graph.parse(graph))
    if not prepared.layers:
        raise ExportError(
            "the float graph has no layer to quantize: wanted a convolution before the last; keep it float"
        )
    seen = of_any_picture(prepared, channel_ranges(prepared, prepared.layers, images("ranges")))
    shifts = plan_shifts(prepared, seen)
    seen = moved(seen, shifts)
    apply_shifts(prepared, shifts)
    scales = plan_scales(prepared, seen)
    seen = scaled(prepared, seen, scales)
    apply_scales(prepared, scales)
    reaches = {name: float(found.reach.max()) for name, found in seen.items()}
    layers = prepared.layers
    histograms, moments = histograms_and_moments(prepared, layers, reaches, images("distributions"), seed)
    ranges = {name: choose_range(method, histograms[name], reach) for name, reach in reaches.items()}
    weights = {layer.name: round_weights(prepared, layer, moments[layer.name]) for layer in layers}
    arrays: dict[str, NDArray[np.generic]] = {}
    arrays |= {f"shift {name}": shift for name, shift in shifts.items()}
    arrays |= {f"scale {name}": scale for name, scale in scales.items()}
    arrays |= {f"range {name}": np.float64(reach).reshape(1) for name, reach in ranges.items()}
    for name, weight in weights.items():
        arrays[f"levels {name}"], arrays[f"step {name}"] = weight.levels, weight.scale
        arrays[f"correction {name}"] = weight.bias_correction
    return Calibration(prepared, ranges, weights), arrays


def restored(graph: bytes, arrays: Arrays) -> Calibration:
    """The calibration that `calibrate` returned together with `arrays`, for the same graph."""
    prepared = in_parts(Graph.parse(graph))
    apply_shifts(prepared, _of_kind(arrays, "shift"))
    apply_scales(prepared, _of_kind(arrays, "scale"))
    ranges = {name: float(value[0]) for name, value in _of_kind(arrays, "range").items()}
    weights = {
        layer.name: RoundedWeight(
            np.asarray(arrays[f"levels {layer.name}"], np.int8),
            np.asarray(arrays[f"step {layer.name}"], np.float32),
            np.asarray(arrays[f"correction {layer.name}"], np.float64),
        )
        for layer in prepared.layers
    }
    return Calibration(prepared, ranges, weights)


def _of_kind(arrays: Arrays, kind: str) -> dict[str, NDArray[np.float64]]:
    start = f"{kind} "
    return {
        name.removeprefix(start): np.asarray(value, np.float64)
        for name, value in arrays.items()
        if name.startswith(start)
    }
