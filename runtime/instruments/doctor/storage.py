"""The cache folder, the engines in it and whether they fit this machine, and a bundle."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ad.disk.private import fault_of_folder
from edge_ad.disk.vouching import fault_of_key, key_path
from edge_ad.runtime.instruments.doctor.check import Check
from edge_ad.runtime.instruments.doctor.machine import Machine
from edge_ad.runtime.instruments.doctor.nvidia import Driver, look_at_driver

if TYPE_CHECKING:
    from edge_ad.runtime.engines.tensorrt.fingerprint import Fingerprint

NAMES = ("cache", "engine-files")
BUNDLE = "bundle"
LOW_BYTES = 1 << 30  # an engine of a large network takes 0.1 GB, and building it several times that


@dataclass(frozen=True)
class Wanted:
    """What the user asks about.

    Attributes:
        bundle: path of a bundle; None for none.
        engine_cache: folder; None for the user's cache folder.
    """

    bundle: str | None = None
    engine_cache: str | None = None


def check_storage(machine: Machine, wanted: Wanted) -> list[Check]:
    from edge_ad.disk.blob_cache import ENGINE_FOLDER, default_cache_dir

    folder = Path(wanted.engine_cache) if wanted.engine_cache is not None else default_cache_dir(ENGINE_FOLDER)
    checks = [_cache(machine, folder)]
    models: dict[str, str] | None = None
    if wanted.bundle is not None:
        check, models = _bundle(wanted.bundle)
        checks.insert(0, check)
    return [*checks, _engine_files(machine, folder, models, wanted.bundle)]


def _bundle(path: str) -> tuple[Check, dict[str, str] | None]:
    """The check, and the precision of each model by its hash; None where the bundle cannot be read."""
    from edge_ad.bundle.bundle import Bundle
    from edge_ad.errors import EdgeAdError

    try:
        bundle = Bundle.read(path)
        default = bundle.precision(None)
        nodes = sum(bundle.examine_graph(precision).nodes for precision in bundle.manifest.models)
    except EdgeAdError as exc:
        return Check(BUNDLE, "broken", str(exc), "edge-ad export, or copy it again"), None
    held = ", ".join(f"{name} (default)" if name == default else name for name in bundle.manifest.models)
    count = len(bundle.manifest.models)
    graphs = f"{'its graph is' if count == 1 else f'its {count} graphs are'} clean ({nodes} nodes)"
    found = f"{path} is sound: {held}; SHA-256 {bundle.sha256[:16]}; {graphs}"
    models: dict[str, str] = {bundle.manifest.files[file]: name for name, file in bundle.manifest.models.items()}
    return Check(BUNDLE, "ok", found), models


def _cache(machine: Machine, folder: Path) -> Check:
    there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), Path("/"))
    if not there.is_dir() or not machine.accessible(there):
        what = "is no folder" if not there.is_dir() else "cannot be written to by this user"
        return Check("cache", "broken", f"{folder}: {there} {what}", "choose another with --engine-cache DIR")
    fault = fault_of_folder(folder)
    if fault is not None:
        remedy = "choose a folder that only this user can write to with --engine-cache DIR"
        return Check("cache", "broken", f"{folder} is not used: {fault}", remedy)
    fault = fault_of_key()
    if fault is not None:
        return Check("cache", "broken", f"{folder} is not used: {fault}")
    free = shutil.disk_usage(there).free
    counts = [f"{_count(folder, '*.plan')} TensorRT engines", f"{_count(folder, '*.blob')} other compiled models"]
    content = " and ".join(counts) if folder.is_dir() else "made when it is needed"
    found = f"{folder}: {content}; {free / 1e9:.1f} GB free"
    key = (f"nobody else can write to it; its content is vouched for with {key_path()}",)
    if free < LOW_BYTES:
        return Check("cache", "note", f"{found}, which is little", details=key)
    return Check("cache", "ok", found, details=key)


def _engine_files(machine: Machine, folder: Path, models: dict[str, str] | None, bundle: str | None) -> Check:
    fault = fault_of_folder(folder)
    if fault is not None:
        return Check("engine-files", "note", f"not looked at, see cache: {fault}")
    lines, fitting, others = [], 0, 0
    driver = look_at_driver(machine)
    for path in sorted(folder.glob("*.plan")):
        found = _engine_file(machine, driver, path, models)
        if found is None:
            others += 1
            continue
        fitting += found.fits
        lines.append(found.line)
    known = models is not None
    whose = " of this bundle" if known else ""
    rest = f"; {others} of other models" if others else ""
    if not lines:
        remedy = _build(machine, bundle) if known and driver.gpus else None
        return Check("engine-files", "note", f"no TensorRT engine{whose} in the cache{rest}", remedy)
    found_text = f"{fitting} of {len(lines)} TensorRT engines{whose} can run here{rest}"
    if fitting:
        return Check("engine-files", "ok", found_text, details=tuple(lines))
    return Check("engine-files", "note", found_text, _build(machine, bundle) if driver.gpus else None, tuple(lines))


@dataclass(frozen=True)
class _Found:
    line: str
    fits: bool


def _engine_file(machine: Machine, driver: Driver, path: Path, models: dict[str, str] | None) -> _Found | None:
    """An engine in a line; None for one of another model than those of the bundle."""
    from edge_ad.runtime.engines.tensorrt.fingerprint import batches
    from edge_ad.runtime.engines.tensorrt.flavour import FLAVOURS
    from edge_ad.runtime.engines.tensorrt.plans import PlanFile, UntrustedPlanError

    file = PlanFile(path)
    built = file.fingerprint()
    short = f"{path.stem[:8]}.plan" if len(path.stem) == 32 else path.name
    if built is None:
        return _Found(f"{short} is not used: its .json is missing or damaged", False)
    if models is not None and built.onnx_sha256 not in models:
        return None
    target = ", ".join(f"SM{sm}" for sm in built.sm) + ("" if built.dla is None else f" DLA core {built.dla}")
    what = f"{short}, {built.precision}, {FLAVOURS[built.flavour].title} {built.version}, {target}"
    what = ", ".join([what, batches(built.batch_min, built.batch_max), *built.flags])
    try:
        file.read()
    except UntrustedPlanError as exc:
        return _Found(f"{what}: {exc}", False)
    reasons = list(_reasons(machine, driver, built))
    if None in reasons:
        return _Found(f"{what}: fits", True)
    return _Found(f"{what}: does not fit, {'; '.join(dict.fromkeys(filter(None, reasons)))}", False)


def _reasons(machine: Machine, driver: Driver, built: Fingerprint) -> Iterator[str | None]:
    """Why an engine cannot be loaded, for each GPU; None for one where it can."""
    from edge_ad.runtime.engines.tensorrt.fingerprint import PlanNeed, misfit, this_platform
    from edge_ad.runtime.engines.tensorrt.flavour import FLAVOURS

    version = machine.probe(built.flavour).value.get("version")
    if version is None:
        yield f"{FLAVOURS[built.flavour].title} cannot be used here"
        return
    if not driver.gpus:
        yield "no NVIDIA GPU can be used here"
    for gpu in driver.gpus:
        # What is left to the user's options is taken as the engine has it: only the machine is in question.
        yield misfit(
            built,
            PlanNeed(
                flavour=built.flavour,
                version=version,
                sm=gpu["sm"],
                gpu=gpu["name"],
                precision=built.precision,
                batch=built.batch_best,
                onnx_sha256=built.onnx_sha256,
                dla=built.dla,
                platform=this_platform(),
            ),
        )


def _build(machine: Machine, bundle: str | None) -> str:
    rtx_alone = machine.probe("tensorrt").value.get("version") is None and machine.probe("rtx").value.get("version")
    return f"edge-ad build {shlex.quote(bundle or 'BUNDLE')}{' --flavour rtx' if rtx_alone else ''}"


def _count(folder: Path, pattern: str) -> int:
    try:
        return len([entry for entry in os.scandir(folder) if entry.name.endswith(pattern[1:])])
    except OSError:
        return 0
