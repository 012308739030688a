"""State dicts: checked, freed of common wrappings, compared with a module, loaded into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from edge_ad.errors import CheckpointError

WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net")
"""Names under which training loops keep the tensors, beside the optimizer's and the epoch."""
PREFIXES = {"module.": "DataParallel", "_orig_mod.": "torch.compile"}
"""What is put before every name, and by what."""
BATCH_COUNTER = "num_batches_tracked"
BuiltT = TypeVar("BuiltT")
_DEEPEST = 4
_SHOWN = 4


@dataclass(frozen=True)
class State:
    """Tensors by name, and what had to be undone to get them, one line each."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def state_of(data: object, where: str) -> State:
    """Check that `data` is a state dict of finite tensors, in some of the usual wrappers or in none.

    Raises: CheckpointError.
    """
    data, notes = unwrapped(data, where)
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{where}: wanted a dictionary of tensors, got a {type(data).__name__}")
    tensors = _checked(data, where)
    while prefix := next((one for one in PREFIXES if tensors and all(key.startswith(one) for key in tensors)), None):
        notes.append(f"{where}: every name starts with {prefix!r} ({PREFIXES[prefix]}); left out")
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return State(tensors, tuple(notes))


def unwrapped(
    data: object, where: str, is_it: Callable[[Mapping[Any, Any]], bool] = lambda _: False
) -> tuple[object, list[str]]:
    """What stands in the usual wrappers around it, and a note for each that was opened.

    A dictionary is opened where one of WRAPPERS in it holds another one, and it is not what is looked for.

    Args:
        is_it: whether a dictionary is what is looked for.
    """
    notes: list[str] = []
    while isinstance(data, Mapping) and not is_it(data) and len(notes) < _DEEPEST:
        key = next((name for name in WRAPPERS if isinstance(data.get(name), Mapping)), None)
        if key is None:
            break
        others = first_names([name for name in data if name != key])
        beside = f", and not what stands beside it ({others})" if len(data) > 1 else ""
        notes.append(f"{where}: the tensors stand under {key!r}; taken from there{beside}")
        data = data[key]
    return data, notes


def first_names(keys: Iterable[object]) -> str:
    """The first of some keys, for messages."""
    first = list(islice(keys, _SHOWN + 1))
    shown = [repr(key)[:60] for key in first[:_SHOWN]] + (["..."] if len(first) > _SHOWN else [])
    return ", ".join(shown) or "nothing"


def _checked(data: Mapping[object, object], where: str) -> dict[str, Tensor]:
    tensors = {}
    for key, value in data.items():
        if not isinstance(key, str):
            raise CheckpointError(f"{where}: {key!r} is a key of type {type(key).__name__}, wanted names of tensors")
        if not isinstance(value, Tensor):
            hint = f"; dictionaries are opened under the names {', '.join(WRAPPERS)}"
            raise CheckpointError(
                f"{where}: {key!r} is a {type(value).__name__}, wanted a tensor"
                + (hint if isinstance(value, Mapping) else "")
            )
        if value.layout is not torch.strided:
            raise CheckpointError(f"{where}: tensor {key!r} is {value.layout}, wanted a dense one")
        # A view may say one number a thousand million times over, and a file of 2 kB so ask for all of the memory.
        held = value.untyped_storage().nbytes() if value.device.type == "cpu" else 0
        if held < value.numel() * value.element_size():
            raise CheckpointError(
                f"{where}: tensor {key!r} is said to have shape {tuple(value.shape)}, the file holds {held} bytes of it"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{where}: tensor {key!r} holds NaN or infinity; the training diverged or the file is damaged"
            )
        tensors[key] = value
    return tensors


def missing_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Names of `wanted` that `found` lacks, but for BatchNorm's counters: they may lack, inference ignores them."""
    return [key for key in wanted if key not in found and key.rpartition(".")[2] != BATCH_COUNTER]


def check_shapes(
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    source: str,
    owner: str,
    named: Callable[[str], str] = repr,
) -> None:
    """Raise CheckpointError for the first tensor of `found` whose shape is not that of its namesake in `wanted`."""
    for key, value in found.items():
        if tuple(value.shape) != tuple(wanted[key].shape):
            found_shape, wanted_shape = tuple(value.shape), tuple(wanted[key].shape)
            raise CheckpointError(
                f"{source}: tensor {named(key)} has shape {found_shape}, {owner} expects {wanted_shape}"
            )


def check_architecture(
    found: Mapping[str, Tensor], wanted: nn.Module, source: str, owner: str, named: Callable[[str], str] = repr
) -> None:
    """Raise CheckpointError unless a state dict is one of a module, by its names and shapes.

    Args:
        wanted: the module; `without_memory` makes one of any size.
        source, owner: what messages call the file, and what expects a shape.
        named: how messages name a tensor.
    """
    names = wanted.state_dict()
    missing = missing_tensors(names, found)
    surplus = [key for key in found if key not in names]
    if missing or surplus:
        what, key = ("is missing", missing[0]) if missing else ("is not known", surplus[0])
        raise CheckpointError(f"{source}: tensor {named(key)} {what}; this is another architecture")
    check_shapes(found, names, source, owner, named)


def without_memory(build: Callable[[], BuiltT]) -> BuiltT:
    """Modules whose tensors have shapes and no memory, for widths that a file claims and has yet to prove."""
    with torch.device("meta"):
        return build()


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy into `module` what it has a place for; what lacks keeps its value. Names and shapes must fit."""
    module.load_state_dict({key: tensors.get(key, value) for key, value in module.state_dict().items()})
