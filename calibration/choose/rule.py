"""Which of the configurations that were tried is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_ad.errors import ConfigError

MARGIN = 0.005
"""Configurations whose quality is lower by no more than this count as good as the best: of them the fastest is taken.
It is what the image AUROC of 40 good and 160 defective pictures tells apart at best."""


@dataclass(frozen=True)
class Tried:
    """What came of a configuration.

    Attributes:
        name: of the candidate.
        image_auroc, pixel_auroc: on the pictures held out against defective ones; None where there is no mask.
        latency_ms: median of a frame, from the picture in memory to the verdict, on this machine.
        training_s: that trying it took, with everything.
    """

    name: str
    image_auroc: float
    pixel_auroc: float | None
    latency_ms: float
    training_s: float

    @property
    def quality(self) -> float:
        """Mean of both AUROCs, for a defect has to be found and shown; of one, where the other is unknown."""
        return self.image_auroc if self.pixel_auroc is None else (self.image_auroc + self.pixel_auroc) / 2


def taken(tried: Sequence[Tried], budget_ms: float | None, name: str | None = None) -> Tried:
    """The best that holds the budget, or the one of that name.

    Raises: ConfigError where none holds it, or none has that name.
    """
    if name is not None:
        for one in tried:
            if one.name == name:
                return one
        raise ConfigError("take", [f"wanted one of {', '.join(one.name for one in tried)}, got {name}"])
    holding = [one for one in tried if budget_ms is None or one.latency_ms <= budget_ms]
    if not holding:
        fastest = min(tried, key=lambda one: one.latency_ms)
        raise ConfigError(
            "budget_ms",
            [
                f"no configuration judges a frame in {budget_ms:g} ms here; the fastest, {fastest.name}, takes"
                f" {fastest.latency_ms:.1f} ms; allow more, or train for a faster machine without --budget-ms"
            ],
        )
    best = max(one.quality for one in holding)
    return min((one for one in holding if one.quality >= best - MARGIN), key=lambda one: one.latency_ms)
