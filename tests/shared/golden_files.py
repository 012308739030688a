"""Golden files: outputs of the authors' code, a folder for each family beside those of GLASS, and weights by name."""

from __future__ import annotations

import ast
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(os.environ.get("EDGE_AD_GOLDEN") or Path(__file__).resolve().parents[1] / "golden")
"""`EDGE_AD_GOLDEN` names another one to try."""


def files_with(family: str, key: str) -> list[Path]:
    """Every file of a family, whatever its name, that holds `key`."""
    found = []
    for path in sorted((FOLDER / family).glob("*.npz")):
        with np.load(path) as file:
            if key in file:
                found.append(path)
    return found


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
