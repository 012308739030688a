"""Everything that describes a line, as the file `line.yaml` and the command line give it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from edge_ad.bundle.inspection import Edge, Inspection, Polygons
from edge_ad.bundle.specs import Precision
from edge_ad.image.limits import MOST_MEGAPIXELS
from edge_ad.runtime.engines import ENGINES
from edge_ad.runtime.host.environment import Variable
from edge_ad.runtime.http.settings import HttpSettings
from edge_ad.runtime.line.scheduling.lane import BUFFERS, Buffer
from edge_ad.runtime.line.scheduling.trigger import EVERY_FRAME, EveryFrame, Interval, Software, Trigger
from edge_ad.runtime.sinks.factory import sink_faults
from edge_ad.runtime.sinks.settings import MqttSettings, SinkSettings
from edge_ad.runtime.sources.settings import LimitS, SourceSettings
from edge_ad.runtime.sources.stream_list import is_list
from edge_ad.validation import strict

MAX_NAME = 200  # characters of a camera's name
MAX_CAMERAS = 256
LONGEST_MS = 86_400_000.0  # a day, for intervals and time-outs


def _one_of(names: Any) -> BeforeValidator:
    def check(value: object) -> object:
        name = value.replace("-", "_") if isinstance(value, str) else None
        if name not in names:
            raise ValueError(f"wanted one of {', '.join(names)}")
        return name

    return BeforeValidator(check)


def _source_text(value: object) -> str:
    """Any text but none at all; a path that is no UTF-8 holds surrogates, which pydantic's own check refuses."""
    if not isinstance(value, str) or not value or not _names_a_file(value):
        raise ValueError("wanted a source, such as a folder or camera:0")
    return value


