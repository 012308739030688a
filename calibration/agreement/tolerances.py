"""How far a candidate may be from its reference, and what it breaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from edge_ad.calibration.agreement.figures import Agreement, RankChange
from edge_ad.validation import strict

_ROUNDING = 1e-9  # 0.29 · 100 is a little less than 29
_NAMED = 3

Share = Annotated[float, Field(ge=0, le=1)]


@strict
@dataclass(frozen=True)
class Tolerances:
    """How far a candidate may be from its reference. A candidate that ranks better than it is never too far.

    Attributes:
        flips: share of the images that may change their label, beyond those within the score noise.
        auroc_drop: how much AUROC of the images may be lost, but always one pair of a good and a defective image,
            because less than that cannot be seen.
        pixel_auroc_drop: the same of the pixels.
        map_correlation: least correlation of the anomaly maps, -1..1.
    """

    flips: Share = 0.002
    auroc_drop: Share = 0.002
    pixel_auroc_drop: Share = 0.005
    map_correlation: Annotated[float, Field(ge=-1, le=1)] = 0.95

    def __post_init__(self) -> None:
        """Raises: ValueError for a number that is out of its range."""
        for key in ("flips", "auroc_drop", "pixel_auroc_drop", "map_correlation"):
            value, low = getattr(self, key), -1 if key == "map_correlation" else 0
            if not low <= value <= 1:
                raise ValueError(f"{key}: wanted a number from {low} to 1, got {value:g}")


@dataclass(frozen=True)
class Statement:
    """One check of an agreement.

    Attributes:
        key: the tolerance that it is about, or `lost`.
        name: what is checked, for people.
        figure: what was found, in one line.
        allowed: what was allowed, in one line.
        ok: whether the one is within the other.
    """

    key: str
    name: str
    figure: str
    allowed: str
    ok: bool


@dataclass(frozen=True)
class Breach:
    """One check that failed: its key, and a line that says the figure and what was allowed."""

    key: str
    text: str


def statements(agreement: Agreement, tolerances: Tolerances) -> tuple[Statement, ...]:
    """All checks, passed or not. A check that the images do not allow is left out: AUROC without labels or masks."""
    found = [_lost(agreement), _flips(agreement, tolerances.flips)]
    for key, name, change in (
        ("auroc_drop", "image AUROC", agreement.auroc),
        ("pixel_auroc_drop", "pixel AUROC", agreement.pixel_auroc),
    ):
        if change is not None:
            found.append(_ranks(key, name, change, getattr(tolerances, key)))
    return (*found, _maps(agreement, tolerances.map_correlation))


def breaches(agreement: Agreement, tolerances: Tolerances) -> tuple[Breach, ...]:
    """The checks that failed."""
    return tuple(
        Breach(check.key, f"{check.name}: {check.figure}; allowed: {check.allowed}")
        for check in statements(agreement, tolerances)
        if not check.ok
    )


def _lost(agreement: Agreement) -> Statement:
    dropped = agreement.dropped
    figure = f"{len(dropped)} that the reference judged and the candidate did not{_names(dropped)}"
    return Statement("lost", "lost images", figure, "none", not dropped)


def _flips(agreement: Agreement, share: float) -> Statement:
    images, beyond = agreement.images, agreement.flips_beyond_noise
    allowed = math.floor(share * images + _ROUNDING)
    low, high = agreement.flip_interval
    names = _names([flip.name for flip in agreement.flips if not flip.within_noise])
    if agreement.noise is None:
        what = f"{beyond} of {images} images change their label"
    else:
        what = (
            f"{beyond} of {images} images change their label beyond the score noise of {agreement.noise.value:.2g}"
            f" ({len(agreement.flips) - beyond} within it)"
        )
    return Statement(
        key="flips",
        name="label flips",
        figure=f"{what}: {_percent(beyond / images)}, {agreement.confidence:.0%} interval"
        f" {_percent(low)} to {_percent(high)}{names}",
        allowed=f"{_percent(share)}, which is {allowed} of {images} images",
        ok=beyond <= allowed,
    )


def _ranks(key: str, name: str, change: RankChange, drop: float) -> Statement:
    allowed = max(1, math.floor(drop * change.pairs + _ROUNDING))
    figure = f"{change.reference:.4f} to {change.candidate:.4f}, {change.candidate - change.reference:+.4f}"
    limit = f"a drop of {drop:g}"
    if change.interval is not None and change.confidence is not None:  # of images: few enough to count pairs
        low, high = change.interval
        figure += f" ({_balance(change.swapped)} of {change.pairs} pairs"
        figure += f", {change.confidence:.0%} interval {low:+.4f} to {high:+.4f})"
        limit += f", which is {_pairs(allowed)} of {change.pairs}"
        limit += ", the least that can be seen" if drop * change.pairs < 1 else ""
    return Statement(key, name, figure, limit, change.swapped <= allowed)


def _maps(agreement: Agreement, least: float) -> Statement:
    correlation = agreement.map_correlation
    if correlation is not None:
        figure = f"{correlation:.4f} over all pixels"
    elif agreement.map_error_max == 0:  # maps without any variance that are the same agree as well as maps can
        figure, correlation = "not defined: the maps do not vary, and are the same", 1.0
    else:
        figure, correlation = "not defined: the maps of one of the models do not vary", -1.0
    return Statement("map_correlation", "correlation of the maps", figure, f"at least {least:g}", correlation >= least)


def _balance(swapped: float) -> str:
    return f"{swapped:g} net swapped" if swapped >= 0 else f"{-swapped:g} net put right"


def _pairs(count: int) -> str:
    return f"{count} swapped pair" + ("" if count == 1 else "s")


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _names(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f" ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
