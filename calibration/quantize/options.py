"""Options of `edge-ad calibrate` and of `edge-ad export --quantize`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edge_ad.bundle.specs import RangeMethod
from edge_ad.calibration.agreement.tolerances import Share, Tolerances
from edge_ad.calibration.destination import ChangedBundle
from edge_ad.errors import ConfigError
from edge_ad.validation import build_rest, by_name, strict

Lower = Literal["int8", "fp16"]
GateMode = Literal["enforce", "report", "off"]
DEFAULT_IMAGES = 512
MAX_IMAGES = 100_000


@strict
@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(ChangedBundle):
    """How a bundle with a float model gets one of lower precision.

    Attributes:
        quantize: precision to make.
        data: data set, whose good training images calibrate, or a folder of good images.
        val: data set or folder of images for the gate; None holds out a fifth of `data`.
        ranges: how the range of an activation is chosen (int8 only).
        images: how many images calibrate at most.
        seed: of their draw, and of the gate's noise and intervals.
        gate: `enforce` rolls layers back to float until the tolerances hold, or fails; `report` looks and writes the
            bundle in any case; `off` does not look.
        engine: that the gate runs both models on; None for OpenVINO, and for fp16 ONNX Runtime, which alone rounds to
            float16 on any CPU.
        max_flips, max_auroc_drop, max_pixel_auroc_drop, min_map_correlation: see `Tolerances`.
        calibration_cache, engine_cache: folders for what was measured and compiled; the user's cache folder when None.
    """

    data: Path
    quantize: Lower = "int8"
    val: Path | None = None
    ranges: RangeMethod = "min-max"
    images: Annotated[int, Field(gt=0, le=MAX_IMAGES)] = DEFAULT_IMAGES
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    gate: GateMode = "enforce"
    engine: str | None = None
    max_flips: Share = Tolerances.flips
    max_auroc_drop: Share = Tolerances.auroc_drop
    max_pixel_auroc_drop: Share = Tolerances.pixel_auroc_drop
    min_map_correlation: Annotated[float, Field(ge=-1, le=1)] = Tolerances.map_correlation
    calibration_cache: Path | None = None
    engine_cache: Path | None = None

    @property
    def gate_engine(self) -> str:
        return self.engine or ("onnxruntime" if self.quantize == "fp16" else "openvino")

    @property
    def tolerances(self) -> Tolerances:
        return Tolerances(
            flips=self.max_flips,
            auroc_drop=self.max_auroc_drop,
            pixel_auroc_drop=self.max_pixel_auroc_drop,
            map_correlation=self.min_map_correlation,
        )


OF_EXPORT = frozenset(field.name for field in fields(QuantizeOptions)) - {field.name for field in fields(ChangedBundle)}
"""Those that `edge-ad export` knows too, beside its own."""


def quantize_options(values: dict[str, Any], where: str, overrides: dict[str, Any] | None = None) -> QuantizeOptions:
    """Check options by name.

    Args:
        values: by name, words joined by `_` or `-`; None is the same as not given.
        overrides: by field name; they win.

    Raises: ConfigError with every fault.
    """
    named, faults = by_name(values)
    named |= {key: value for key, value in (overrides or {}).items() if value is not None}
    given = {key: value for key, value in named.items() if value is not None}
    options, wrong = build_rest(QuantizeOptions, given, {"bundle": Path(), "data": Path()})
    faults += [fault.line for fault in wrong]
    wrong_keys = {fault.key for fault in wrong}
    faults += [f"{key}: missing" for key in ("bundle", "data") if key not in given and key not in wrong_keys]
    faults += options.destination_faults()
    if options.quantize == "fp16":
        of_int8 = [key for key in ("ranges", "images") if key in given]
        faults += [f"{key}: float16 is not calibrated; leave it out, or take --quantize int8" for key in of_int8]
    if options.quantize == "fp16" and options.gate_engine != "onnxruntime":
        faults.append(
            f"engine: the gate of float16 runs on onnxruntime, got {options.gate_engine!r}, which computes in float32"
            " on most processors; leave it out"
        )
    if faults:
        raise ConfigError(where, faults)
    return options
