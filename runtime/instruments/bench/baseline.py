"""The baseline file: ratios of one run, and everything that has to be the same for another run to be compared with it.

Strict JSON of `SCHEMA_VERSION`: no other keys, no key twice, no NaN.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from edge_ad.errors import ConfigError, os_reason
from edge_ad.runtime.instruments.bench.measure import STAGES
from edge_ad.validation import build, strict

SCHEMA_VERSION = 1
KIND = "edge-ad bench baseline"
MAX_BYTES = 64 << 20

Ratios = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]


@strict
@dataclass(frozen=True)
class Subject:
    """What was measured; a run of another subject is not comparable.

    Attributes:
        bundle_sha256: identity of the bundle.
        engine, precision: that judged.
        computed_in: arithmetic that the engine really used.
        batch: frames of a call.
        frame_hw: their size.
        picture: what they show: `made:N`, or `sha256:…` of a user's picture.
        device, dla: see `edge_ad.engine.EngineSpec`.
        yardstick: see `edge_ad.runtime.instruments.bench.yardstick.NAME`.
    """

    bundle_sha256: str
    engine: str
    precision: str
    computed_in: str
    batch: int
    frame_hw: tuple[int, int]
    picture: str
    device: int
    dla: int | None
    yardstick: str


@strict
@dataclass(frozen=True)
class Baseline:
    """Content of the file.

    Attributes:
        schema_version, kind: what the file is.
        edge_ad: version that wrote it.
        written_at: date and time, UTC.
        bundle: name of the bundle's directory.
        subject: what was measured.
        machine: see `describe_machine`; another one is worth a warning.
        others: share of the processors that other programs had; null where unknown.
        median_ms: of every stage, for people; nothing is compared with it.
        elapsed: one ratio of each round for every stage, by elapsed time.
        processor: the same by processor time; null where that means nothing.
    """

    schema_version: int
    kind: str
    edge_ad: str
    written_at: str
    bundle: str
    subject: Subject
    machine: dict[str, str]
    others: Annotated[float, Field(ge=0, le=1)] | None
    median_ms: dict[str, float]
    elapsed: dict[str, Ratios]
    processor: dict[str, Ratios] | None


def baseline_bytes(baseline: Baseline) -> bytes:
    """The file's content."""
    return (json.dumps(asdict(baseline), allow_nan=False, indent=1) + "\n").encode("ascii")


def read_baseline(path: Path) -> Baseline:
    """Read a baseline. Raises: ConfigError when it is missing, no baseline, damaged or of a newer edge-ad."""
    where = f"baseline {path}"
    if path.exists() and not path.is_file():
        raise ConfigError(where, ["is no file; --save-baseline writes one"])
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(where, [f"larger than {MAX_BYTES} bytes, which no baseline is"])
        data = json.loads(path.read_bytes(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except OSError as exc:
        raise ConfigError(where, [f"cannot be read: {os_reason(exc)}; --save-baseline writes one"]) from exc
    except (ValueError, RecursionError) as exc:
        raise ConfigError(where, [f"no valid JSON: {' '.join(str(exc).split())}"]) from exc
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise ConfigError(where, ["is no baseline; --save-baseline writes one"])
    if data.get("schema_version") != SCHEMA_VERSION:
        got = str(data.get("schema_version"))[:20]
        raise ConfigError(where, [f"has schema version {got}, this edge-ad reads {SCHEMA_VERSION}; save a new one"])
    baseline = build(Baseline, data, where)
    faults = [
        f"{name}: wanted the stages {', '.join(STAGES)}, all of as many rounds"
        for name, ratios in (("elapsed", baseline.elapsed), ("processor", baseline.processor))
        if ratios is not None and (ratios.keys() != set(STAGES) or len({len(each) for each in ratios.values()}) != 1)
    ]
    if faults:
        raise ConfigError(where, faults)
    return baseline


def check_same_subject(baseline: Baseline, subject: Subject, where: str) -> None:
    """Raises: ConfigError with one fault for everything that is not as in the baseline."""
    old, new = _told(baseline.subject), _told(subject)
    faults = [
        f"{name}: the baseline has {_short(old[name])}, this run {_short(new[name])}"
        for name in old
        if old[name] != new[name]
    ]
    if faults:
        raise ConfigError(where, [*faults, "these are not comparable; save a new baseline"])


def machine_notes(baseline: Baseline, machine: dict[str, str]) -> list[str]:
    """One line for everything about the machine that is not as in the baseline."""
    names = sorted(baseline.machine.keys() | machine.keys())
    return [
        f"{name}: the baseline was taken with {baseline.machine.get(name, 'none')!r}, this run with"
        f" {machine.get(name, 'none')!r}; a change may come from that"
        for name in names
        if baseline.machine.get(name) != machine.get(name)
    ]


def _told(subject: Subject) -> dict[str, Any]:
    """Its fields as a user names them."""
    fields = asdict(subject)
    height, width = fields.pop("frame_hw")
    return {**fields, "frame": f"{width}x{height}"}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:24]}…"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
