"""The graph around a network: uint8 picture in; patch map, anomaly map and score out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.errors import ConfigError
from edge_ad.image.operators import ResizeSmooth
from edge_ad.models.family import LoadedNetwork, ModelFamily


class ContractModule(nn.Module):
    """Honours the ONNX contract around a network that gives one number per patch.

    `forward`: (N, H, W, 3) uint8 RGB → patch_map (N, h, w), anomaly_map (N, H, W), pred_score (N,), all float32.
    The picture is cast before it is transposed: TensorRT accepts no uint8 transpose. Resize and smoothing are two
    matrix products with constant matrices, see `edge_ad.image.operators`.
    """

    rows: Tensor
    columns_transposed: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(
        self, logits: nn.Module, patch_hw: tuple[int, int], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> None:
        """Raises: ConfigError for a score that is not taken from a map."""
        super().__init__()
        if postprocess.scored_map is None:
            raise ConfigError("score", [f"wanted one that is taken from a map, got {postprocess.score!r}"])
        self.logits = logits
        self.activation = postprocess.activation
        self.scored_map, self.top_pixels = postprocess.scored_map, postprocess.top_pixels
        operator = ResizeSmooth(patch_hw, preprocess.size_hw, postprocess)
        mean, std = np.array(preprocess.mean), np.array(preprocess.std)
        self._constant("rows", operator.rows.dense)
        self._constant("columns_transposed", operator.columns.dense.T)
        self._constant("scale", (1 / (255 * std))[:, None, None])
        self._constant("shift", (-mean / std)[:, None, None])

    def _constant(self, name: str, value: NDArray[Any]) -> None:
        self.register_buffer(name, torch.tensor(np.ascontiguousarray(value), dtype=torch.float32))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normalised = image.float().permute(0, 3, 1, 2) * self.scale + self.shift
        logits = self.logits(normalised)
        patch_map = torch.sigmoid(logits) if self.activation == "sigmoid" else logits
        anomaly_map = self.rows @ (patch_map @ self.columns_transposed)
        scored = anomaly_map if self.scored_map == "anomaly_map" else patch_map
        if self.top_pixels is None:
            return patch_map, anomaly_map, scored.amax((1, 2))
        pixels = scored.shape[1] * scored.shape[2]
        top = scored.reshape(-1, pixels).topk(min(self.top_pixels, pixels), dim=1).values
        return patch_map, anomaly_map, top.mean(1)


def published_module(
    family: ModelFamily, loaded: LoadedNetwork[Any], preprocess: PreprocessSpec, postprocess: PostprocessSpec
) -> ContractModule:
    """The network as published inside of the contract, the oracle of the export check."""
    return _around(family.published(loaded, preprocess.size_hw), preprocess, postprocess)


def fast_module(
    family: ModelFamily, loaded: LoadedNetwork[Any], preprocess: PreprocessSpec, postprocess: PostprocessSpec
) -> ContractModule:
    """The network in the form that is exported, inside of the contract."""
    return _around(family.fast(loaded, preprocess.size_hw), preprocess, postprocess)


def _around(head: nn.Module, preprocess: PreprocessSpec, postprocess: PostprocessSpec) -> ContractModule:
    head.eval()
    with torch.no_grad():
        shape = head(torch.zeros(1, 3, *preprocess.size_hw)).shape
    return ContractModule(head, (int(shape[1]), int(shape[2])), preprocess, postprocess).eval()
