"""The graph around a network: uint8 picture in; patch map, anomaly map and score out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.bundle.tiles import TileGrid
from edge_ad.errors import ConfigError
from edge_ad.image.operators import ResizeSmooth
from edge_ad.models.family import LoadedNetwork, ModelFamily
from edge_ad.models.tiling import Tiling


class Answer(NamedTuple):
    """What a network gives that says more than one number per patch; all float32.

    Attributes:
        patches: (N, h, w), what the activation of the post-process makes the patch map of.
        anomaly_map: (N, H, W), of a family whose anomaly map is no smoothing of its patch map, as its spec then says
            (`frame_map`); None where it is one.
        score: (N,), where the spec names a score that only the graph knows; None where it is taken from a map.
    """

    patches: Tensor
    anomaly_map: Tensor | None = None
    score: Tensor | None = None


class ContractModule(nn.Module):
    """Honours the ONNX contract around a head: a network that gives one number per patch, or an `Answer`.

    `forward`: (N, H, W, 3) uint8 RGB → patch_map (N, h, w), anomaly_map (N, H, W), pred_score (N,), all float32.
    The picture is cast before it is transposed: TensorRT accepts no uint8 transpose. Resize and smoothing are two
    matrix products with constant matrices, see `edge_ad.image.operators`.
    """

    rows: Tensor
    columns_transposed: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        head: nn.Module,
        preprocess: PreprocessSpec,
        postprocess: PostprocessSpec,
        tiles: TileGrid | None = None,
        border: int = 0,
    ) -> None:
        """Args:
            head: for pictures of `preprocess`; in tiles, for all tiles of pictures.
            preprocess: of a picture, or of a tile.
            tiles: how the picture is cut apart; None where the head is given all of it.
            border: of the head, see `ModelFamily.border`.

        Raises: ConfigError where the head does not answer what the spec says that it does, or in patches that do not
        lie on the canvas of all tiles.
        """
        super().__init__()
        head.eval()
        with torch.no_grad():
            answer = _answer(head(torch.zeros(1 if tiles is None else tiles.count, 3, *preprocess.size_hw)))
        _check(answer, preprocess.size_hw, postprocess)
        self.logits = head
        patch_hw, size_hw = (int(answer.patches.shape[1]), int(answer.patches.shape[2])), preprocess.size_hw
        self.tiling = None if tiles is None else Tiling(tiles, patch_hw, border)
        if self.tiling is not None:
            patch_hw, size_hw = self.tiling.patch_hw, self.tiling.size_hw
        self.activation = postprocess.activation
        self.scored_map, self.top_pixels = postprocess.scored_map, postprocess.top_pixels
        mean, std = np.array(preprocess.mean), np.array(preprocess.std)
        if answer.anomaly_map is None:
            operator = ResizeSmooth(patch_hw, size_hw, postprocess)
            self._constant("rows", operator.rows.dense)
            self._constant("columns_transposed", operator.columns.dense.T)
        self._constant("scale", (1 / (255 * std))[:, None, None])
        self._constant("shift", (-mean / std)[:, None, None])

    def _constant(self, name: str, value: NDArray[Any]) -> None:
        self.register_buffer(name, torch.tensor(np.ascontiguousarray(value), dtype=torch.float32))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels = image.float()
        if self.tiling is not None:
            pixels = self.tiling.cut(pixels)
        normalised = pixels.permute(0, 3, 1, 2) * self.scale + self.shift
        patches, anomaly_map, score = _answer(self.logits(normalised))
        if self.tiling is not None:
            patches, anomaly_map, score = self.tiling.joined(patches, anomaly_map, score)
        patch_map = torch.sigmoid(patches) if self.activation == "sigmoid" else patches
        if anomaly_map is None:
            anomaly_map = self.rows @ (patch_map @ self.columns_transposed)
        if score is None:
            score = self._score(anomaly_map if self.scored_map == "anomaly_map" else patch_map)
        return patch_map, anomaly_map, score

    def _score(self, scored: Tensor) -> Tensor:
        if self.top_pixels is None:
            return scored.amax((1, 2))
        pixels = scored.shape[1] * scored.shape[2]
        top = scored.reshape(-1, pixels).topk(min(self.top_pixels, pixels), dim=1).values
        return top.mean(1)


def published_module(
    family: ModelFamily,
    loaded: LoadedNetwork[Any],
    preprocess: PreprocessSpec,
    postprocess: PostprocessSpec,
    tiles: TileGrid | None = None,
) -> ContractModule:
    """The network as published inside of the contract, the oracle of the export check.

    Args:
        preprocess: of a picture, or of a tile.
        tiles: how pictures are cut apart; None where they are not.
    """
    head = family.published(family.on_canvas(loaded, preprocess, tiles), preprocess, postprocess)
    return ContractModule(head, preprocess, postprocess, tiles, family.border).eval()


def fast_module(
    family: ModelFamily,
    loaded: LoadedNetwork[Any],
    preprocess: PreprocessSpec,
    postprocess: PostprocessSpec,
    tiles: TileGrid | None = None,
) -> ContractModule:
    """The network in the form that is exported, inside of the contract; arguments as for `published_module`."""
    head = family.fast(family.on_canvas(loaded, preprocess, tiles), preprocess, postprocess)
    return ContractModule(head, preprocess, postprocess, tiles, family.border).eval()


def _answer(given: Tensor | Answer) -> Answer:
    return given if isinstance(given, Answer) else Answer(given)


def _check(answer: Answer, size_hw: tuple[int, int], postprocess: PostprocessSpec) -> None:
    own_map, own_score = postprocess.frame_map == "anomaly_map", postprocess.scored_map is None
    faults = []
    if own_score != (answer.score is not None):
        wanted = "has to give" if own_score else "is taken from a map, the network must not give"
        faults.append(f"score: {postprocess.score!r} {wanted} one of its own")
    if own_map != (answer.anomaly_map is not None):
        wanted = "has to give" if own_map else "must not give"
        faults.append(f"frame_map: with {postprocess.frame_map!r} the network {wanted} an anomaly map")
    elif answer.anomaly_map is not None and answer.anomaly_map.shape[1:] != size_hw:
        faults.append(f"anomaly_map: wanted {size_hw}, the network gives {tuple(answer.anomaly_map.shape[1:])}")
    if faults:
        raise ConfigError("network and post-process", faults)
