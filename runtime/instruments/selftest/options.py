"""Options of `edge-ad selftest`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edge_ad.bundle.specs import Precision
from edge_ad.errors import ConfigError
from edge_ad.validation import build_rest, strict

EngineName = Literal["tensorrt", "openvino", "onnxruntime"]
FRAMES = 200
MOST_FRAMES = 100_000


@strict
@dataclass(frozen=True)
class SelftestOptions:
    """Everything `edge-ad selftest` can be told.

    Attributes:
        bundle: directory of the bundle.
        engine: which to test; None for TensorRT where there is a GPU, and else OpenVINO.
        precision: which of the bundle's models; None for its default.
        device: number of the GPU; for TensorRT.
        dla: core of its deep learning accelerator; for TensorRT.
        engine_cache: folder for compiled models; the user's cache folder when None.
        images: folder of pictures to judge; None for pictures that are made up.
        frames: how many to time, of each way to compute.
        budget_ms: what 99 of 100 frames have to be judged within.
        build: build the TensorRT engines that are missing.
        record: keep what was found to be fastest, for `edge-ad run`.
        seed: of the pictures that are made up.
    """

    bundle: Path
    engine: EngineName | None = None
    precision: Precision | None = None
    device: Annotated[int, Field(ge=0)] = 0
    dla: Annotated[int, Field(ge=0)] | None = None
    engine_cache: Path | None = None
    images: Path | None = None
    frames: Annotated[int, Field(gt=0, le=MOST_FRAMES)] = FRAMES
    budget_ms: Annotated[float, Field(gt=0)] | None = None
    build: bool = False
    record: bool = True
    seed: Annotated[int, Field(ge=0)] = 0


def selftest_options(values: dict[str, Any], where: str) -> SelftestOptions:
    """Check options by name; None is the same as not given. Raises: ConfigError with every fault."""
    given = {key: value for key, value in values.items() if value is not None}
    options, wrong = build_rest(SelftestOptions, given, {"bundle": Path()})
    faults = [fault.line for fault in wrong]
    if "engine" not in {fault.key for fault in wrong} and options.engine not in (None, "tensorrt"):
        faults += [
            f"{name}: is for --engine tensorrt, not for {options.engine}; leave it out"
            for name in ("device", "dla", "build")
            if name in given
        ]
    if faults:
        raise ConfigError(where, faults)
    return options
