"""What stands in the way of a line, all of it at once, without opening a camera or loading a model."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import Thresholds
from edge_ad.disk.blob_cache import ENGINE_FOLDER, default_cache_dir
from edge_ad.disk.private import fault_of_folder
from edge_ad.disk.vouching import fault_of_key
from edge_ad.errors import ConfigError, EdgeAdError, MissingExtraError, OutputError
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.sinks.factory import SinkContext, make_sinks, sink_faults
from edge_ad.runtime.sources import open_source
from edge_ad.runtime.station.inspecting import inspector_for
from edge_ad.runtime.station.mqtt_triggers import MqttTriggers
from edge_ad.runtime.station.settings import CameraSettings, LineSettings

PACKAGES = {
    "openvino": ("openvino", None),
    "onnxruntime": ("onnxruntime", "onnxruntime"),
    "tensorrt": ("pycuda", "tensorrt"),
}
"""Package that each engine needs, and the extra that brings it; None for the base."""


@dataclass(frozen=True)
class Finding:
    """One thing that stands in the way.

    Attributes:
        where: key path.
        error: what, and with which exit code.
    """

    where: str
    error: EdgeAdError

    @property
    def line(self) -> str:
        """One line that begins with the key path."""
        text = str(self.error)
        if isinstance(self.error, ConfigError):
            text = "; ".join(self.error.faults)
        return " ".join(f"{self.where}: {text}".split())


@dataclass(frozen=True)
class Report:
    """All that was found.

    Attributes:
        findings: what stands in the way.
        remarks: what does not, and should be known; one line each.
    """

    findings: tuple[Finding, ...]
    remarks: tuple[str, ...] = ()


def check_line(settings: LineSettings, *, unknown_bundle: bool = False) -> Report:
    """Look at everything that settings speak of: bundle, engine, sources, folders, secrets, thresholds, packages.

    Args:
        unknown_bundle: the file names none that could be looked at.
    """
    findings: list[Finding] = []
    remarks: list[str] = []
    thresholds = bundle = None
    if not unknown_bundle:
        try:
            bundle = Bundle.read(settings.bundle)
            thresholds = _thresholds(settings, bundle)
        except ConfigError as exc:  # of the only setting that depends on the bundle
            findings.append(Finding("batch", exc))
        except EdgeAdError as exc:
            findings.append(Finding("bundle", exc))
    findings += _engine(settings)
    for index, camera in enumerate(settings.cameras):
        findings += _source(f"cameras.{index}", camera)
        if bundle is not None:
            findings += _inspection(f"cameras.{index}", camera, bundle)
        if thresholds is not None:
            remarks += _threshold(f"cameras.{index}", camera, *thresholds)
    findings += _folders(settings)
    remarks += _cache(settings)
    findings += _sinks(settings)
    findings += _http(settings)
    return Report(tuple(findings), tuple(remarks))


def _thresholds(settings: LineSettings, bundle: Bundle) -> tuple[Thresholds, tuple[float, float]]:
    """Those of the bundle and the range of its scores. Raises: BundleError; ConfigError."""
    precision = bundle.precision(settings.precision)
    open_detector(bundle, engine=settings.engine, precision=precision, dla=settings.dla, batch=settings.batch)
    return bundle.thresholds(precision), bundle.manifest.postprocess.scores


def _engine(settings: LineSettings) -> Iterator[Finding]:
    package, extra = PACKAGES.get(settings.engine, (None, None))
    if package is not None and importlib.util.find_spec(package) is None:
        yield Finding("engine", MissingExtraError(f"engine {settings.engine!r}", package, extra or "all"))


def _source(where: str, camera: CameraSettings) -> Iterator[Finding]:
    try:
        source = open_source(camera.source, camera)
    except EdgeAdError as exc:
        yield Finding(f"{where}.source", exc)
        return
    if camera.buffer == "freshest" and not source.live:
        fault = "this source waits to be read, so none of its frames is dropped; use auto"
        yield Finding(f"{where}.buffer", ConfigError("buffer", [fault]))


def _inspection(where: str, camera: CameraSettings, bundle: Bundle) -> Iterator[Finding]:
    try:
        inspector_for(camera, bundle)
    except EdgeAdError as exc:
        yield Finding(f"{where}.inspect", exc)


def _threshold(where: str, camera: CameraSettings, of_bundle: Thresholds, scores: tuple[float, float]) -> Iterator[str]:
    score = of_bundle.image if camera.threshold is None else camera.threshold
    if score is None:
        yield f"{where}.threshold: the bundle has none either, so frames get a score but no verdict"
    elif not scores[0] <= score <= scores[1]:
        yield (
            f"{where}.threshold: scores lie between {scores[0]:g} and {scores[1]:g}; {score:g} gives one verdict to all"
            " frames"
        )


def _folders(settings: LineSettings) -> Iterator[Finding]:
    folders = {"engine_cache": settings.engine_cache or default_cache_dir(ENGINE_FOLDER)}
    if settings.output is not None:
        folders["output"] = settings.output
    for key, folder in folders.items():
        reason = _unwritable(folder)
        if reason is not None:
            yield Finding(key, OutputError(f"{folder} cannot be written: {reason}; choose another folder"))


def _cache(settings: LineSettings) -> Iterator[str]:
    """Why the folder for compiled models would not be used; then the line compiles at every start."""
    folder = settings.engine_cache or default_cache_dir(ENGINE_FOLDER)
    fault = fault_of_folder(folder) or fault_of_key()
    if fault is not None and _unwritable(folder) is None:  # else a finding says it
        yield f"engine_cache: {folder} is not used: {fault}"


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written in a folder, which need not exist yet; None when it can. Writes nothing."""
    try:
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            return f"{there} is a file" if there == folder.absolute() else f"{there}, in its path, is a file"
    except OSError as exc:
        return exc.strerror or "it cannot be looked at"
    return None if os.access(there, os.W_OK | os.X_OK) else f"no permission for {there}"


def _sinks(settings: LineSettings) -> Iterator[Finding]:
    """What the sinks need that is not there: packages, variables, certificates; none of them is entered."""
    if sink_faults(settings.sinks, settings.output):
        return  # the file's faults speak of it
    context = SinkContext(settings.output, True, [f"camera {index}" for index in range(len(settings.cameras))], _silent)
    try:
        list(make_sinks(settings.sinks, context))
    except EdgeAdError as exc:
        yield Finding("sinks", exc)
    if settings.triggers.mqtt is not None:
        try:
            MqttTriggers(
                settings.triggers.mqtt,
                context.sources,
                lambda camera, part_id: None,
                run_id=context.run_id,
                environment=context.environment,
            )
        except EdgeAdError as exc:
            yield Finding("triggers.mqtt", exc)


def _silent(line: str) -> None:
    pass


def _http(settings: LineSettings) -> Iterator[Finding]:
    http = settings.http
    if http is None:
        return
    for package in ("tornado", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            yield Finding("http", MissingExtraError("the http section", package, "http"))
    try:
        http.token()
    except ConfigError as exc:
        yield Finding("http.token_env", ConfigError("http", [fault.partition(": ")[2] for fault in exc.faults]))
        return
    if any(http.contradictions()):
        return  # the file's faults speak of it
    try:
        socket.getaddrinfo(http.address, http.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        fault = f"{http.host} is no address or name of a machine; correct it"
        yield Finding("http.host", ConfigError("http", [fault]))
