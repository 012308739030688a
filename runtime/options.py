"""Options of `edge-ad run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator

from edge_ad.errors import ConfigError
from edge_ad.runtime.engines import ENGINES
from edge_ad.runtime.sinks.pictures import PICTURES
from edge_ad.specs import Precision
from edge_ad.validation import build, strict


def _known(kinds: dict[str, Any]) -> BeforeValidator:
    def check(value: object) -> object:
        names = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
        unknown = [name for name in names if name not in kinds] if isinstance(names, tuple) else []
        if unknown:
            raise ValueError(f"wanted {', '.join(kinds)}")
        return names

    return BeforeValidator(check)


def _source_name(value: object) -> str:
    """Any text but none at all; a path that is no UTF-8 holds surrogates, which pydantic's own check refuses."""
    if not isinstance(value, str) or not value:
        raise ValueError("wanted a source, such as a folder or camera:0")
    return value


def _known_engine(value: object) -> object:
    if value not in ENGINES:
        raise ValueError(f"wanted one of {', '.join(ENGINES)}")
    return value


@strict
@dataclass(frozen=True)
class RunOptions:
    """Everything `edge-ad run` can be told.

    Attributes:
        bundle: directory of the bundle.
        source: see `edge_ad.runtime.sources.open_source`.
        engine: name of the inference engine.
        precision: which of the bundle's models; None for its default.
        threshold: raw score in place of the bundle's.
        budget_ms: time from capture to verdict.
        output: folder for `verdicts.jsonl` and pictures; None writes the records to standard output.
        save: kinds of pictures.
        max_frames: captured frames after which the run ends.
        show: open a window.
        engine_cache: folder for compiled models.
        device: number of the GPU, as CUDA counts those that are visible; for TensorRT.
        dla: core of its deep learning accelerator; for TensorRT.
    """

    bundle: Path
    source: Annotated[str, PlainValidator(_source_name)]
    engine: Annotated[str, BeforeValidator(_known_engine)] = "openvino"
    precision: Precision | None = None
    threshold: float | None = None
    budget_ms: Annotated[float, Field(gt=0)] | None = None
    output: Path | None = None
    save: Annotated[tuple[str, ...], _known(PICTURES)] = ()
    max_frames: Annotated[int, Field(gt=0)] | None = None
    show: bool = False
    engine_cache: Path | None = None
    device: Annotated[int, Field(ge=0)] = 0
    dla: Annotated[int, Field(ge=0)] | None = None


def run_options(values: dict[str, Any], where: str) -> RunOptions:
    """Check options by name. Raises: ConfigError with every fault."""
    values = dict(values)
    faults = []
    camera = values.pop("camera", None)
    if (camera is None) == ("source" not in values):
        faults.append("source: wanted either --source or --camera")
        values["source"] = "-"
    elif camera is not None:
        values["source"] = f"camera:{camera}"
    try:
        options = build(RunOptions, values, where)
    except ConfigError as exc:
        raise ConfigError(where, [*faults, *exc.faults]) from exc
    if options.save and options.output is None:
        faults.append("save: wanted an --output folder to save pictures in")
    faults += [
        f"{name}: is for --engine tensorrt, not for {options.engine}; leave it out"
        for name in ("device", "dla")
        if name in values and options.engine != "tensorrt"
    ]
    if faults:
        raise ConfigError(where, faults)
    return options
