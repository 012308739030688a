"""Whether a manifest can be true: sizes that exist, and the tensors that every graph has.

What is checked here is what the runtime then relies on: shapes of arrays, memory that is allocated, matrices that are
made. A manifest is data from elsewhere, and its checksum says only that nobody has changed it since it was written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from edge_ad.bundle.manifest import Manifest
from edge_ad.bundle.specs import TensorSpec, contract

MAX_SIDE = 8192  # pixels
MAX_BATCH = 1024
MAX_BATCH_PIXELS = 1 << 27  # 400 MB of input, 540 MB of maps
MIN_OPSET = 13  # per-channel quantization needs it
MAX_OPSET = 17  # newest opset that every supported TensorRT reads
MAX_FILES = 64
MAX_FILE_BYTES = (2 << 30) - 1  # a serialised ONNX model cannot be larger
SMALLEST_REACH = 64  # pixels that a Gaussian may always reach, however small the map

_SHA256 = re.compile("[0-9a-f]{64}")


def contradictions(manifest: Manifest) -> Iterator[str]:
    """What cannot be in a manifest whose values have the right types, one line each; nothing for a sound one."""
    sizes = list(_sizes(manifest))
    yield from sizes
    if not sizes:
        yield from _tensors(manifest)
    if not MIN_OPSET <= manifest.opset <= MAX_OPSET:
        yield f"opset: wanted {MIN_OPSET} to {MAX_OPSET}, got {manifest.opset}"
    yield from _files(manifest)
    yield from _config("model.config", manifest.model.config)


def _sizes(manifest: Manifest) -> Iterator[str]:
    spec, postprocess = manifest.preprocess, manifest.postprocess
    sides = {"height": spec.height, "width": spec.width, "resize": spec.resize or 1}
    for name, side in sides.items():
        if side > MAX_SIDE:
            yield f"preprocess.{name}: wanted at most {MAX_SIDE} pixels, got {side}"
    if spec.resize is not None and spec.resize_mode != "shorter_side_crop":
        yield f"preprocess.resize: belongs to resize_mode shorter_side_crop, not to {spec.resize_mode}"
    if (grid := manifest.tiles) is not None and grid.canvas_hw != spec.size_hw:
        height, width = grid.canvas_hw
        yield f"tiles: {grid} make {width}x{height} pixels, preprocess has {spec.width}x{spec.height}"
    reach = postprocess.sigma * postprocess.truncate
    most = max(SMALLEST_REACH, max(spec.height, spec.width) // 4)
    if reach > most:
        yield f"postprocess: sigma times truncate is {reach:g} pixels, wanted at most {most}, a quarter of the map"


def _tensors(manifest: Manifest) -> Iterator[str]:
    batch = manifest.input.shape[0] if manifest.input.shape else None
    if batch is not None and not 1 <= batch <= MAX_BATCH:
        yield f"input: wanted a batch of 1 to {MAX_BATCH}, or null for any, got {batch}"
        return
    height, width = manifest.preprocess.size_hw
    if (batch or 1) * height * width > MAX_BATCH_PIXELS:
        yield f"input: {batch or 1} images of {width}x{height} pixels are more than any engine is given"
        return
    patch_hw = _patch_hw(manifest)
    image, outputs = contract(height, width, patch_hw or (0, 0), batch)
    if manifest.input != image:
        yield f"input: wanted {_words(image)}, got {_words(manifest.input)}"
    names = [output.name for output in manifest.outputs]
    wanted = [output.name for output in outputs]
    if names != wanted:
        yield f"outputs: wanted {', '.join(wanted)} in this order, got {', '.join(names)[:100] or 'none'}"
        return
    if patch_hw is None:
        size = f"a batch of {batch or 'any size'}, 1 to {height} rows and 1 to {width} columns"
        yield f"outputs: wanted float32 patch_map with {size}, got {_words(manifest.outputs[0])}"
        return
    for output, right in zip(manifest.outputs, outputs, strict=True):
        if output != right:
            yield f"outputs: wanted {_words(right)}, got {_words(output)}"


def _patch_hw(manifest: Manifest) -> tuple[int, int] | None:
    """Rows and columns of the patch map as the manifest has it; None where there cannot be such a map."""
    shape = manifest.outputs[0].shape if manifest.outputs else ()
    if len(shape) != 3 or shape[1] is None or shape[2] is None:
        return None
    rows, columns = shape[1], shape[2]
    height, width = manifest.preprocess.size_hw
    return (rows, columns) if 1 <= rows <= height and 1 <= columns <= width else None


def _files(manifest: Manifest) -> Iterator[str]:
    if len(manifest.files) > MAX_FILES:
        yield f"files: wanted at most {MAX_FILES}, got {len(manifest.files)}"
    for name, digest in manifest.files.items():
        if not _SHA256.fullmatch(digest):
            yield f"files: {name[:60]!r}: wanted a SHA-256 of 64 digits 0 to 9 and a to f, got {digest[:70]!r}"
    for precision, name in (*manifest.models.items(), *manifest.openvino_ir.items()):
        if name not in manifest.files:
            yield f"models: {name[:60]!r} ({precision}) has no checksum under files"
    if manifest.inspection is not None:
        for name in manifest.inspection.files:
            if name not in manifest.files:
                yield f"inspection: {name[:60]!r} has no checksum under files"
    if not manifest.models:
        yield "models: wanted at least one"
    foreign = {*manifest.quantization, *manifest.precision_thresholds} - manifest.models.keys()
    if foreign:
        yield f"the manifest speaks of {', '.join(sorted(foreign))}, of which there is no model"


def _config(path: str, value: Any) -> Iterator[str]:
    """What JSON could not say."""
    if isinstance(value, dict):
        for key, part in value.items():
            if isinstance(key, str):
                yield from _config(f"{path}.{key[:60]}", part)
            else:
                yield f"{path}: wanted names, got the key {key!r}"
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from _config(f"{path}.{index}", part)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path}: wanted a finite number, got {value}"


def _words(tensor: TensorSpec) -> str:
    sizes = ", ".join("N" if size is None else str(size) for size in tensor.shape[:8])
    return f"{tensor.dtype} {tensor.name[:60]!r} ({sizes}{', ...' if len(tensor.shape) > 8 else ''})"
