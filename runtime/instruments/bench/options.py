"""Options of `edge-ad bench`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from edge_ad.bundle.specs import Precision
from edge_ad.errors import ConfigError
from edge_ad.runtime.engines import known_engine
from edge_ad.validation import build, strict

MAX_SIDE = 16384
FAIL_ABOVE = 0.10
MAX_SHARE = 10.0
FILES = ("export_times", "export_json", "html", "save_baseline")


def _frame_hw(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", value.strip())
    if not found or not all(1 <= int(side) <= MAX_SIDE for side in found.groups()):
        raise ValueError(f"wanted WIDTHxHEIGHT in pixels up to {MAX_SIDE}, such as 1920x1080")
    return int(found[2]), int(found[1])


def _percentiles(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        wanted = sorted({float(part.strip().removesuffix("%")) for part in value.split(",")})
    except ValueError:
        wanted = []
    if not wanted or not all(0 < each < 100 for each in wanted):
        raise ValueError("wanted numbers between 0 and 100, such as 50,90,95,99")
    return tuple(wanted)


def share_of(text: str) -> float:
    """`10%` or `0.1`; a plain 10 could mean either, so it is refused. Raises: ConfigError."""
    is_percent = text.strip().endswith("%")
    try:
        share = float(text.strip().removesuffix("%")) / (100 if is_percent else 1)
    except ValueError:
        share = -1.0
    if not (0 < share < 1 or (is_percent and 1 <= share <= MAX_SHARE)):
        raise ConfigError("fail-above", [f"wanted a share such as 10% or 0.1, got {text[:20]!r}"])
    return share


def _share(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return share_of(value)
    except ConfigError:
        raise ValueError("wanted a share such as 10% or 0.1") from None


@strict
@dataclass(frozen=True)
class BenchOptions:
    """Everything `edge-ad bench` can be told.

    Attributes:
        bundle: directory of the bundle.
        duration_s: time to measure for; it takes longer where a frame is so slow that there are too few rounds.
        warmup_s: time to judge frames before.
        percentiles: to print, above 0 and below 100, ascending.
        engine, precision, device, dla, engine_cache, batch: see `edge_ad.runtime.judge.loader.open_detector`.
        frame_hw: size of a made-up frame.
        image: picture to judge in place of it.
        export_times: file for the times of every batch, JSON or (by its name) CSV.
        export_json, html: files for the results.
        save_baseline: file for what later runs are compared with.
        baseline: such a file, to compare with.
        fail_above: share by which a stage may be slower than in the baseline.
        force: replace files that exist.
    """

    bundle: Path
    duration_s: Annotated[float, Field(gt=0, le=86400)] = 10.0
    warmup_s: Annotated[float, Field(ge=0, le=3600)] = 1.0
    percentiles: Annotated[tuple[float, ...], BeforeValidator(_percentiles)] = (50.0, 90.0, 95.0, 99.0)
    engine: Annotated[str, BeforeValidator(known_engine)] = "openvino"
    precision: Precision | None = None
    device: Annotated[int, Field(ge=0)] = 0
    dla: Annotated[int, Field(ge=0)] | None = None
    engine_cache: Path | None = None
    batch: Annotated[int, Field(gt=0, le=64)] = 1
    frame_hw: Annotated[tuple[int, int], BeforeValidator(_frame_hw)] = (1080, 1920)
    image: Path | None = None
    export_times: Path | None = None
    export_json: Path | None = None
    html: Path | None = None
    save_baseline: Path | None = None
    baseline: Path | None = None
    fail_above: Annotated[float, BeforeValidator(_share)] = FAIL_ABOVE
    force: bool = False

    @property
    def outputs(self) -> dict[str, Path]:
        """Files to write, by the name of the option."""
        paths = {name: getattr(self, name) for name in FILES}
        return {name: path for name, path in paths.items() if path is not None}


def bench_options(values: dict[str, Any], where: str) -> BenchOptions:
    """Check options by name, those that are None left out. Raises: ConfigError with every fault."""
    values = {name: value for name, value in values.items() if value is not None}
    faults = []
    if "frame_hw" in values and "image" in values:
        faults.append("frame: wanted either --frame or --image")
    if "fail_above" in values and "baseline" not in values:
        faults.append("fail-above: wanted a --baseline to compare with")
    if values.get("engine", "openvino") != "tensorrt":
        faults += [f"{name}: is for --engine tensorrt; leave it out" for name in ("device", "dla") if name in values]
    places = [str(Path(values[name]).absolute()) for name in (*FILES, "baseline") if name in values]
    if len(set(places)) < len(places) and not _updates(values, places):
        faults.append("files: wanted another file for each of the outputs and the baseline")
    try:
        options = build(BenchOptions, values, where)
    except ConfigError as exc:
        raise ConfigError(where, [*faults, *exc.faults]) from exc
    if faults:
        raise ConfigError(where, faults)
    return options


def _updates(values: dict[str, Any], places: list[str]) -> bool:
    """Whether the only file that is named twice is a baseline that a passing run is to replace."""
    old, new = values.get("baseline"), values.get("save_baseline")
    same = old is not None and new is not None and Path(old).absolute() == Path(new).absolute()
    return same and len(set(places)) == len(places) - 1
