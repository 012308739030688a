"""Pictures that are training and test at once, found by what is in the files and not by their names."""

from __future__ import annotations

import filecmp
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edge_ad.datasets.sample import Dataset, Sample

_ENDS_BYTES = 1 << 16  # of a file, compared before all of it is: uncompressed pictures all have the same size
_SHOWN = 3


def noted(dataset: Dataset) -> Dataset:
    """The data set with what there is to say of pictures that it has twice."""
    return replace(dataset, notes=(*dataset.notes, *shared_notes(dataset.train, dataset.test)))


def shared_notes(train: Sequence[Sample], test: Sequence[Sample]) -> list[str]:
    """What the user should know of test pictures that are training pictures too. No picture is decoded."""
    twins = _twins([sample.image for sample in train], [sample.image for sample in test])
    found = [(sample, twins[sample.image]) for sample in test if sample.image in twins]
    notes = []
    for kind, pairs, what in (
        ("good", [pair for pair in found if not pair[0].anomalous], "figures on them are too good"),
        ("defective", [pair for pair in found if pair[0].anomalous], "they are learned as good; take them out of it"),
    ):
        if pairs:
            named = ", ".join(f"{sample.image} is {twin}" for sample, twin in pairs[:_SHOWN])
            more = ", ..." if len(pairs) > _SHOWN else ""
            notes.append(f"{len(pairs)} {kind} test picture(s) are in the training as well: {what} ({named}{more})")
    return notes


def _twins(first: Sequence[Path], second: Sequence[Path]) -> dict[Path, Path]:
    """For files of `second` that have the content of one of `first`: that one. Files that cannot be read have none."""
    sizes = {path: _size(path) for path in (*first, *second)}
    both = {sizes[path] for path in first} & {sizes[path] for path in second} - {0}
    known: defaultdict[bytes, list[Path]] = defaultdict(list)
    for path in first:
        if sizes[path] in both:
            known[_ends(path, sizes[path])].append(path)
    found = {}
    for path in second:
        alike = known[_ends(path, sizes[path])] if sizes[path] in both else []
        twin = next((other for other in alike if _same(path, other)), None)
        if twin is not None:
            found[path] = twin
    return found


def _ends(path: Path, size: int) -> bytes:
    """A hash of size, beginning and end of a file; its path where it cannot be read: whoever opens it will say so."""
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256(b"%d\n" % size + file.read(_ENDS_BYTES))
            file.seek(max(0, size - _ENDS_BYTES))
            digest.update(file.read(_ENDS_BYTES))
    except OSError:
        return bytes(path)
    return digest.digest()


def _same(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _size(path: Path) -> int:
    """Bytes of a file; 0 where it cannot be read, or holds nothing."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
