"""A family whose checkpoint lacks the good pictures, and whose maps and scores are its own: far from their mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.models.contract import Answer
from edge_ad.models.family import About, LoadedNetwork, ModelFamily
from edge_ad.models.references import ReferenceOptions, References
from edge_ad.models.training.options import TrainOptions
from edge_ad.models.weights import read_tensors, sha256_of

MARGIN = 2
SCORES: Any = {"family": (0.0, None)}


class FarFromMean(nn.Module):
    """Differences from the mean picture; the margin of the anomaly map says nothing."""

    def __init__(self, mean: np.ndarray, own_score: bool) -> None:
        super().__init__()
        self.channels, self.mean_of = nn.Conv2d(3, 6, 1, bias=False), nn.Conv2d(6, 1, 1, bias=False)
        self.channels.weight.data = torch.cat([torch.eye(3), -torch.eye(3)])[:, :, None, None]
        nn.init.constant_(self.mean_of.weight, 1 / 3)
        self.register_buffer("mean", torch.from_numpy(mean).permute(2, 0, 1)[None])
        self._own_score = own_score

    def forward(self, image: torch.Tensor) -> Answer:
        patches = self.mean_of(torch.relu(self.channels(image - self.mean))).squeeze(1)
        inner = patches[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
        anomaly_map = torch.nn.functional.pad(inner, [MARGIN] * 4)
        return Answer(patches, anomaly_map, 100 * inner.mean((1, 2)) if self._own_score else None)


class FarFamily(ModelFamily):
    name = "far"
    about = About("nobody", "other pictures", "none", "none", "its own", "Apache-2.0")
    network_options = ReferenceOptions
    train_options = TrainOptions
    preprocess = PreprocessSpec(64, 64, resize_mode="stretch", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    postprocess = PostprocessSpec(
        activation="none", smoothing="none", score="family", score_range=SCORES["family"], frame_map="anomaly_map"
    )
    score_ranges = SCORES
    known_by = ("far.marker",)

    def load(self, checkpoint: Any, options: Any, references: References) -> LoadedNetwork[np.ndarray]:
        held = read_tensors(checkpoint, "checkpoint")
        if "mean" in held:
            return LoadedNetwork(held["mean"].numpy(), {}, sha256_of(checkpoint))
        pictures = np.stack(list(references.required("a far checkpoint does not hold its mean")))
        mean = (pictures / 255).mean(0).astype(np.float32)
        return LoadedNetwork(mean, {"references": list(references.names)}, sha256_of(checkpoint))

    def recipe(self) -> Any:
        raise AssertionError("it is never trained")

    def published(self, loaded: Any, preprocess: PreprocessSpec, postprocess: PostprocessSpec) -> nn.Module:
        return FarFromMean(loaded.network, postprocess.score == "family")

    fast = published


FAMILY = FarFamily()
