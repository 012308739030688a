"""The exported graph against the published network, on pictures made for the purpose."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from edge_ad.bundle import Parity
from edge_ad.errors import ExportError
from edge_ad.export.onnx_graph import OnnxGraph

TOLERANCE = 2e-5  # of a probability; float32 rounding through a deep backbone measures 1e-7 to 3e-6
PROBES = 4


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


def check_parity(graph: OnnxGraph, reference: nn.Module, tolerance: float = TOLERANCE) -> Parity:
    """Run graph (ONNX Runtime) and network (torch) on the same pictures and compare the three outputs.

    Args:
        reference: the published network as a contract module.
        tolerance: largest absolute difference allowed, in units of probability.

    Raises: ExportError when a difference is larger than the tolerance, or not finite.
    """
    height, width = graph.image.shape[1:3]
    assert height is not None and width is not None
    batch = graph.image.shape[0] or 2
    images = probe_images((height, width), count=max(PROBES, batch) // batch * batch)
    session = onnxruntime.InferenceSession(graph.data, providers=["CPUExecutionProvider"])
    largest = np.zeros(3)
    spread = 0.0
    for first in range(0, len(images), batch):
        part = images[first : first + batch]
        got = session.run(None, {graph.image.name: part})
        with torch.no_grad():
            wanted = [tensor.numpy() for tensor in reference(torch.from_numpy(part))]
        for output, a, b in zip(graph.outputs, got, wanted, strict=True):
            if a.shape != b.shape:
                raise ExportError(
                    f"output {output.name!r} of the exported graph is {a.shape}, the network gives {b.shape}"
                )
        largest = np.maximum(
            largest, [np.abs(a.astype(np.float64) - b).max() for a, b in zip(got, wanted, strict=True)]
        )
        spread = max(spread, float(wanted[0].max() - wanted[0].min()))
    patch_map, anomaly_map, pred_score = (float(value) for value in largest)
    parity = Parity(len(images), patch_map, anomaly_map, pred_score, spread, tolerance)
    if not (largest <= tolerance).all():
        raise ExportError(
            f"the exported graph is off by {largest.max():.2g} in probability, allowed {tolerance:.2g}"
            f" (patch_map {largest[0]:.2g}, anomaly_map {largest[1]:.2g}, pred_score {largest[2]:.2g}); nothing written"
        )
    return parity
