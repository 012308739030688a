"""Options of `edge-ad run`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from edge_ad.errors import ConfigError
from edge_ad.runtime.engines import ENGINES
from edge_ad.runtime.scheduling.lane import BUFFERS, Buffer
from edge_ad.runtime.sinks.making import sink_faults
from edge_ad.runtime.sinks.pictures import PICTURES
from edge_ad.runtime.sinks.selection import Which
from edge_ad.runtime.sinks.settings import SinkSettings
from edge_ad.runtime.sources.settings import ReconnectS, SourceSettings, WatchdogS
from edge_ad.runtime.sources.stream_list import listed_sources
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


def _known_buffer(value: object) -> object:
    name = value.replace("-", "_") if isinstance(value, str) else value
    if name not in BUFFERS:
        raise ValueError(f"wanted one of {', '.join(BUFFERS)}")
    return name


def _which(value: object) -> object:
    if value is None or value in ("all", "rejects"):
        return value
    try:
        rate = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else -1.0
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise ValueError("wanted all, rejects, or a share from 0 to 1")
    return rate


@strict
@dataclass(frozen=True)
class RunOptions:
    """Everything `edge-ad run` can be told.

    Attributes:
        bundle: directory of the bundle.
        sources: see `edge_ad.runtime.sources.open_source`.
        engine: name of the inference engine.
        precision: which of the bundle's models; None for its default.
        threshold: raw score in place of the bundle's.
        budget_ms: time from capture to verdict.
        output: folder for `verdicts.jsonl` and pictures; None writes the records to standard output.
        save: kinds of pictures; together with those of `sinks`.
        save_which: frames that get one: `all`, `rejects`, or the rejects and this share of the others.
        rotate_mb: size from which on `verdicts.jsonl` is full, and goes on in a new file.
        sinks: settings of all sinks; the three above take the place of theirs.
        max_frames: captured frames of each source after which it ends.
        show: open a window.
        engine_cache: folder for compiled models.
        buffer, vid_stride, max_fps, silence_s: see `edge_ad.runtime.scheduling.lane.Lane`.
        max_miss_rate: share of late and skipped frames from which on the run has failed.
        batch: frames that the engine takes at once.
        device: number of the GPU, as CUDA counts those that are visible; for TensorRT.
        blur_check: `bundle` calls frames unusable that are far blurrier than the bundle allows; `off` judges them.
        dla: core of its deep learning accelerator; for TensorRT.
        loop, watch, reconnect_s, wait_for_source, watchdog_s: see `edge_ad.runtime.sources.settings.SourceSettings`.
    """

    bundle: Path
    sources: tuple[Annotated[str, PlainValidator(_source_name)], ...]
    engine: Annotated[str, BeforeValidator(_known_engine)] = "openvino"
    precision: Precision | None = None
    threshold: float | None = None
    budget_ms: Annotated[float, Field(gt=0)] | None = None
    output: Path | None = None
    save: Annotated[tuple[str, ...], _known(PICTURES)] = ()
    save_which: Annotated[Which | float | None, PlainValidator(_which)] = None
    rotate_mb: Annotated[float, Field(gt=0, le=1e12)] | None = None
    sinks: SinkSettings = field(default_factory=SinkSettings)
    max_frames: Annotated[int, Field(gt=0)] | None = None
    show: bool = False
    engine_cache: Path | None = None
    buffer: Annotated[Buffer, BeforeValidator(_known_buffer)] = "auto"
    vid_stride: Annotated[int, Field(gt=0)] = 1
    max_fps: Annotated[float, Field(gt=0, le=1e6)] | None = None
    silence_s: Annotated[float, Field(ge=0.1, le=1e6)] | None = 5.0
    max_miss_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    batch: Annotated[int, Field(gt=0, le=64)] = 1
    device: Annotated[int, Field(ge=0)] = 0
    dla: Annotated[int, Field(ge=0)] | None = None
    blur_check: Literal["bundle", "off"] = "bundle"
    loop: bool = False
    watch: bool = False
    reconnect_s: ReconnectS = None
    wait_for_source: bool = False
    watchdog_s: WatchdogS = SourceSettings.watchdog_s

    @property
    def sink_settings(self) -> SinkSettings:
        """`sinks` with what was asked for beside it."""
        pictures, records = self.sinks.pictures, self.sinks.records
        pictures = replace(pictures, save=tuple(dict.fromkeys((*pictures.save, *self.save))))
        if isinstance(self.save_which, float):
            pictures = replace(pictures, which="sample", sample_rate=self.save_which)
        elif self.save_which is not None:
            pictures = replace(pictures, which=self.save_which)
        if self.rotate_mb is not None:
            records = replace(records, rotate_mb=self.rotate_mb)
        return replace(self.sinks, pictures=pictures, records=records)

    @property
    def source_settings(self) -> SourceSettings:
        """What holds for every source."""
        names = (field.name for field in fields(SourceSettings))
        return SourceSettings(**{name: getattr(self, name) for name in names})


def run_options(values: dict[str, Any], where: str) -> RunOptions:
    """Check options by name; `source` is one source or several, or files that list them.

    Raises: ConfigError with every fault; SourceError for a list that cannot be read.
    """
    values = dict(values)
    faults = []
    camera, given = values.pop("camera", None), values.pop("source", ())
    sources = list(given) if isinstance(given, (list, tuple)) else [given]
    if (camera is None) == (not sources):
        faults.append("source: wanted either --source or --camera")
    values["sources"] = listed_sources([f"camera:{camera}"] if camera is not None else sources or ["-"])
    try:
        options = build(RunOptions, values, where)
    except ConfigError as exc:
        raise ConfigError(where, [*faults, *exc.faults]) from exc
    faults += [f"sinks.{fault}" for fault in sink_faults(options.sinks, options.output)]
    if options.rotate_mb is not None and options.output is None:
        faults.append("rotate_mb: wanted an --output folder to write files in")
    if options.save_which is not None and not options.sink_settings.pictures.save:
        faults.append("save_which: wanted --save masks or overlays with it")
    if options.save and options.output is None:
        faults.append("save: wanted an --output folder to save pictures in")
    if options.save and len(options.sources) > 1:
        faults.append("save: wanted one source, pictures of several would take the same names")
    if options.loop and options.watch:
        faults.append("loop: a watched folder has no end to begin again at; leave out loop or watch")
    if options.wait_for_source and options.reconnect_s == 0:
        faults.append("wait_for_source: cannot wait when reconnect is never; leave out one of them")
    faults += [
        f"{name}: is for --engine tensorrt, not for {options.engine}; leave it out"
        for name in ("device", "dla")
        if name in values and options.engine != "tensorrt"
    ]
    if faults:
        raise ConfigError(where, faults)
    return options
