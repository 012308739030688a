"""The exported graph against the published network, on pictures made for the purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from edge_ad.bundle.manifest import Parity
from edge_ad.errors import ExportError
from edge_ad.export.onnx_graph import OnnxGraph

TOLERANCE = 2e-5  # of a probability; float32 rounding through a deep backbone measures 1e-7 to 3e-6
PROBES = 4
TINY = 1e-30  # below what any network gives that says anything
ROUNDING = 2e-6  # of differences of numbers of size 1, products of a few hundred terms; the sum of two measures 1.2e-6
MEANINGFUL_SPREAD = 100  # tolerances; probabilities that differ by less leave nothing to compare

Runner = Callable[[NDArray[np.uint8]], Sequence[NDArray[np.float32]]]
"""Computes a graph: (N, H, W, 3) uint8 → patch_map, anomaly_map, pred_score."""


def probe_images(size_hw: tuple[int, int], count: int = PROBES, seed: int = 0) -> NDArray[np.uint8]:
    """Pictures with structure at every scale, so that patches differ: (count, H, W, 3) uint8.

    The first is pure noise, the others are noise whose amplitude falls with frequency, as in photographs.
    """
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)]
    rows, columns = np.meshgrid(np.fft.fftfreq(size_hw[0]), np.fft.fftfreq(size_hw[1]), indexing="ij")
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(size_hw))
    for index in range(1, count):
        spectrum = np.fft.fft2(rng.standard_normal((*size_hw, 3)), axes=(0, 1)) / frequency[..., None]
        field = np.fft.ifft2(spectrum, axes=(0, 1)).real
        spread = field.std(axis=(0, 1)) + 1e-9
        images.append(
            np.clip(128 + 20 * (index + 1) * (field - field.mean(axis=(0, 1))) / spread, 0, 255).astype(np.uint8)
        )
    return np.stack(images)


def onnx_runner(graph: OnnxGraph) -> Runner:
    """The graph on ONNX Runtime."""
    session = onnxruntime.InferenceSession(graph.data, providers=["CPUExecutionProvider"])
    return lambda batch_nhwc: session.run(None, {graph.image.name: batch_nhwc})


def check_parity(
    graph: OnnxGraph,
    reference: nn.Module,
    tolerance: float = TOLERANCE,
    *,
    run: Runner | None = None,
    relative: bool = False,
    unit: float = 0.0,
) -> Parity:
    """Run graph and network (torch) on the same pictures and compare the three outputs.

    Args:
        reference: the published network as a contract module.
        tolerance: largest difference allowed, of a probability, or of the largest value.
        run: computes the graph; ONNX Runtime when None.
        relative: values are no probabilities; differences are shares of the largest of each output.
        unit: size of the numbers whose differences these values are, see `ModelFamily.rounding_unit`: where all of
            an output is so small that their rounding is more than the tolerance, that rounding is allowed.

    Raises: ExportError when a difference is larger than the tolerance, or not finite.
    """
    height, width = graph.image.shape[1:3]
    assert height is not None and width is not None
    batch = graph.image.shape[0] or 2
    images = probe_images((height, width), count=max(PROBES, batch) // batch * batch)
    run = run or onnx_runner(graph)
    largest, highest = np.zeros(3), np.full(3, max(TINY, unit * ROUNDING / tolerance))
    spread = 0.0
    for first in range(0, len(images), batch):
        part = images[first : first + batch]
        got = run(part)
        with torch.no_grad():
            wanted = [tensor.numpy() for tensor in reference(torch.from_numpy(part))]
        _check_shapes(graph, got, wanted)
        differences = [np.abs(a.astype(np.float64) - b).max() for a, b in zip(got, wanted, strict=True)]
        largest = np.maximum(largest, differences)
        highest = np.maximum(highest, [np.abs(values).max() for values in wanted])
        spread = max(spread, float(wanted[0].max() - wanted[0].min()))
    if relative:
        largest, spread = largest / highest, spread / float(highest[0])
    patch_map, anomaly_map, pred_score = (float(value) for value in largest)
    if not (largest <= tolerance).all():
        share = "of the largest value" if relative else "in probability"
        raise ExportError(
            f"the exported graph is off by {largest.max():.2g} {share},"
            f" allowed {tolerance:.2g}"
            f" (patch_map {patch_map:.2g}, anomaly_map {anomaly_map:.2g}, pred_score {pred_score:.2g}); nothing written"
        )
    return Parity(len(images), patch_map, anomaly_map, pred_score, spread, tolerance)


def describe(parity: Parity) -> str:
    """The figures in one line, and a warning where they mean little."""
    text = (
        f"largest difference from the published network on {parity.images} images (allowed {parity.tolerance:.0e}):"
        f" patch_map {parity.patch_map:.1e}, anomaly_map {parity.anomaly_map:.1e}, pred_score {parity.pred_score:.1e}"
    )
    if parity.patch_map_spread < MEANINGFUL_SPREAD * parity.tolerance:
        text += (
            f"; warning: the network's own values differ by only {parity.patch_map_spread:.1e} on them,"
            " so this says little; is it trained?"
        )
    return text


def _check_shapes(graph: OnnxGraph, got: Sequence[NDArray[np.float32]], wanted: Sequence[NDArray[np.float32]]) -> None:
    for output, a, b in zip(graph.outputs, got, wanted, strict=True):
        if a.shape != b.shape:
            raise ExportError(f"output {output.name!r} of the exported graph is {a.shape}, the network gives {b.shape}")
