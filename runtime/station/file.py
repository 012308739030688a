"""`line.yaml` and the options of `edge-ad run`, either or both, become settings of a line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_ad.errors import ConfigError, UnavailableError, may_pass
from edge_ad.runtime.sources.stream_list import listed_sources
from edge_ad.runtime.station.settings import CameraSettings, LineSettings, contradictions
from edge_ad.text import without_credentials, without_secrets
from edge_ad.validation import build_rest, read_yaml

_PLACES: dict[str, tuple[str, ...]] = {
    "save": ("sinks", "pictures", "save"),
    "save_which": ("sinks", "pictures", "which"),
    "save_rate": ("sinks", "pictures", "sample_rate"),
    "rotate_mb": ("sinks", "records", "rotate_mb"),
    "max_miss_rate": ("limits", "max_miss_rate"),
    "http_host": ("http", "host"),
    "http_port": ("http", "port"),
    "http_token_env": ("http", "token_env"),
}
"""Where an option stands in the file, unless it is a key of the whole line or of each camera."""

_OF_CAMERAS = frozenset(
    {
        "threshold",
        "budget_ms",
        "buffer",
        "vid_stride",
        "max_fps",
        "max_frames",
        "silence_s",
        "loop",
        "watch",
        "reconnect_s",
        "wait_for_source",
        "watchdog_s",
    }
)
_OPTION_AT = {".".join(place): option for option, place in _PLACES.items() if place[0] != "http"}
_OPTION_AT |= {"sinks.records": "rotate_mb"}
_SOURCE = ("source", "source_env")  # keys of a camera, of which it has one
_STAND_INS: dict[str, Any] = {"bundle": "-", "cameras": (CameraSettings(source="-"),)}


def run_options(values: Mapping[str, Any], where: str) -> LineSettings:
    """Settings from the options of `edge-ad run` alone, by name.

    Args:
        values: `source` is one source or several, or files that list them; in its place `camera` is a number, and
            `source_env` variables of the environment that hold a source each; `http` is an address such as
            127.0.0.1:9464.

    Raises: ConfigError with every fault; SourceError for a list that cannot be read.
    """
    options, faults = _options(values)
    if sum(bool(options.get(name)) for name in ("camera", "sources", "source_envs")) != 1:
        faults.append("source: wanted either --source or --camera, or --source-env")
        options["source_envs"] = ()
    data = _overlaid({"cameras": _sources(options) or [{"source": "-"}]}, options)
    settings, found = _sound(data)
    faults += [*found, *contradictions(settings)]
    if faults:
        raise ConfigError(where, _as_options(faults))
    return settings


def read_line(path: Path, values: Mapping[str, Any]) -> LineSettings:
    """Settings from a file; options by name, as for `run_options`, take the place of what it says.

    As many sources as the file has cameras take the place of theirs.

    Raises: ConfigError with every fault, each with its key path; UnavailableError for a file that is not there now;
        SourceError for a list that cannot be read.
    """
    settings, faults = examine_line(path, values)
    if faults:
        raise ConfigError(str(path), faults)
    return settings


def examine_line(path: Path, values: Mapping[str, Any]) -> tuple[LineSettings, list[str]]:
    """Like `read_line`, but leave out what is faulty and say so, so that the rest can be looked at further.

    Raises: ConfigError for a file that is no YAML mapping; UnavailableError for one that is not there now; SourceError.
    """
    data = _read(path)
    options, faults = _options(values)
    alone, found = _sound(_overlaid({"cameras": [{"source": "-"}]}, {"bundle": "-", **options}))
    faults += _as_options([*found, *(line for line in contradictions(alone) if line.startswith("http."))])
    if faults:
        options = {}
    sources, cameras = _sources(options), data.get("cameras")
    if sources and isinstance(cameras, list):
        if len(sources) != len(cameras):
            faults.append(f"source: got {len(sources)}, wanted one for each of the {len(cameras)} cameras of the file")
        else:
            data["cameras"] = [
                {**{key: camera[key] for key in camera if key not in _SOURCE}, **source}
                if isinstance(camera, dict)
                else camera
                for camera, source in zip(cameras, sources, strict=True)
            ]
    settings, found = _sound(_overlaid(data, options))
    return settings, [*faults, *found, *contradictions(settings)]


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_yaml(path)
    except ConfigError as exc:
        cause = exc.__cause__
        if isinstance(cause, OSError) and (isinstance(cause, FileNotFoundError) or may_pass(cause)):
            raise UnavailableError(str(exc)) from exc
        raise


def _options(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Options by name, `http` and `save_which` taken apart; and what is wrong with that."""
    options = dict(values)
    given = options.pop("source", ())
    options["sources"] = list(given) if isinstance(given, (list, tuple)) else [given]
    names = options.pop("source_env", ())
    options["source_envs"] = list(names) if isinstance(names, (list, tuple)) else [names]
    faults = []
    address = options.pop("http", None)
    if address is not None:
        host, _, port = str(address).rpartition(":")
        if re.fullmatch("[0-9]{1,5}", port) is None:
            faults.append(f"http: wanted PORT or HOST:PORT, such as 127.0.0.1:9464, got {str(address)[:60]!r}")
        else:
            options |= {"http_port": int(port)} | ({"http_host": host.strip("[]")} if host else {})
    which = options.get("save_which")
    if which is not None and which not in ("all", "rejects"):
        options |= {"save_which": "sample", "save_rate": which}
        if not _is_share(which):
            del options["save_which"], options["save_rate"]
            faults.append(f"save_which: wanted all, rejects, or a share from 0 to 1, got {str(which)[:60]!r}")
    return options, faults


