"""Options of `edge-ad build`, and of `edge-ad export --format engine`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from edge_ad.bundle.specs import Precision
from edge_ad.errors import ConfigError
from edge_ad.runtime.engines.tensorrt.fingerprint import Tail
from edge_ad.runtime.engines.tensorrt.flavour import RTX_SM, FlavourName
from edge_ad.validation import build_rest, strict

MAX_BATCH = 1024
MAX_WORKSPACE_MB = 1 << 20
CAPABILITY = re.compile(r"(?:sm_?)?(\d{1,2})\.?(\d)")


def _capabilities(value: object) -> object:
    """`86,8.9` → (86, 89); in a file a lone one is a number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return value
    parts = [CAPABILITY.fullmatch(part.strip().lower()) for part in value.split(",")]
    if not all(parts):
        raise ValueError("wanted compute capabilities such as 86,89")
    return tuple(sorted({int(part[1] + part[2]) for part in parts if part is not None}))


@strict
@dataclass(frozen=True)
class BuildOptions:
    """Everything `edge-ad build` can be told.

    Attributes:
        bundle: directory of the bundle.
        output: file for the plan; None keeps it in the engine cache.
        flavour: which TensorRT builds.
        sm: compute capabilities to build for, 86 for 8.6 (TensorRT-RTX only); that of the GPU when empty.
        precision: which of the bundle's models; None for its default.
        batch: most images per call; None for what the graph has fixed, or 1.
        optimum: images per call that it is to be fastest at; `batch` when None.
        workspace: most that a layer may take for intermediate results, in MiB.
        timing_cache: file that remembers how fast layers were on this GPU.
        device: number of the GPU to build on.
        dla: core of the deep learning accelerator.
        hardware_compatible, version_compatible, tf32, tail: see `EngineRequest`.
        dry_run: say what would be built, and build nothing.
        engine_cache: folder for plans; the user's cache folder when None.
        adopt: file of a plan that was built elsewhere, and that the user vouches for; nothing is built then.
        force: build anew and replace what is there.
    """

    bundle: Path
    output: Path | None = None
    flavour: FlavourName = "tensorrt"
    sm: Annotated[tuple[int, ...], BeforeValidator(_capabilities)] = ()
    precision: Precision | None = None
    batch: Annotated[int, Field(gt=0, le=MAX_BATCH)] | None = None
    optimum: Annotated[int, Field(gt=0, le=MAX_BATCH)] | None = None
    workspace: Annotated[int, Field(gt=0, le=MAX_WORKSPACE_MB)] | None = None
    timing_cache: Path | None = None
    device: Annotated[int, Field(ge=0)] = 0
    dla: Annotated[int, Field(ge=0)] | None = None
    hardware_compatible: bool = False
    version_compatible: bool = False
    tf32: bool = False
    tail: Tail = "graph"
    dry_run: bool = False
    engine_cache: Path | None = None
    adopt: Path | None = None
    force: bool = False


OF_EXPORT = frozenset({"flavour", "sm"})
"""Those that `edge-ad export --format engine` knows too, beside its own `engine_cache`."""


def build_options(values: dict[str, Any], where: str) -> BuildOptions:
    """Check options by name; None is the same as not given. Raises: ConfigError with every fault."""
    given = {key: value for key, value in values.items() if value is not None}
    options, wrong = build_rest(BuildOptions, given, {"bundle": Path()})
    faults = [fault.line for fault in wrong]
    faulty = {fault.key for fault in wrong}
    if "flavour" not in faulty:
        faults += _rtx_faults(options, given) if options.flavour == "rtx" else _tensorrt_faults(options)
    if options.optimum is not None and options.optimum > (options.batch or options.optimum):
        faults.append(f"optimum: {options.optimum} is more than --batch {options.batch}")
    if options.dla is not None and options.precision not in (None, "fp16"):
        faults.append(f"dla: computes in fp16 alone, not {options.precision}; wanted --precision fp16")
    if options.output is not None and options.engine_cache is not None:
        faults.append("engine_cache: --output says where the engine goes; give one of them")
    if options.output is not None and options.output.suffix == ".json":
        faults.append("output: what describes the engine gets the suffix .json; choose another, such as .plan")
    if options.adopt is not None:
        odd = sorted(given.keys() - {"adopt", "bundle", "precision", "device", "dla", "engine_cache"})
        faults += [f"{name}: --adopt builds nothing; leave it out" for name in odd]
    if faults:
        raise ConfigError(where, faults)
    return options


def _rtx_faults(options: BuildOptions, given: dict[str, Any]) -> list[str]:
    """What TensorRT-RTX cannot do."""
    known = ", ".join(map(str, RTX_SM))
    faults = [f"sm: TensorRT-RTX does not build for {sm}, wanted {known}" for sm in options.sm if sm not in RTX_SM]
    reasons = {
        "timing_cache": "TensorRT-RTX measures nothing when it builds",
        "dla": "TensorRT-RTX is for graphics cards, which have none",
        "hardware_compatible": "name the GPUs with --sm",
        "version_compatible": "TensorRT-RTX builds for its own version alone",
    }
    faults += [
        f"{key}: {reason}; leave it out" for key, reason in reasons.items() if given.get(key) not in (None, False)
    ]
    if options.sm and "device" in given:
        faults.append("device: --sm says what to build for; give one of them")
    return faults


def _tensorrt_faults(options: BuildOptions) -> list[str]:
    if options.sm:
        return ["sm: TensorRT builds for the GPU that it runs on; leave it out, or take --flavour rtx"]
    return []
