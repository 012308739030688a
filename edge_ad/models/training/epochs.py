"""What an epoch came to, and whether it is the best so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_ad.models.training.labelled import Standing
from edge_ad.models.training.options import TrainOptions
from edge_ad.training_run import BY_LABELS, BestEpoch

BY_LOSS = "smallest mean training loss (nobody looked at labels)"
BY_TIME = "the last epoch"
ONE_PASS = "fitted in one pass, without losses"


@dataclass(frozen=True)
class EpochFigures:
    """Means over the steps of one epoch, and what labelled pictures say after it.

    Attributes:
        epoch: counted from 0.
        losses: by name; their sum is what was minimised. None are there where a family fits in one pass.
        shares: other figures by name, such as the share of patches that were told apart.
        standing: None where nobody looked.
    """

    epoch: int
    losses: Mapping[str, float]
    shares: Mapping[str, float] = field(default_factory=dict)
    standing: Standing | None = None

    @property
    def loss(self) -> float | None:
        return sum(self.losses.values()) if self.losses else None

    @property
    def row(self) -> dict[str, float | None]:
        """By the names of the CSV's columns."""
        standing = self.standing
        return {
            "epoch": self.epoch,
            **({"loss": self.loss} if self.losses else {}),
            **{f"loss_{name}": value for name, value in self.losses.items()},
            **self.shares,
            "image_auroc": None if standing is None else standing.image_auroc,
            "pixel_auroc": None if standing is None else standing.pixel_auroc,
        }


def is_better(options: TrainOptions, figures: EpochFigures, best: BestEpoch | None) -> bool:
    """Whether the weights of an epoch take the place of those that were kept."""
    if options.select == "last" or best is None:
        return True
    if figures.standing is not None and best.image_auroc is not None:
        return figures.standing.sum > best.image_auroc + (best.pixel_auroc or 0.0)
    if figures.standing is not None:
        return True  # labels tell more than losses
    if figures.loss is None or best.loss is None:
        return True
    return best.image_auroc is None and figures.loss < best.loss


def best_epoch(options: TrainOptions, figures: EpochFigures) -> BestEpoch:
    """The record of an epoch that is kept, with the rule by which it is."""
    standing = figures.standing
    rule = BY_TIME if options.select == "last" else BY_LOSS if standing is None else BY_LABELS
    if figures.loss is None:
        rule = ONE_PASS
    if standing is None:
        return BestEpoch(figures.epoch, rule, figures.loss)
    return BestEpoch(figures.epoch, rule, figures.loss, standing.image_auroc, standing.pixel_auroc)


def patience_is_over(options: TrainOptions, best: BestEpoch, epoch: int) -> bool:
    """Whether too many epochs have passed since the best one."""
    return options.select == "best" and options.patience > 0 and epoch - best.epoch >= options.patience


def is_due(options: TrainOptions, epoch: int) -> bool:
    """Whether labelled pictures are to be looked at after an epoch; the last one always is, where any is."""
    last = epoch + 1 == options.epochs
    return bool(options.eval_every and (last or (epoch + 1) % options.eval_every == 0))
