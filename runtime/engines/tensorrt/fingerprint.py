"""What a plan was built from, by what and for what; and whether it can do what somebody needs."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from typing import Literal

from edge_ad.bundle.specs import Precision
from edge_ad.runtime.engines.tensorrt.flavour import FLAVOURS, FlavourName
from edge_ad.validation import plain, strict

HARDWARE_COMPATIBLE = "hardware-compatible"
VERSION_COMPATIBLE = "version-compatible"
KERNEL_TAIL = "kernel-tail"
TF32 = "tf32"

Tail = Literal["graph", "kernel"]
"""What makes maps and scores of patch maps: the last layers of the graph, or `resize_smooth.cu` behind it."""

AMPERE_SM = 80


@strict
@dataclass(frozen=True)
class Fingerprint:
    """Everything that a plan depends on.

    Attributes:
        flavour, version: which TensorRT built it.
        sm: compute capabilities that it was built for, 86 for 8.6.
        gpu: name of the GPU that it was built on; None for one that was built for an architecture alone.
        precision: of the graph.
        batch_min, batch_best, batch_max: images per call: fewest, those that it is fastest at, most.
        dla: core of the deep learning accelerator; None for the GPU.
        flags: further options that change the plan, sorted.
        onnx_sha256: hash of the graph.
        platform: operating system and processor, such as `linux-aarch64`.
        edge_ad: version of edge-ad; it does not decide whether a plan fits.
    """

    flavour: FlavourName
    version: str
    sm: tuple[int, ...]
    gpu: str | None
    precision: Precision
    batch_min: int
    batch_best: int
    batch_max: int
    dla: int | None
    flags: tuple[str, ...]
    onnx_sha256: str
    platform: str
    edge_ad: str

    @property
    def tail(self) -> Tail:
        return "kernel" if KERNEL_TAIL in self.flags else "graph"

    @property
    def key(self) -> str:
        """Name of the plan in the cache: one for each fingerprint."""
        return hashlib.sha256(json.dumps(plain(self), sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class PlanNeed:
    """What a machine needs of a plan in order to run it.

    Attributes:
        flavour, version: the TensorRT that would load it.
        sm, gpu: compute capability and name of the GPU that would run it.
        precision, batch, onnx_sha256: what is to be computed, and how many images at once.
        dla: core of the deep learning accelerator; None for the GPU.
        platform: see `Fingerprint`.
        tail: what is to make maps and scores; None takes either.
    """

    flavour: FlavourName
    version: str
    sm: int
    gpu: str
    precision: Precision
    batch: int
    onnx_sha256: str
    dla: int | None
    platform: str
    tail: Tail | None = None


def this_platform() -> str:
    """Such as `linux-x86_64`."""
    return f"{platform.system()}-{platform.machine()}".lower()


def misfit(built: Fingerprint, need: PlanNeed) -> str | None:
    """Why a plan cannot be loaded for a need, in words; None when it can."""
    title = FLAVOURS[built.flavour].title
    if built.onnx_sha256 != need.onnx_sha256:
        return "built from another model"
    if built.precision != need.precision:
        return f"built for {built.precision}, wanted {need.precision}"
    if built.flavour != need.flavour:
        return f"built by {title}, wanted {FLAVOURS[need.flavour].title}"
    if built.platform != need.platform:
        return f"built on {built.platform}, this is {need.platform}"
    if not _version_fits(built, need.version):
        return f"built by {title} {built.version}, this is {need.version}"
    if built.dla != need.dla:
        return f"built for {_unit(built.dla)}, wanted {_unit(need.dla)}"
    if need.tail not in (None, built.tail):
        return f"built with --tail {built.tail}, wanted {need.tail}"
    if HARDWARE_COMPATIBLE in built.flags:
        if need.sm < AMPERE_SM:
            return f"built for SM{AMPERE_SM} and newer, this is SM{need.sm}"
    elif need.sm not in built.sm:
        return f"built for {', '.join(f'SM{sm}' for sm in built.sm)}, this is SM{need.sm}"
    elif built.gpu not in (None, need.gpu):
        return f"built on {built.gpu}, this is {need.gpu}"
    if not built.batch_min <= need.batch <= built.batch_max:
        return f"built for {batches(built.batch_min, built.batch_max)}, wanted {need.batch}"
    return None


def batches(fewest: int, most: int) -> str:
    """Such as `batches of 1 to 4`."""
    return f"batches of {fewest}" if fewest == most else f"batches of {fewest} to {most}"


def _unit(dla: int | None) -> str:
    return "the GPU" if dla is None else f"DLA core {dla}"


def _version_fits(built: Fingerprint, version: str) -> bool:
    if built.version == version:
        return True
    if VERSION_COMPATIBLE not in built.flags:
        return False
    here, there = _numbers(version), _numbers(built.version)
    return here[0] == there[0] and here >= there


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+")[0].split(".")
    return tuple(int(part) for part in parts if part.isdecimal()) or (0,)
