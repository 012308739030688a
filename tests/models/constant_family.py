"""A family of few lines: the brightness of a patch is its anomaly. It registers, trains and exports like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.models.family import About, LoadedNetwork, ModelFamily
from edge_ad.models.training.epochs import EpochFigures
from edge_ad.models.training.options import TrainOptions
from edge_ad.models.weights import read_tensors, sha256_of

PATCH = 8


class Brightness(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.last = nn.Conv2d(3, 4, PATCH, stride=PATCH), nn.Conv2d(4, 1, 1)
        nn.init.constant_(self.mean.weight, 1 / (3 * PATCH * PATCH))
        nn.init.constant_(self.last.weight, 1 / 4)

    def forward(self, image: torch.Tensor) -> Any:
        return self.last(torch.relu(self.mean(image))).squeeze(1)


class Trainer:
    """Learns nothing; `frozen`, `overlays` and `foreground` are a recipe's, the rest a trainer's."""

    family, state_keys = "brightness", ("network",)

    def network(self, options: Any, progress: Any, begun: Any) -> Brightness:
        return Brightness()

    def frozen(self, network: Any) -> dict[str, Any]:
        return {}

    def overlays(self, options: Any) -> bool:
        return False

    def foreground(self, options: Any) -> Any:
        return "none"

    def trainer(self, network: Brightness, material: Any) -> Any:
        self._network, self._epochs = network, material.options.epochs
        return self, {}

    def steps(self) -> int:
        return 1

    def epochs(self, first: int, after_step: Callable[[str], None]) -> Iterator[EpochFigures]:
        yield from (EpochFigures(epoch, {"none": 0.0}) for epoch in range(first, self._epochs))

    def checkpoint(self) -> dict[str, Any]:
        return {"brightness": self._network.state_dict()}

    def state(self) -> dict[str, Any]:
        return {"network": self._network.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self._network.load_state_dict(state["network"])

    def samples(self) -> Any:
        return iter(())


class BrightnessFamily(ModelFamily):
    name = "brightness"
    about = About("nobody", "bright spots", "none", "none", "its own", "Apache-2.0")
    train_options = TrainOptions
    preprocess = PreprocessSpec(64, 64, resize_mode="stretch", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    postprocess = PostprocessSpec(activation="none", smoothing="none", score="top_mean", top_pixels=300)
    known_by = ("brightness.mean.weight",)

    def load(self, checkpoint: Any, options: Any, references: Any) -> LoadedNetwork[Brightness]:
        network = Brightness()
        network.load_state_dict(read_tensors(checkpoint, "checkpoint")["brightness"])
        return LoadedNetwork(network.eval(), {}, sha256_of(checkpoint))

    def recipe(self) -> Trainer:
        return Trainer()

    def published(
        self, loaded: LoadedNetwork[Brightness], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        return loaded.network

    def fast(
        self, loaded: LoadedNetwork[Brightness], preprocess: PreprocessSpec, postprocess: PostprocessSpec
    ) -> nn.Module:
        return loaded.network


FAMILY = BrightnessFamily()
