"""Which of the configurations that were tried is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_ad.errors import ConfigError
from edge_ad.metrics.ranking import auroc

MARGIN = 0.01
"""By how much the quality of a configuration has to exceed that of one before it, at least."""
SURE = 2.0
"""And by how many standard deviations of the difference."""
RESAMPLES = 400


@dataclass(frozen=True)
class Judgement:
    """One picture of a trial, judged.

    Attributes:
        origin: what pictures with different defects drawn on them have in common, and the good one with them.
        defective: whether there is a defect on it.
        score: of the picture.
    """

    origin: str
    defective: bool
    score: float


@dataclass(frozen=True)
class Tried:
    """What came of a configuration.

    Attributes:
        name: of the candidate.
        pixel_auroc: on the pictures held out against defective ones; None where there is no mask.
        latency_ms: median of a frame, from the picture in memory to the verdict, on this machine.
        training_s: that trying it took, with everything.
        judgements: of all pictures that could be judged, good ones and defective ones among them.
    """

    name: str
    pixel_auroc: float | None
    latency_ms: float
    training_s: float
    judgements: tuple[Judgement, ...]

    @property
    def image_auroc(self) -> float:
        """Of the scores."""
        return _auroc(self.judgements)

    @property
    def quality(self) -> float:
        """Mean of both AUROCs, for a defect has to be found and shown; of one, where the other is unknown."""
        return self.image_auroc if self.pixel_auroc is None else (self.image_auroc + self.pixel_auroc) / 2

    @property
    def figures(self) -> dict[str, float | str | None]:
        """What a run's record keeps, by name."""
        names = ("name", "image_auroc", "pixel_auroc", "latency_ms", "training_s")
        values = {name: getattr(self, name) for name in names}
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


def uncertainty(one: Tried, other: Tried, seed: int = 0) -> float:
    """Standard deviation of the difference of two qualities, by drawing the pictures of the trial again (bootstrap).

    All pictures of one origin are drawn together, and both configurations judge the same ones. Only the image AUROC is
    taken to vary: pixels are many.
    """
    origins = sorted({each.origin for each in one.judgements} & {each.origin for each in other.judgements})
    groups = [
        {origin: [each for each in tried.judgements if each.origin == origin] for origin in origins}
        for tried in (one, other)
    ]
    rng = np.random.default_rng(seed)
    differences = []
    for _ in range(RESAMPLES):
        drawn = [origins[index] for index in rng.integers(len(origins), size=len(origins))]
        pair = [[each for origin in drawn for each in group[origin]] for group in groups]
        if all({each.defective for each in judgements} == {True, False} for judgements in pair):
            differences.append(_auroc(pair[0]) - _auroc(pair[1]))
    share = 1.0 if one.pixel_auroc is None or other.pixel_auroc is None else 0.5
    return share * float(np.std(differences)) if differences else 0.0


def _auroc(judgements: Sequence[Judgement]) -> float:
    scores = np.array([each.score for each in judgements])
    found = auroc(scores, np.array([each.defective for each in judgements]))
    assert found is not None
    return found


def taken(tried: Sequence[Tried], budget_ms: float | None, left_out: Sequence[str] = ()) -> Tried:
    """The one to take, of those that hold the budget.

    They stand in the order in which they are believed in: a later one has to be better than those before it by more
    than MARGIN, and by more than SURE times what the pictures of the trial leave uncertain.

    Args: left_out: names of those that were not tried, for the message.

    Raises: ConfigError where none holds the budget.
    """
    holding = [one for one in tried if budget_ms is None or one.latency_ms <= budget_ms]
    if not holding:
        untried = f" ({', '.join(left_out)} not tried)" if left_out else ""
        fastest = min(tried, key=lambda one: one.latency_ms)
        raise ConfigError(
            "budget_ms",
            [
                f"no configuration judges a frame in {budget_ms:g} ms here; the fastest, {fastest.name}, takes"
                f" {fastest.latency_ms:.1f} ms{untried}; allow more, or train for a faster machine without --budget-ms"
            ],
        )
    best = holding[0]
    for one in holding[1:]:
        gain = one.quality - best.quality
        if gain > MARGIN and gain > SURE * uncertainty(one, best):
            best = one
    return best
