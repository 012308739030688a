"""Reading files of tensors without ever executing what is in them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edge_ad.errors import CheckpointError, one_line, os_reason
from edge_ad.models.backbone import TIMM_PREFIX
from edge_ad.models.state import State, state_of


def read_tensors(path: Path, what: str) -> dict[str, Any]:
    """Read a dictionary of tensors (or of such dictionaries) saved by torch, on the CPU, `weights_only`.

    Args:
        what: how messages call the file, such as `checkpoint`.

    Raises: CheckpointError when the file is missing, truncated or holds anything but plain tensors.
    """
    require_files({what: path})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign pickles, which are refused below
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:
        reason = "holds more than plain tensors and is not opened" if "weights_only" in str(exc) else one_line(exc)
        raise CheckpointError(
            f"{what} {path}: truncated, or no file saved by torch ({reason or type(exc).__name__})"
        ) from exc
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{what} {path}: wanted a dictionary of tensors, got a {type(data).__name__}")
    return dict(data)


def file_fault(path: Path) -> str | None:
    """Why there is no file to read at `path`; None when there is one."""
    if os.path.isfile(path):
        return None
    return "is no file" if os.path.exists(path) else "no such file"


def require_files(files: Mapping[str, Path | None]) -> None:
    """Raise CheckpointError that names every file of `files` (what it is → where) that is given and not there."""
    found = {what: (path, file_fault(path)) for what, path in files.items() if path is not None}
    faults = [f"{what} {path}: {fault}" for what, (path, fault) in found.items() if fault]
    if faults:
        raise CheckpointError("; ".join(faults))


@dataclass(frozen=True)
class BackboneState(State):
    """Pretrained weights of a backbone; `origin` says where they came from."""

    origin: str = ""


def backbone_state(name: str, file: Path | None) -> BackboneState:
    """Pretrained weights of a backbone.

    Without a file, torchvision's IMAGENET1K_V1 weights (those the authors train with) are taken from its cache or the
    network. Raises: CheckpointError when neither gives them.
    """
    if file is not None:
        state = state_of(read_tensors(file, "backbone weights"), f"backbone weights {file}")
        return BackboneState(state.tensors, state.notes, f"file, SHA-256 {sha256_of(file)}")
    how = f"give --backbone-weights FILE (a torchvision state dict of {name})"
    if name.startswith(TIMM_PREFIX):
        raise CheckpointError(f"backbone {name!r} has no weights; {how}")
    from torchvision.models import get_model_weights

    weights = getattr(get_model_weights(name), "IMAGENET1K_V1", None)
    if weights is None:
        raise CheckpointError(f"torchvision publishes no IMAGENET1K_V1 weights for {name!r}; {how}")
    try:
        # torch.hub announces a download on standard output, which belongs to the results of a command.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            fetched = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as exc:  # urllib, http.client and torch each have errors of their own
        raise CheckpointError(f"pretrained weights of {name!r} cannot be fetched ({one_line(exc)}); {how}") from exc
    state = state_of(fetched, f"pretrained weights of {name!r}")
    return BackboneState(state.tensors, state.notes, "torchvision IMAGENET1K_V1")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Raises: CheckpointError when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot be read: {os_reason(exc)}") from exc
