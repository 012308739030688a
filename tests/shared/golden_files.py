"""Golden files: outputs of the authors' code, a folder for each family, and weights by name."""

from __future__ import annotations

import ast
import hashlib
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

OWN = Path(__file__).resolve().parents[1] / "golden"
VARIABLE = "EDGE_AD_GOLDEN"
"""Names a folder of further files, laid out as ours: all of them are read too."""
IN_THE_ROOT = "glass"
"""The family whose files may lie in the root of such a folder, beside the folders of all families."""


def files_with(family: str, *keys: str) -> list[Path]:
    """Every file of a family, ours and further ones, that holds `keys`, whatever its name.

    Args:
        keys: of arrays; one that ends in a dot is the beginning of some.
    """
    found: dict[bytes, Path] = {}
    for path in (path for folder in _folders(family) for path in sorted(folder.glob("*.npz"))):
        with np.load(path) as file:
            names = tuple(file)
        if all(any(name == key or (key.endswith(".") and name.startswith(key)) for name in names) for key in keys):
            found.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
    return list(found.values())


def _folders(family: str) -> list[Path]:
    roots = [OWN]
    if further := os.environ.get(VARIABLE):
        assert Path(further).is_dir(), f"{VARIABLE}: {further} is no folder of golden files"
        roots.append(Path(further))
    in_root = roots if family == IN_THE_ROOT else []
    return [*in_root, *(root / family for root in roots)]


def read(path: Path) -> dict[str, Any]:
    """All arrays of a file; `config` as the dictionary that it is the text of."""
    with np.load(path) as file:
        data: dict[str, Any] = dict(file)
    if "config" in data:
        data["config"] = ast.literal_eval(str(data["config"]))
    return data


def drawn(state: Mapping[str, Any], *, norm: tuple[float, float] = (0.5, 1.0), gain: float | None = None) -> Any:
    """Weights drawn by tensor name, as the READMEs beside the files describe.

    Args:
        norm: range of 1-D weights.
        gain: of weights whose names end in `fin_out.0.weight` (DRAEM), which are drawn narrower.
    """
    import torch

    found = {}
    for name, tensor in state.items():
        rng, shape = np.random.default_rng(zlib.crc32(name.encode())), tuple(tensor.shape)
        last = gain is not None and name.endswith("fin_out.0.weight")
        if name.endswith("num_batches_tracked"):
            value = np.zeros(shape)
        elif name.endswith("running_mean"):
            value = 0.1 * rng.standard_normal(shape)
        elif name.endswith("running_var"):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 4:
            value = rng.standard_normal(shape) * np.sqrt((1 if last else 2) / np.prod(shape[1:]))
        elif len(shape) == 2:
            value = rng.standard_normal(shape) * np.sqrt(1 / shape[1])
        elif len(shape) == 1 and name.endswith("weight"):
            value = rng.uniform(*norm, shape)
        else:
            value = 0.1 * rng.standard_normal(shape)
        found[name] = torch.as_tensor(value).float() * (np.float32(gain) if last else 1)
        found[name] = found[name].to(tensor.dtype)
    return found


def largest(got: Any, wanted: Any) -> float:
    """Largest difference of two arrays of one shape, which have to be finite."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape and np.isfinite(got).all()
    return float(np.abs(got - wanted).max())


def drawn_plainly(state: Mapping[str, Any], gains: Mapping[str, float], dtype: Any = None) -> Any:
    """Weights drawn by tensor name as the README of DiffusionAD describes.

    Args:
        gains: what some tensors are multiplied by, by their names.
        dtype: float64 for draws that are not rounded to float32; None for float32.
    """
    import torch

    found = {}
    for name, tensor in state.items():
        rng, shape = np.random.default_rng(zlib.crc32(name.encode())), tuple(tensor.shape)
        if name.endswith("num_batches_tracked"):
            found[name] = torch.zeros(shape, dtype=tensor.dtype)
            continue
        if name.endswith("running_var"):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            relu = len(shape) == 4 and shape[-1] == 3 and not name.endswith("fin_out.0.weight")
            value = rng.standard_normal(shape) * np.sqrt((2 if relu else 1) / np.prod(shape[1:]))
        elif name.endswith("weight"):
            value = rng.uniform(0.75, 1.25, shape)
        else:
            value = 0.1 * rng.standard_normal(shape)
        found[name] = torch.as_tensor(value).to(dtype or torch.float32) * gains.get(name, 1)
    return found