def _names_a_file(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _usable_path(path: Path) -> Path:
    if not _names_a_file(str(path)):
        raise ValueError("wanted a path that the system can name")
    return path


def _camera_name(name: str) -> str:
    if not (name.strip() and len(name) <= MAX_NAME and name.isprintable()):
        raise ValueError(f"wanted 1 to {MAX_NAME} printable characters")
    return name


def _trigger(value: object) -> Trigger:
    if isinstance(value, (EveryFrame, Interval, Software)):
        return value
    name = value.replace("-", "_") if isinstance(value, str) else None
    if name in ("every_frame", "software"):
        return EVERY_FRAME if name == "every_frame" else Software()
    if isinstance(value, Mapping) and set(value) == {"interval_ms"}:
        given = value["interval_ms"]
        if isinstance(given, (int, float)) and not isinstance(given, bool) and 1 <= given <= LONGEST_MS:
            return Interval(float(given))
        raise ValueError(f"wanted an interval_ms of 1 to {LONGEST_MS:.0f}")
    raise ValueError("wanted every_frame, software or {interval_ms: 500}")


def _on_or_off(value: object) -> object:
    """YAML has read `on` and `off` as true and false, if they are not quoted."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return value


OnOrOff = Annotated[Literal["on", "off"], BeforeValidator(_on_or_off)]
Pathname = Annotated[Path, AfterValidator(_usable_path)]


@strict
@dataclass(frozen=True, kw_only=True)
class CameraSettings(SourceSettings):
    """One camera of a line, with the settings of its source.

    Attributes:
        source: see `edge_ad.runtime.sources.open_source`; empty where `source_env` was not looked up yet.
        source_env: environment variable that holds the source, for an address with a password in it; in place of
            `source`.
        name: what records call it; by default the source, without its secrets.
        threshold: raw score in place of the bundle's.
        roi: left, top, right, bottom of what is judged, in frame pixels; right and bottom exclusive. A list of polygons
            in its place is read as `polygons`.
        polygons: in place of the bundle's: what lies in one of them is inspected.
        inspect: what is inspected, in place of all that the bundle says of it; its pictures are files.
        trigger: what makes a frame be captured.
        trigger_timeout_ms: how long a trigger by software waits for its frame.
        budget_ms, buffer, vid_stride, max_fps, max_frames, silence_s: see `edge_ad.runtime.line.scheduling.lane.Lane`.
    """

    source: Annotated[str, PlainValidator(_source_text)] = ""
    source_env: Variable | None = None
    name: Annotated[str, AfterValidator(_camera_name)] | None = None
    threshold: float | None = None
    budget_ms: Annotated[float, Field(gt=0, le=LONGEST_MS)] | None = None
    buffer: Annotated[Buffer, _one_of(BUFFERS)] = "auto"
    roi: tuple[Edge, Edge, Edge, Edge] | None = None
    polygons: Polygons = ()
    inspect: Inspection | None = None
    trigger: Annotated[Trigger, PlainValidator(_trigger)] = EVERY_FRAME
    trigger_timeout_ms: Annotated[float, Field(ge=1, le=LONGEST_MS)] = 1000.0
    vid_stride: Annotated[int, Field(gt=0)] = 1
    max_fps: Annotated[float, Field(gt=0, le=1e6)] | None = None
    max_frames: Annotated[int, Field(gt=0)] | None = None
    silence_s: LimitS = 5.0

    @property
    def rule(self) -> Trigger:
        """The trigger with its time-out."""
        return Software(self.trigger_timeout_ms) if isinstance(self.trigger, Software) else self.trigger


@strict
@dataclass(frozen=True)
class TriggerSettings:
    """Where parts are announced to cameras that are triggered by software, besides HTTP.

    Attributes:
        mqtt: broker, with the keys of `sinks.mqtt`; of these the spool, `which` and `flush_s` do not matter here.
    """

    mqtt: MqttSettings | None = None


@strict
@dataclass(frozen=True)
class Limits:
    """When a run has failed.

    Attributes:
        max_miss_rate: share of late and skipped frames from which on it has.
    """

    max_miss_rate: Annotated[float, Field(ge=0, le=1)] | None = None


@strict
@dataclass(frozen=True)
class LineSettings:
    """A line.

    Attributes:
        bundle: directory of the bundle.
        cameras: in the order in which records number them.
        engine: name of the inference engine.
        engine_process: `on` has it compute in a process of its own, so that a crash in there costs the frames in hand;
            None leaves it to how the line is started, see `edge_ad.runtime.station.run.run`.
        precision: which of the bundle's models; None for its default.
        engine_cache: folder for compiled models; None for the user's cache folder.
        device: number of the GPU, as CUDA counts those that are visible; for TensorRT, where None is the first.
        dla: core of its deep learning accelerator; for TensorRT.
        batch: frames that the engine takes at once.
        output: folder for `verdicts.jsonl` and pictures; None writes the records to standard output.
        blur_check: `bundle` calls frames unusable that are far blurrier than the bundle allows; `off` judges them.
        max_megapixels: largest frame that is decoded; None for the default, see `edge_ad.image.limits`.
        show: open a window.
        sinks: where verdicts go.
        triggers: where parts are announced.
        http: the server for health, metrics, triggers and thresholds; None for none.
    """

    bundle: Pathname
    cameras: Annotated[tuple[CameraSettings, ...], Field(min_length=1, max_length=MAX_CAMERAS)]
    engine: Annotated[str, _one_of(ENGINES)] = "openvino"
    engine_process: OnOrOff | None = None
    precision: Precision | None = None
    engine_cache: Pathname | None = None
    device: Annotated[int, Field(ge=0)] | None = None
    dla: Annotated[int, Field(ge=0)] | None = None
    batch: Annotated[int, Field(gt=0, le=64)] = 1
    output: Pathname | None = None
    blur_check: Literal["bundle", "off"] = "bundle"
    max_megapixels: Annotated[float, Field(gt=0, le=MOST_MEGAPIXELS)] | None = None
    show: bool = False
    sinks: SinkSettings = field(default_factory=SinkSettings)
    triggers: TriggerSettings = field(default_factory=TriggerSettings)
    http: HttpSettings | None = None
    limits: Limits = Limits()


def contradictions(settings: LineSettings) -> Iterator[str]:
    """What is wrong between the settings, one line each that begins with a key path; the world is not looked at."""
    for index, camera in enumerate(settings.cameras):
        yield from _camera_contradictions(f"cameras.{index}", camera)
    named = Counter(camera.name for camera in settings.cameras if camera.name is not None)
    for name, count in named.items():
        if count > 1:
            yield f"cameras: {count} of them have the name {name!r}; wanted different ones"
    yield from (f"sinks.{fault}" for fault in sink_faults(settings.sinks, settings.output))
    if settings.sinks.pictures.which != "all" and not settings.sinks.pictures.save:
        yield "sinks.pictures.which: chooses among pictures, and none are saved; wanted --save (in the file: save) too"
    software = any(isinstance(camera.trigger, Software) for camera in settings.cameras)
    if settings.triggers.mqtt is not None and not software:
        yield "triggers.mqtt: no camera has the trigger software; leave out one of them, or give it to a camera"
    for key, number in (("device", settings.device), ("dla", settings.dla)):
        if number is not None and settings.engine != "tensorrt":
            yield f"{key}: is for --engine tensorrt, not for {settings.engine}; leave it out"
    if settings.http is not None:
        yield from (f"http.{fault}" for fault in settings.http.contradictions())


def _camera_contradictions(where: str, camera: CameraSettings) -> Iterator[str]:
    if is_list(camera.source):
        yield f"{where}.source: a list of sources is for --source; wanted one camera for each of them here"
    if camera.loop and camera.watch:
        yield f"{where}.loop: a watched folder has no end to begin again at; leave out loop or watch"
    if camera.wait_for_source and camera.reconnect_s == 0:
        yield f"{where}.wait_for_source: cannot wait when reconnect is never; leave out one of them"
    if camera.roi is not None and not (camera.roi[0] < camera.roi[2] and camera.roi[1] < camera.roi[3]):
        yield f"{where}.roi: wanted [left, top, right, bottom], each pair in that order, got {list(camera.roi)}"
    for key, given in (("roi", camera.roi is not None), ("polygons", bool(camera.polygons))):
        if given and camera.inspect is not None and getattr(camera.inspect, key):
            yield f"{where}.{key}: stands in inspect too; wanted one of them"
    if not isinstance(camera.trigger, EveryFrame):
        for key, given in (("vid_stride", camera.vid_stride != 1), ("max_fps", camera.max_fps is not None)):
            if given:
                yield f"{where}.{key}: is for the trigger every_frame; leave it out"
    if isinstance(camera.trigger, Software) and camera.watch:
        yield f"{where}.watch: a picture that arrives is judged, so no part can wait for it; leave out watch or trigger"
    if isinstance(camera.trigger, Software) and camera.buffer == "freshest":
        yield f"{where}.buffer: the frame of a trigger is never replaced by that of the next; wanted auto"
