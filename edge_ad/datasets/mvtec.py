"""The layout of MVTec AD, which MPDD, WFDD and the converted VisA share.

::

    train/good/*                          good images
    test/<type>/*                         `good`, or the kind of defect
    ground_truth/<type>/<stem>_mask.png   not black where anomalous; also without `_mask`, and as any kind of picture
    fg_mask/ or foreground/               optional, not black where the object is, by the stem of the training image
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from edge_ad.datasets.content import noted
from edge_ad.datasets.folders import child, good_pictures_in, mask_notes, match_masks, pictures_in, subfolders
from edge_ad.datasets.sample import GOOD, Dataset, Sample
from edge_ad.errors import SourceError

_FOREGROUNDS = ("fg_mask", "foreground")
_TEST, _TRAIN, _GROUND_TRUTH = "test", "train", "ground_truth"
_ALSO_GOOD = frozenset(
    ("ok", "okay", "normal", "goods", "good_parts", "pass", "passed", "io", "no_defect", "defect_free", "nondefective")
)
"""Names of good parts in other data sets, without `-` and spaces; as a kind of defect they are hardly meant."""


def is_mvtec(root: Path) -> bool:
    """Whether `root` is a category in this layout."""
    return os.path.isdir(child(child(root, _TRAIN), GOOD))


def is_test_half(root: Path) -> bool:
    """Whether `root` is a folder of `good/` and kinds of defects, as the `test` of a category is."""
    return os.path.isdir(child(root, GOOD))


def open_mvtec(root: Path) -> Dataset:
    """Read the category at `root`. Raises: SourceError for no good image, unreadable folders and ambiguous masks."""
    notes: list[str] = []
    train_root = child(root, _TRAIN)
    good = child(train_root, GOOD)
    pictures = good_pictures_in(good)
    train = tuple(
        Sample(picture, GOOD, foreground=foreground)
        for picture, foreground in zip(pictures, _foregrounds(root, good, pictures, notes), strict=True)
    )
    _note_spelling(good, notes)
    others = [folder.name for folder in subfolders(train_root) if folder != good]
    if others:
        notes.append(f"train: only {good.name!r} is read, not {', '.join(others)}")
    test_root = child(root, _TEST)
    if os.path.isdir(test_root):
        test = _types(test_root, child(root, _GROUND_TRUTH), notes)
    else:
        test = ()
        notes.append("there is no folder test: nothing to evaluate on")
    return noted(Dataset(root.resolve().name, "mvtec", train, test, tuple(notes)))


def open_test_half(root: Path) -> Dataset:
    """Read a folder of `good/` and kinds of defects, with the masks in `ground_truth` in it or beside it.

    Nothing of it is for training. Raises: SourceError for no picture, unreadable folders and ambiguous masks.
    """
    notes: list[str] = []
    own, beside = child(root, _GROUND_TRUTH), child(root.resolve().parent, _GROUND_TRUTH)
    test = _types(root, own if os.path.isdir(own) else beside, notes)
    if not test:
        raise SourceError(f"{root}: {GOOD!r} and the kinds of defects beside it hold no picture; put some there")
    return Dataset(root.resolve().name, "mvtec", (), test, tuple(notes))


def _types(test_root: Path, truth_root: Path, notes: list[str]) -> tuple[Sample, ...]:
    """Samples of the folders in `test_root`, each named after what is in it."""
    samples: list[Sample] = []
    good = child(test_root, GOOD)
    types = [folder for folder in subfolders(test_root) if folder != truth_root]
    where = test_root.resolve().name
    for folder in types:
        pictures = pictures_in(folder)
        if not pictures:
            notes.append(f"{where}: folder {folder.name!r} holds no picture")
        if folder == good:
            _note_spelling(good, notes)
            samples += [Sample(picture, GOOD) for picture in pictures]
            continue
        if re.sub("[- ]", "_", folder.name.casefold()) in _ALSO_GOOD:
            notes.append(f"{where}: {folder.name!r} counts as a kind of defect; good pictures stand in {GOOD!r}")
        mask_root = child(truth_root, folder.name)
        masks: Sequence[Path | None] = [None] * len(pictures)
        if os.path.isdir(mask_root):
            matched = match_masks(pictures, folder, pictures_in(mask_root), mask_root)
            notes += mask_notes(f"defect {folder.name!r}", pictures, matched)
            masks = matched.masks
        samples += [Sample(picture, folder.name, mask) for picture, mask in zip(pictures, masks, strict=True)]
    loose = [path for path in pictures_in(test_root) if path.parent == test_root]
    if loose:
        notes.append(f"{where}: {len(loose)} picture(s) in no folder of a type are not read")
    if os.path.isdir(truth_root):
        known = {folder.name.casefold() for folder in types}
        strange = [folder.name for folder in subfolders(truth_root) if folder.name.casefold() not in known]
        if strange:
            notes.append(f"{truth_root.name}: no pictures in {where} for {', '.join(strange)}")
    return tuple(samples)


def _note_spelling(good: Path, notes: list[str]) -> None:
    if good.name != GOOD:
        notes.append(f"{good.parent.name}: {good.name!r} is read as {GOOD!r}")


def _foregrounds(root: Path, good: Path, pictures: Sequence[Path], notes: list[str]) -> tuple[Path | None, ...]:
    folders = [root / name / below for name in _FOREGROUNDS for below in (f"train/{GOOD}", GOOD, ".")]
    folder = next((folder for folder in folders if os.path.isdir(folder)), None)
    if folder is None:
        return (None,) * len(pictures)
    matched = match_masks(pictures, good, pictures_in(folder), folder)
    notes += mask_notes("foreground", pictures, matched)
    return matched.masks
