"""Reading files of tensors without ever executing what is in them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_ad.errors import CheckpointError, one_line, os_reason
from edge_ad.models.backbone import TIMM_PREFIX


def read_tensors(path: Path, what: str) -> dict[str, Any]:
    """Read a dictionary of tensors (or of such dictionaries) saved by torch, on the CPU, `weights_only`.

    Args:
        what: how messages call the file, such as `checkpoint`.

    Raises: CheckpointError when the file is missing, truncated or holds anything but plain tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{what} {path}: {'is no file' if path.exists() else 'no such file'}")
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


def state_of(data: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """Check that a mapping is a state dict of finite tensors. Raises: CheckpointError."""
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{where}: wanted a dictionary of tensors, got a {type(data).__name__}")
    for key, value in data.items():
        if not isinstance(key, str):
            raise CheckpointError(f"{where}: {key!r} is a key of type {type(key).__name__}, wanted names of tensors")
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{where}: {key!r} is a {type(value).__name__}, wanted a tensor")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{where}: tensor {key!r} holds NaN or infinity; the training diverged or the file is damaged"
            )
    return dict(data)


def backbone_state(name: str, file: Path | None) -> tuple[dict[str, Tensor], str]:
    """Pretrained weights of a backbone and a line that says where they came from.

    Without a file, torchvision's IMAGENET1K_V1 weights (those the authors train with) are taken from its cache or the
    network. Raises: CheckpointError when neither gives them.
    """
    if file is not None:
        data = read_tensors(file, "backbone weights")
        return state_of(data, f"backbone weights {file}"), f"file, SHA-256 {sha256_of(file)}"
    how = f"give --backbone-weights FILE (a torchvision state dict of {name})"
    if name.startswith(TIMM_PREFIX):
        raise CheckpointError(f"backbone {name!r} has no weights; {how}")
    from torchvision.models import get_model_weights

    weights = getattr(get_model_weights(name), "IMAGENET1K_V1", None)
    if weights is None:
        raise CheckpointError(f"torchvision publishes no IMAGENET1K_V1 weights for {name!r}; {how}")
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as exc:  # urllib, http.client and torch each have errors of their own
        raise CheckpointError(f"pretrained weights of {name!r} cannot be fetched ({one_line(exc)}); {how}") from exc
    return state_of(state, f"pretrained weights of {name!r}"), "torchvision IMAGENET1K_V1"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Raises: CheckpointError when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot be read: {os_reason(exc)}") from exc
