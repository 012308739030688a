"""The layout in which DAGM 2007 is published, a folder for each of its ten classes.

::

    Class1/Train/*.PNG                    good and defective ones beside each other, Test/ likewise
    Class1/Train/Label/<stem>_label.PNG   of the defective ones: an ellipse drawn around the defect, not black inside
    Class1/Train/Label/Labels.txt         a line for each picture, which names its label picture where it has one

A picture is defective when it has a label picture, or `Labels.txt` names one for it. Nothing learns from defective
training pictures.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from edge_ad.datasets.content import noted
from edge_ad.datasets.folders import child, mask_notes, match_masks, pictures_in
from edge_ad.datasets.sample import GOOD, Dataset, Sample
from edge_ad.errors import SourceError, os_reason

DEFECT = "defect"
COARSE = "masks are coarse ellipses around the defects, not their outlines: figures of pixels are rough"

_TRAIN, _TEST, _LABELS, _LIST = "Train", "Test", "Label", "Labels.txt"
_SUFFIX = "_label"
_MOST_BYTES = 1 << 20  # of a list; the published ones have 25 KiB


def is_dagm(root: Path) -> bool:
    """Whether `root` is a class in this layout."""
    return any(os.path.isdir(child(child(root, half), _LABELS)) for half in (_TRAIN, _TEST))


def open_dagm(root: Path) -> Dataset:
    """Read the class at `root`.

    Raises: SourceError for no good training image, unreadable folders or lists, and ambiguous labels.
    """
    notes: list[str] = []
    train_root, test_root = child(root, _TRAIN), child(root, _TEST)
    found = _half(train_root, notes)
    train = tuple(sample for sample in found if not sample.anomalous)
    if not train:
        raise SourceError(
            f"{train_root}: none of {len(found)} picture(s) is good, that is without one in {_LABELS}; put some there"
        )
    if len(train) < len(found):
        notes.append(f"{train_root.name}: {len(found) - len(train)} of {len(found)} are defective and left out")
    test: tuple[Sample, ...] = ()
    if os.path.isdir(test_root):
        test = _half(test_root, notes)
    else:
        notes.append(f"there is no folder {_TEST}: nothing to evaluate on")
    if any(sample.mask is not None for sample in test):
        notes.append(COARSE)
    return noted(Dataset(root.resolve().name, "dagm", train, test, tuple(notes)))


def _half(folder: Path, notes: list[str]) -> tuple[Sample, ...]:
    """All pictures of `Train` or `Test`, good ones first; those of subfolders are not among them."""
    labels = child(folder, _LABELS)
    pictures = [picture for picture in pictures_in(folder) if picture.parent == folder]
    masks = pictures_in(labels) if os.path.isdir(labels) else []
    matched = match_masks(pictures, folder, masks, labels, suffix=_SUFFIX)
    listed = _listed(labels / _LIST)
    good, defective = [], []
    for picture, mask in zip(pictures, matched.masks, strict=True):
        if mask is None and picture.stem.casefold() not in listed:
            good.append(Sample(picture, GOOD))
        else:
            defective.append(Sample(picture, DEFECT, mask))
    of_defective = replace(matched, masks=tuple(sample.mask for sample in defective))
    notes += mask_notes(f"{folder.name}: defective", [sample.image for sample in defective], of_defective)
    return (*good, *defective)


def _listed(file: Path) -> set[str]:
    """Stems, in lower case, of the pictures for which the list names a label; none where there is no list."""
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            words = opened.read(_MOST_BYTES).split()
    except FileNotFoundError:
        return set()
    except OSError as exc:
        raise SourceError(f"{file} cannot be read: {os_reason(exc)}; check its permissions, or remove it") from exc
    stems = (Path(word).stem.casefold() for word in words)
    return {stem.removesuffix(_SUFFIX) for stem in stems if stem.endswith(_SUFFIX)}
