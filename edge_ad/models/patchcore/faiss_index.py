"""The authors' files without their libraries: a bank in faiss's IndexFlatL2, parameters in a pickle of plain values.

Nothing of the pickle is executed: it holds text, numbers and lists of them, and one that names a class or a function
is refused.
"""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge_ad.errors import CheckpointError, os_reason

INDEX_NAME = "nnscorer_search_index.faiss"
PARAMS_NAME = "patchcore_params.pkl"
MAGIC = b"IxF2"
HEADER = struct.Struct("<4siqqq?iQ")
"""Kind, columns, rows, two numbers that mean nothing, whether it is trained, metric, number of floats (faiss 1.9)."""
INSTEAD = "move it away and give --backbone, --layers and the others instead"
L2 = 1  # faiss::METRIC_L2
MOST_PARAMS = 1 << 16  # bytes; the authors' have about 250


def is_faiss(path: Path) -> bool:
    """Whether a file begins as an index of faiss does."""
    try:
        with path.open("rb") as file:
            return file.read(2) == MAGIC[:2]
    except OSError:
        return False


def read_bank(path: Path) -> Tensor:
    """The bank of an IndexFlatL2: (M, D) float32. Raises: CheckpointError."""
    where = f"checkpoint {path}"
    try:
        with path.open("rb") as file:
            header = file.read(HEADER.size)
            size = path.stat().st_size
            if header[:4] != MAGIC:
                raise CheckpointError(
                    f"{where}: an index of kind {header[:4]!r}, wanted {MAGIC.decode()} (IndexFlatL2);"
                    " fit again without the approximate search"
                )
            if len(header) < HEADER.size:
                raise CheckpointError(f"{where}: truncated, {size} bytes")
            _, columns, rows, _, _, trained, metric, count = HEADER.unpack(header)
            if metric != L2 or not trained:
                raise CheckpointError(f"{where}: metric {metric}, wanted {L2} (L2) of a finished index")
            if columns < 1 or rows < 1 or count != columns * rows:
                raise CheckpointError(f"{where}: damaged: {rows} rows of {columns} columns in {count} numbers")
            if size != HEADER.size + 4 * count:
                raise CheckpointError(f"{where}: truncated or damaged: {size} bytes, wanted {HEADER.size + 4 * count}")
            values = np.fromfile(file, "<f4", count)
    except OSError as exc:
        raise CheckpointError(f"{where}: cannot be read: {os_reason(exc)}") from exc
    if not np.isfinite(values).all():
        raise CheckpointError(f"{where}: holds NaN or infinity")
    return torch.from_numpy(values.astype(np.float32, copy=False).reshape(rows, columns))


def params_path(index: Path) -> Path:
    """Where the authors put the parameters that belong to an index."""
    return index.with_name(index.name.removesuffix(INDEX_NAME) + PARAMS_NAME)


def read_params(path: Path) -> dict[str, Any]:
    """Parameters by name: text, numbers, lists and tuples of them. Raises: CheckpointError."""
    where = f"parameters {path}"
    try:
        with path.open("rb") as file:
            data = file.read(MOST_PARAMS + 1)
    except OSError as exc:
        raise CheckpointError(f"{where}: cannot be read: {os_reason(exc)}") from exc
    if len(data) > MOST_PARAMS:
        raise CheckpointError(f"{where}: more than {MOST_PARAMS} bytes; {INSTEAD}")
    try:
        found = _PlainUnpickler(io.BytesIO(data)).load()
    except Exception as exc:  # a pickle can fail in any way
        reason = "names code" if isinstance(exc, _NamesCodeError) else "damaged"
        raise CheckpointError(f"{where}: {reason} and is not opened; {INSTEAD}") from exc
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise CheckpointError(f"{where}: wanted values by name, got a {type(found).__name__}")
    return found


class _NamesCodeError(pickle.UnpicklingError):
    pass


class _PlainUnpickler(pickle.Unpickler):
    """Takes values that pickle itself knows, and nothing that has to be imported."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise _NamesCodeError(f"{module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _NamesCodeError("a persistent object")
