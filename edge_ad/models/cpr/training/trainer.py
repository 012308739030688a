"""Epochs of CPR: the metric networks learn on the taps of a frozen backbone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_ad.errors import TrainingError
from edge_ad.image.frame import ImageArray
from edge_ad.models.cpr.checkpoint import checkpoint_of
from edge_ad.models.cpr.fast import FastCpr
from edge_ad.models.cpr.network import Cpr, LocalBranch
from edge_ad.models.cpr.training.loss import Points, contrastive_losses
from edge_ad.models.cpr.training.options import CprTrainOptions
from edge_ad.models.cpr.training.samples import Batch, Samples
from edge_ad.models.patch_head.features import FrozenTaps, TapCache
from edge_ad.models.training.drawing import chunks
from edge_ad.models.training.epochs import EpochFigures, is_due
from edge_ad.models.training.labelled import LabelledPictures, Standing
from edge_ad.models.training.session import SamplePair

LOSSES = ("positive", "negative")
LABELLED_BATCH = 4
AFTER_DIVERGENCE = "no weights of this epoch are kept; try a lower --learning-rate"


def optimizer_of(lrb: LocalBranch, options: CprTrainOptions) -> torch.optim.AdamW:
    """That of the authors' code."""
    return torch.optim.AdamW(lrb.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)


def step(
    lrb: LocalBranch,
    optimizer: torch.optim.Optimizer,
    taps: Sequence[Tensor],
    points: Points,
) -> tuple[float, float]:
    """Train on one batch. Args: taps: (2 B, C_i, h_i, w_i), of B pictures and behind them of those they retrieved."""
    lrb.train()
    described = [_halves(each) for each in lrb(taps)]
    losses = contrastive_losses(described, [_halves(each) for each in taps], points)
    optimizer.zero_grad()
    torch.autograd.backward(losses)
    optimizer.step()
    return losses[0].item(), losses[1].item()


def _halves(features: Tensor) -> tuple[Tensor, Tensor]:
    first, second = features.chunk(2)
    return first, second


class CprTrainer:
    """Metric networks and what they learn from; see `edge_ad.models.training.session.Trainer`.

    Without metric networks there is nothing to learn: one epoch of no steps, after which pictures may be looked at.
    """

    state_keys = ("lrb", "optimizer", "backbone")

    def __init__(
        self,
        network: Cpr,
        samples: Samples,
        cache: TapCache,
        taps: FrozenTaps,
        labelled: LabelledPictures | None,
        options: CprTrainOptions,
    ) -> None:
        self.network, self._samples, self._cache, self._taps = network, samples, cache, taps
        self._labelled, self._options = labelled, options
        self.optimizer = None if network.lrb is None else optimizer_of(network.lrb, options)

    def steps(self) -> int:
        """Steps of one epoch."""
        return 1 if self.network.lrb is None else self._options.epoch_steps

    def epochs(self, first: int, after_step: Callable[[str], None]) -> Iterator[EpochFigures]:
        """Train from epoch `first` to the last."""
        last = 1 if self.network.lrb is None else self._options.epochs
        for epoch in range(first, last):
            yield self._epoch(epoch, after_step)

    def checkpoint(self) -> dict[str, Any]:
        """Our own file."""
        return checkpoint_of(self.network)

    def state(self) -> dict[str, Any]:
        lrb, optimizer = self.network.lrb, self.optimizer
        return {
            "lrb": {} if lrb is None else lrb.state_dict(),
            "optimizer": {} if optimizer is None else optimizer.state_dict(),
            "backbone": self.network.backbone.trunk.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        for name, value in self.network.backbone.trunk.state_dict().items():
            if not torch.equal(value.cpu(), state["backbone"][name]):
                raise ValueError(f"begun with other weights of the backbone: {name!r} differs")
        if self.network.lrb is not None and self.optimizer is not None:
            self.network.lrb.load_state_dict(state["lrb"])
            self.optimizer.load_state_dict(state["optimizer"])

    def samples(self) -> Iterator[SamplePair]:
        """What the first epoch draws."""
        if self.network.lrb is None:
            return
        for batch in self._samples(0):
            for pair in batch.pairs:
                if pair.mask.any():
                    yield self._samples.picture(pair.source), pair.image_hwc, pair.mask

    def _epoch(self, epoch: int, after_step: Callable[[str], None]) -> EpochFigures:
        if self.network.lrb is None or self.optimizer is None:
            after_step("nothing to train")
            return EpochFigures(epoch, {}, standing=self._look(epoch))
        found = []
        for number, batch in enumerate(self._samples(epoch)):
            losses = step(self.network.lrb, self.optimizer, self._pair_taps(batch), batch.points)
            told = ", ".join(f"{name} {value:.4f}" for name, value in zip(LOSSES, losses, strict=True))
            if not all(map(math.isfinite, losses)):
                raise TrainingError(f"loss is not finite in epoch {epoch}, step {number} ({told}); {AFTER_DIVERGENCE}")
            found.append(losses)
            after_step(f"loss {sum(losses):.4f} ({told})")
        for name, value in self.network.lrb.state_dict().items():
            if not bool(torch.isfinite(value).all()):
                raise TrainingError(f"weights {name!r} are not finite after epoch {epoch}; {AFTER_DIVERGENCE}")
        means = np.mean(found, axis=0)
        self.network.lrb.eval()
        figures = {name: float(value) for name, value in zip(LOSSES, means, strict=True)}
        return EpochFigures(epoch, figures, standing=self._look(epoch))

    def _pair_taps(self, batch: Batch) -> list[Tensor]:
        """Taps of the pictures and of what they retrieve; those of good pictures as they were are in the cache."""
        retrieved = [pair.retrieved_hwc for pair in batch.pairs]
        changed = [image for image in retrieved if image is not None]
        same = [pair.retrieved for pair, image in zip(batch.pairs, retrieved, strict=True) if image is None]
        new = [*(pair.image_hwc for pair in batch.pairs), *changed]
        own, others = self._cache.with_others(same, new) if same else ([], self._taps(new))
        found = []
        for tap, computed in enumerate(others):
            kept, fresh = iter(own[tap] if same else ()), iter(computed[len(batch.pairs) :])
            second = torch.stack([next(kept) if image is None else next(fresh) for image in retrieved])
            found.append(torch.cat([computed[: len(batch.pairs)], second]))
        return found

    def _look(self, epoch: int) -> Standing | None:
        if self._labelled is None or not is_due(self._options, epoch):
            return None
        patches, maps = self._maps(self._labelled.images)
        return self._labelled.ranked(patches, maps)

    def _maps(self, images: Sequence[ImageArray]) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Patch maps and anomaly maps of pictures, by the network as it is."""
        fast = FastCpr(self.network, self._options.preprocess, self._options.postprocess).to(self._taps.device)
        patches: list[NDArray[np.float32]] = []
        maps: list[NDArray[np.float32]] = []
        with torch.no_grad():
            for part in chunks(range(len(images)), LABELLED_BATCH):
                answer = fast(self._taps.normalised([images[number] for number in part]))
                patches += list(answer.patches.cpu().numpy())
                assert answer.anomaly_map is not None
                maps += list(answer.anomaly_map.cpu().numpy())
        return patches, maps