def _is_share(text: object) -> bool:
    try:
        return 0 <= float(str(text)) <= 1
    except ValueError:
        return False


def _sources(options: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the options say of the source of every camera, under the keys of the file."""
    camera = options.get("camera")
    if options.get("source_envs"):
        return [{"source_env": name} for name in options["source_envs"]]
    given = [f"camera:{camera}"] if camera is not None else options.get("sources", ())
    return [{"source": source} for source in listed_sources(given)]


def _overlaid(data: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The file's mapping with options in their places."""
    result = dict(data)
    for key, value in options.items():
        if key in ("sources", "source_envs", "camera"):
            continue
        if key in _OF_CAMERAS:
            cameras = result.get("cameras")
            if isinstance(cameras, list):
                result["cameras"] = [{**one, key: value} if isinstance(one, dict) else one for one in cameras]
        elif key in _PLACES:
            _put(result, _PLACES[key], value)
        else:
            result[key] = value
    return result


def _put(data: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    """Set a key of a key, in copies of the mappings on the way; one that is no mapping is left for its own fault."""
    key, *rest = place
    if not rest:
        data[key] = value
        return
    section = data.get(key) or {}
    if isinstance(section, dict):
        data[key] = dict(section)
        _put(data[key], tuple(rest), value)


def _sound(data: Mapping[str, Any]) -> tuple[LineSettings, list[str]]:
    """The settings without what is faulty, down to single keys of cameras; and the faults."""
    named, faults = _with_names(_with_polygons(data), "")
    settings, found = build_rest(LineSettings, named, _STAND_INS)
    faults += [fault.line for fault in found]
    if any(line.startswith("cameras.") for line in faults):  # else the faulty ones are said to be too few as well
        faults = [line for line in faults if not line.startswith("cameras: ")]
    cameras = named.get("cameras")
    whole = dict(enumerate(settings.cameras))
    if any(fault.key == "cameras" for fault in found):
        whole = {}
        for index, camera in enumerate(cameras if isinstance(cameras, list) else ()):
            if not isinstance(camera, dict):
                continue
            keys, strange = _with_names(camera, f"cameras.{index}.")
            faults += strange
            one, wrong = build_rest(CameraSettings, keys, {})
            if not any(fault.key in _SOURCE for fault in wrong):
                whole[index] = one
    sound = []
    for index, one in whole.items():
        try:
            sound.append(_with_source(one))
        except ValueError as exc:
            faults.append(f"cameras.{index}.{exc}")
    return replace(settings, cameras=tuple(sound)), [*dict.fromkeys(_without_values(line) for line in faults)]


def _with_polygons(data: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The same, with polygons that stand for a camera's `roi` under their own key."""
    cameras = data.get("cameras")
    if not isinstance(cameras, list):
        return data
    return {**data, "cameras": [_polygons_apart(one) if isinstance(one, dict) else one for one in cameras]}


def _polygons_apart(camera: dict[Any, Any]) -> dict[Any, Any]:
    roi = camera.get("roi")
    if "polygons" in camera or not (isinstance(roi, list) and roi and isinstance(roi[0], list)):
        return camera
    return {key: value for key, value in camera.items() if key != "roi"} | {"polygons": roi}


def _with_source(camera: CameraSettings) -> CameraSettings:
    """The camera with what the environment holds for it. Raises: ValueError with a fault that begins with the key."""
    name = camera.source_env
    if name is None:
        if not camera.source:
            raise ValueError("source: missing; wanted it, or source_env")
        return camera
    if camera.source:
        raise ValueError("source: wanted either this or source_env")
    value = os.environ.get(name, "")
    if not value:
        raise ValueError(f"source_env: the environment variable {name} is not set")
    return replace(camera, source=value)


def _with_names(data: Mapping[Any, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """The keys that are text; and a fault for each other one."""
    strange = [f"{where}{str(key)[:60]}: unknown key" for key in data if not isinstance(key, str)]
    return {key: value for key, value in data.items() if isinstance(key, str)}, strange


def _without_values(line: str) -> str:
    """A fault without what may hold a secret: what stands for a name of a variable, addresses, lists and mappings."""
    line = " ".join(line.split())
    path, _, rest = line.partition(": ")
    wanted, got, shown = rest.partition(", got ")
    if path.endswith("_env"):
        return f"{path}: {wanted}"
    if shown[:1] in ("[", "(", "{"):
        shown = "a mapping" if shown[0] == "{" else "a list"
    elif "://" in shown:
        shown = repr(without_secrets(shown.strip("'\"")))
    return without_credentials(f"{path}: {wanted}{got}{shown}")


def _as_options(faults: Iterable[str]) -> list[str]:
    """Faults under the names of options; one that all cameras share is said once."""
    named = []
    for line in faults:
        path, colon, rest = line.partition(": ")
        path = re.sub(r"^cameras\.\d+\.(?=\w)", "", path)
        named.append(f"{_OPTION_AT.get(path, path)}{colon}{rest}")
    return [*dict.fromkeys(named)]
