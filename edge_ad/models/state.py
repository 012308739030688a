"""State dicts: checked, freed of common wrappings, compared with a module, loaded into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_ad.errors import CheckpointError

WRAPPERS = ("state_dict", "model")
PARALLEL_PREFIX = "module."  # put before every name by torch.nn.DataParallel
BATCH_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class State:
    """Tensors by name, and what had to be undone to get them, one line each."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def state_of(data: object, where: str) -> State:
    """Check that `data` is a state dict of finite tensors, in one of the usual wrappings or in none.

    Raises: CheckpointError.
    """
    notes = []
    if isinstance(data, Mapping) and len(data) == 1:
        ((key, inner),) = data.items()
        if key in WRAPPERS and isinstance(inner, Mapping):
            notes.append(f"{where}: the tensors stand under {key!r}; taken from there")
            data = inner
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{where}: wanted a dictionary of tensors, got a {type(data).__name__}")
    tensors = _checked(data, where)
    if tensors and all(key.startswith(PARALLEL_PREFIX) for key in tensors):
        notes.append(f"{where}: every name starts with {PARALLEL_PREFIX!r} (DataParallel); left out")
        tensors = {key.removeprefix(PARALLEL_PREFIX): value for key, value in tensors.items()}
    return State(tensors, tuple(notes))


def _checked(data: Mapping[object, object], where: str) -> dict[str, Tensor]:
    tensors = {}
    for key, value in data.items():
        if not isinstance(key, str):
            raise CheckpointError(f"{where}: {key!r} is a key of type {type(key).__name__}, wanted names of tensors")
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{where}: {key!r} is a {type(value).__name__}, wanted a tensor")
        if value.layout is not torch.strided:
            raise CheckpointError(f"{where}: tensor {key!r} is {value.layout}, wanted a dense one")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{where}: tensor {key!r} holds NaN or infinity; the training diverged or the file is damaged"
            )
        tensors[key] = value
    return tensors


def missing_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Names of `wanted` that `found` lacks, but for BatchNorm's counters: they may lack, inference ignores them."""
    return [key for key in wanted if key not in found and key.rpartition(".")[2] != BATCH_COUNTER]


def check_shapes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str, owner: str) -> None:
    """Raise CheckpointError for the first tensor of `found` whose shape is not that of its namesake in `wanted`."""
    for key, value in found.items():
        if tuple(value.shape) != tuple(wanted[key].shape):
            raise CheckpointError(
                f"{source}: tensor {key!r} has shape {tuple(value.shape)}, {owner} expects {tuple(wanted[key].shape)}"
            )


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy into `module` what it has a place for; what lacks keeps its value. Names and shapes must fit."""
    module.load_state_dict({key: tensors.get(key, value) for key, value in module.state_dict().items()})
