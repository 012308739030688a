"""Options of `edge-ad eval` and `edge-ad threshold`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edge_ad.bundle.specs import Precision
from edge_ad.calibration.destination import ChangedBundle
from edge_ad.calibration.evaluation.evaluate import Protocol
from edge_ad.calibration.evaluation.thresholds import ThresholdRequest
from edge_ad.datasets import Dataset, open_dataset, plain_dataset
from edge_ad.errors import ConfigError
from edge_ad.validation import build_rest, strict

DEFAULT_QUANTILE = 0.99
DEFAULT_RATE = 0.01


@strict
@dataclass(frozen=True)
class EvalOptions:
    """Everything `edge-ad eval` can be told.

    Attributes:
        model: directory of a bundle, or of a training run.
        data: root of a data set.
        good, bad, masks: plain folders in place of `data`.
        output: folder for the results; `eval-<name of the model>` when None.
        engine, precision, engine_cache: as for `edge-ad run`.
        threshold: raw score in place of the bundle's.
        protocol: `study` has one half of the images choose the threshold and the other half report.
        seed: which halves.
        noise_seeds: how many other draws of the noise in the graph to judge the images with; 0 for none.
        force: replace earlier results.
    """

    model: Path
    data: Path | None = None
    good: Path | None = None
    bad: Path | None = None
    masks: Path | None = None
    output: Path | None = None
    engine: str = "openvino"
    precision: Precision | None = None
    engine_cache: Path | None = None
    threshold: float | None = None
    protocol: Protocol = "none"
    seed: int = 0
    noise_seeds: Annotated[int, Field(ge=0, le=1000)] = 0
    force: bool = False

    @property
    def folder(self) -> Path:
        return (
            self.output
            if self.output is not None
            else Path(f"eval-{self.model.resolve().name.removesuffix('.edgead')}")
        )

    @property
    def dataset(self) -> Dataset:
        """The images, listed. Raises: SourceError."""
        return _dataset(self.data, self.good, self.bad, self.masks)


@strict
@dataclass(frozen=True, kw_only=True)
class ThresholdOptions(ChangedBundle):
    """Everything `edge-ad threshold` can be told.

    Attributes:
        data: root of a data set.
        good, bad, masks: plain folders in place of `data`.
        scores: scores.csv of `edge-ad eval`, in place of images.
        rule: how to choose.
        quantile: share of the good scores below the threshold, for rule `quantile` (default: 0.99).
        rate: wanted share of false alarms, for rule `false-alarm` (default: 0.01).
        value: the threshold itself, in place of a rule.
        engine, precision, engine_cache: as for `edge-ad run`.
    """

    data: Path | None = None
    good: Path | None = None
    bad: Path | None = None
    masks: Path | None = None
    scores: Path | None = None
    rule: Literal["best-f1", "quantile", "false-alarm"] | None = None
    quantile: Annotated[float, Field(ge=0, le=1)] | None = None
    rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    value: float | None = None
    engine: str = "openvino"
    precision: Precision | None = None
    engine_cache: Path | None = None

    @property
    def request(self) -> ThresholdRequest:
        return ThresholdRequest(
            rule=self.rule or "value",
            quantile=DEFAULT_QUANTILE if self.quantile is None else self.quantile,
            rate=DEFAULT_RATE if self.rate is None else self.rate,
            value=self.value,
        )

    @cached_property
    def dataset(self) -> Dataset | None:
        """The images, listed; None without any. Raises: SourceError."""
        if self.data is None and self.good is None:
            return None
        return _dataset(self.data, self.good, self.bad, self.masks)


def eval_options(values: dict[str, Any], where: str) -> EvalOptions:
    """Check options by name; None is the same as not given. Raises: ConfigError with every fault."""
    given = {key: value for key, value in values.items() if value is not None}
    options, wrong = build_rest(EvalOptions, given, {"model": Path()})
    faults = [fault.line for fault in wrong]
    sources = [key for key in ("data", "good") if key in given]
    if len(sources) != 1:
        faults.append(f"data: wanted either DATA or --good, got {' and '.join(sources) or 'neither'}")
    faults += _folder_faults(given)
    if sources == ["good"] and "bad" not in given:
        faults.append("bad: wanted a folder of defective images beside --good")
    if "seed" in given and options.protocol != "study" and not any(fault.key == "protocol" for fault in wrong):
        faults.append("seed: belongs to --protocol study; leave it out")
    if faults:
        raise ConfigError(where, faults)
    return options


def threshold_options(values: dict[str, Any], where: str) -> ThresholdOptions:
    """Check options by name; None is the same as not given. Raises: ConfigError with every fault."""
    given = {key: value for key, value in values.items() if value is not None}
    options, wrong = build_rest(ThresholdOptions, given, {"bundle": Path()})
    faults = [fault.line for fault in wrong]
    faults += options.destination_faults()
    if ("rule" in given) == ("value" in given):
        faults.append("rule: wanted either --rule best-f1, quantile or false-alarm, or --value")
    sources = [key for key in ("data", "good", "scores") if key in given]
    if len(sources) > 1 or (not sources and "value" not in given):
        faults.append(f"data: wanted one of DATA, --good and --scores, got {' and '.join(sources) or 'none'}")
    faults += _folder_faults(given)
    for key, rule in (("quantile", "quantile"), ("rate", "false-alarm")):
        if key in given and given.get("rule") != rule:
            faults.append(f"{key}: belongs to --rule {rule}; leave it out")
    if faults:
        raise ConfigError(where, faults)
    return options


def _folder_faults(given: dict[str, Any]) -> list[str]:
    return [
        f"{key}: belongs to --good; name that folder too"
        for key in ("bad", "masks")
        if key in given and "good" not in given
    ]


def _dataset(data: Path | None, good: Path | None, bad: Path | None, masks: Path | None) -> Dataset:
    if good is not None:
        return plain_dataset(good, bad, masks)
    assert data is not None
    return open_dataset(data)
