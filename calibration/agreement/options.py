"""Options of `edge-ad compare`, the same from the command line and from a YAML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from edge_ad.bundle.specs import Precision
from edge_ad.calibration.agreement.tolerances import Share, Tolerances
from edge_ad.errors import ConfigError
from edge_ad.validation import build_rest, by_name, strict


@strict
@dataclass(frozen=True)
class CompareOptions:
    """Everything `edge-ad compare` can be told.

    Attributes:
        a: directory of the reference's bundle.
        b: directory of the candidate's bundle; it may be the same one.
        data: root of a data set, or a folder of good images.
        precision_a, precision_b: which of the bundle's models; None for its default.
        engine_a, engine_b: as for `edge-ad run`.
        threshold: raw score to count label flips at, in place of the reference's own.
        output: folder for the report; None writes none.
        max_flips, max_auroc_drop, max_pixel_auroc_drop, min_map_correlation: see `Tolerances`.
        seed: of the noise and of the bootstrap.
        engine_cache: folder for compiled models.
        force: replace an earlier report.
    """

    a: Path
    b: Path
    data: Path
    precision_a: Precision | None = None
    precision_b: Precision | None = None
    engine_a: str = "openvino"
    engine_b: str = "openvino"
    threshold: float | None = None
    output: Path | None = None
    max_flips: Share = Tolerances.flips
    max_auroc_drop: Share = Tolerances.auroc_drop
    max_pixel_auroc_drop: Share = Tolerances.pixel_auroc_drop
    min_map_correlation: Annotated[float, Field(ge=-1, le=1)] = Tolerances.map_correlation
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    engine_cache: Path | None = None
    force: bool = False

    @property
    def tolerances(self) -> Tolerances:
        return Tolerances(
            flips=self.max_flips,
            auroc_drop=self.max_auroc_drop,
            pixel_auroc_drop=self.max_pixel_auroc_drop,
            map_correlation=self.min_map_correlation,
        )


def compare_options(values: dict[str, Any], where: str, overrides: dict[str, Any] | None = None) -> CompareOptions:
    """Check options by name.

    Args:
        values: by name, words joined by `_` or `-`; None is the same as not given.
        overrides: by field name; they win.

    Raises: ConfigError with every fault.
    """
    named, faults = by_name(values)
    given = {key: value for key, value in (named | _given(overrides or {})).items() if value is not None}
    options, wrong = build_rest(CompareOptions, given, {"a": Path(), "b": Path(), "data": Path()})
    faults += [fault.line for fault in wrong]
    if faults:
        raise ConfigError(where, faults)
    return options


def _given(overrides: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in overrides.items() if value is not None}
