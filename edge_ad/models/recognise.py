"""Which family a checkpoint is of, by the names of its tensors, or by how it begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_ad.errors import CheckpointError
from edge_ad.models import FAMILIES, model_family
from edge_ad.models.family import LoadedNetwork, ModelFamily
from edge_ad.models.references import References
from edge_ad.models.weights import read_tensors

PREFIXES = ("module", "_orig_mod")  # parts of names that DataParallel and torch.compile put in
MOST_FIRST_BYTES = 16
DEEPEST = 4  # mappings in mappings that are looked into


def families_of(checkpoint: Path) -> dict[str, str]:
    """Families whose checkpoints hold a tensor of this file, and that tensor; empty where the file cannot be read.

    In place of a tensor, what a file of another kind begins with.
    """
    begun = _first_bytes(checkpoint)
    for family in map(model_family, FAMILIES):
        for first in family.known_by_bytes:
            if begun.startswith(first):
                return {family.name: first.decode("ascii")}
    try:
        names = list(_names(read_tensors(checkpoint, "checkpoint")))
    except CheckpointError:
        return {}  # loading it says why
    found = {}
    for family in map(model_family, FAMILIES):
        known = next((name for name in names for end in family.known_by if _ends(name, end)), None)
        if known is not None:
            found[family.name] = known
    shared = {name for family in found for name in model_family(family).builds_on}
    return {name: known for name, known in found.items() if name not in shared}


def loaded_as(family: ModelFamily, checkpoint: Path, options: Any, references: References) -> LoadedNetwork[Any]:
    """The checkpoint as a network of `family`, see `ModelFamily.load`.

    Raises: CheckpointError, which names the family that the file seems to be of, where that is another one.
    """
    try:
        return family.load(checkpoint, options, references)
    except CheckpointError as exc:
        others = families_of(checkpoint)
        if family.name in others or not others:
            raise
        name, tensor = next(iter(others.items()))
        raise CheckpointError(f"{exc}; with {tensor!r} it seems to be one of --family {name}") from exc


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_FIRST_BYTES)
    except OSError:
        return b""


def _names(value: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[str]:
    for key, inner in value.items():
        parts = [part for part in str(key).split(".") if part not in PREFIXES]
        name = ".".join([*([prefix] if prefix else []), *parts])
        if isinstance(inner, Mapping) and depth < DEEPEST:
            yield from _names(inner, name, depth + 1)
        else:
            yield name


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")
