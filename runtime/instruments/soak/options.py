"""Options of `edge-ad soak`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from edge_ad.bundle.specs import Precision
from edge_ad.errors import ConfigError
from edge_ad.runtime.engines import known_engine
from edge_ad.runtime.instruments.soak.faults import FAULTS
from edge_ad.validation import build, strict

MOST_CAMERAS = 255
OF_PROCESS = frozenset(name for name, fault in FAULTS.items() if fault.of_process)


def _known_faults(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value == "all":
        return tuple(FAULTS)
    names = () if value == "none" else tuple(part.strip() for part in value.split(","))
    if any(name not in FAULTS for name in names):
        raise ValueError(f"wanted all, none, or some of {', '.join(FAULTS)}")
    return names


@strict
@dataclass(frozen=True)
class SoakOptions:
    """Everything `edge-ad soak` can be told.

    Attributes:
        bundle: directory of the bundle; the fake engine takes only its sizes.
        engine, precision, engine_cache, batch: as of a run.
        engine_process: whether the engine computes in a process of its own, which some faults strike.
        threshold: in place of the bundle's; for the fake engine one that makes both verdicts appear.
        cameras: simulated cameras.
        fps: of each camera.
        budget_ms: time from capture to verdict.
        seconds: how long it takes.
        faults: names of `FAULTS`.
        fault_rate: share of the calls of every camera, engine and sink that meet a fault.
        max_faults: ends the soak when there were so many.
        seed: of pictures and faults.
        round_s: seconds after which the line is stopped and started anew.
        memory_mib: growth that is forgiven.
        every_s: seconds between lines of counters.
    """

    bundle: Path
    engine: Annotated[str, BeforeValidator(known_engine)] = "fake"
    engine_process: Literal["on", "off"] = "on" if os.name == "posix" else "off"
    precision: Precision | None = None
    threshold: float | None = None
    engine_cache: Path | None = None
    batch: Annotated[int, Field(gt=0, le=64)] = 1
    cameras: Annotated[int, Field(gt=0, le=MOST_CAMERAS)] = 4
    fps: Annotated[float, Field(ge=0.1, le=1000)] = 15.0
    budget_ms: Annotated[float, Field(gt=0)] | None = 100.0
    seconds: Annotated[float, Field(gt=0)] = 60.0
    faults: Annotated[tuple[str, ...], BeforeValidator(_known_faults)] = tuple(FAULTS)
    fault_rate: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_faults: Annotated[int, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 0
    round_s: Annotated[float, Field(gt=0)] = 60.0
    memory_mib: Annotated[float, Field(gt=0)] = 32.0
    every_s: Annotated[float, Field(gt=0)] = 5.0


def soak_options(values: dict[str, Any], where: str) -> SoakOptions:
    """Check options by name; `minutes` and `seconds` add up. Raises: ConfigError with every fault."""
    values = dict(values)
    faults = []
    if values.get("engine_process") == "off":
        asked = [name for name in str(values.get("faults", "")).split(",") if name.strip() in OF_PROCESS]
        if asked:
            faults.append(f"faults: {', '.join(asked)} strike a process of the engine, and --engine-process is off")
    if "minutes" in values:
        try:
            values["seconds"] = 60 * float(values.pop("minutes")) + float(values.get("seconds", 0))
        except ValueError:
            faults.append("minutes, seconds: wanted numbers")
            values.pop("seconds", None)
    try:
        options = build(SoakOptions, values, where)
    except ConfigError as exc:
        raise ConfigError(where, [*faults, *exc.faults]) from exc
    if faults:
        raise ConfigError(where, faults)
    return options
