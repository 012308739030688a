"""What calibration measured, kept on disk: the same graph, images and options are measured once."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.disk.blob_cache import BlobCache
from edge_ad.errors import one_line

log = logging.getLogger(__name__)

DTYPES = frozenset(map(np.dtype, ("float32", "float64", "int8", "int64", "uint8")))
PACKAGES = ("edge-ad", "numpy", "onnxruntime", "pillow")  # Pillow resizes the images


def cache_key(
    *,
    graph: bytes,
    images_sha256: str,
    preprocess: PreprocessSpec,
    options: Mapping[str, object],
    packages: Sequence[str] = PACKAGES,
) -> dict[str, str]:
    """Everything that a measurement depends on, spelled out; whatever of it differs makes another key.

    Args:
        graph: the ONNX model that was measured.
        images_sha256: see `edge_ad.calibration.quantize.images.content_sha256`.
        preprocess: how images become model inputs.
        options: what else matters, such as the method; values as JSON has them.
        packages: distributions whose versions count; one that is not installed counts as such.
    """
    return {
        "graph": hashlib.sha256(graph).hexdigest(),
        "images": images_sha256,
        "preprocess": json.dumps(asdict(preprocess), sort_keys=True),
        "options": json.dumps(dict(options), sort_keys=True),
        "versions": " ".join(f"{name}={_version(name)}" for name in packages),
    }


class CalibrationCache:
    """Named arrays under `folder`, one file for each key; a cache that cannot be used costs time, never correctness.

    A file that is damaged, or that somebody changed, is logged and counts as missing; nothing in it is ever executed.
    """

    def __init__(self, folder: Path) -> None:
        self._blobs = BlobCache(folder, "calibration")

    def get(self, key: Mapping[str, str]) -> dict[str, NDArray[Any]] | None:
        """The arrays stored for exactly this key, owned by the caller, or None."""
        blob = self._blobs.get(key)
        if blob is None:
            return None
        try:
            return _unpacked(blob)
        except Exception as exc:  # zip and NumPy raise a whole zoo on hostile bytes
            log.warning(
                "calibration in %s is no table of arrays (%s); making it again", self._blobs.folder, one_line(exc)
            )
            self._blobs.forget(key)
            return None

    def put(self, key: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store arrays of any shape under any names; a full or read-only disk is logged and otherwise ignored.

        Raises: TypeError for an array that is not float32, float64, int8, int64 or uint8.
        """
        self._blobs.put(key, _packed(arrays))


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The arrays by position, behind the list of their names: a tensor's name may be anything, a file's may not."""
    for name, array in arrays.items():
        _check_dtype(name, array)
    stream = io.BytesIO()
    np.savez(stream, np.frombuffer(json.dumps(list(arrays)).encode(), np.uint8), *arrays.values())
    return stream.getvalue()


def _unpacked(blob: bytearray) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
        arrays = [stored[f"arr_{position}"] for position in range(len(stored.files))]
    names = json.loads(arrays[0].tobytes())
    unpacked = dict(zip(names, arrays[1:], strict=True))
    for name, array in unpacked.items():
        _check_dtype(name, array)
    return unpacked


def _check_dtype(name: str, array: NDArray[Any]) -> None:
    if array.dtype not in DTYPES:
        wanted = ", ".join(sorted(dtype.name for dtype in DTYPES))
        raise TypeError(f"array {name!r}: wanted {wanted}, got {array.dtype}")


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
