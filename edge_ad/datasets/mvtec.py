"""The layout of MVTec AD, which MPDD, WFDD and the converted VisA share.

::

    train/good/*                          good images
    test/<type>/*                         `good`, or the kind of defect
    ground_truth/<type>/<stem>_mask.png   not black where anomalous; also without `_mask`, and as any kind of picture
    fg_mask/ or foreground/               optional, not black where the object is, by the stem of the training image
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edge_ad.datasets.folders import good_pictures_in, mask_notes, match_masks, pictures_in, subfolders
from edge_ad.datasets.sample import GOOD, Dataset, Sample

_FOREGROUNDS = ("fg_mask", "foreground")


def is_mvtec(root: Path) -> bool:
    """Whether `root` is a category in this layout."""
    return os.path.isdir(root / "train" / GOOD)


def open_mvtec(root: Path) -> Dataset:
    """Read the category at `root`. Raises: SourceError for no good image, unreadable folders and ambiguous masks."""
    notes: list[str] = []
    good = root / "train" / GOOD
    pictures = good_pictures_in(good)
    train = tuple(
        Sample(picture, GOOD, foreground=foreground)
        for picture, foreground in zip(pictures, _foregrounds(root, pictures, notes), strict=True)
    )
    others = [folder.name for folder in subfolders(root / "train") if folder.name != GOOD]
    if others:
        notes.append(f"train: only {GOOD!r} is read, not {', '.join(others)}")
    return Dataset(root.resolve().name, "mvtec", train, _test(root, notes), tuple(notes))


def _test(root: Path, notes: list[str]) -> tuple[Sample, ...]:
    if not os.path.isdir(root / "test"):
        notes.append("there is no folder test: nothing to evaluate on")
        return ()
    samples: list[Sample] = []
    types = subfolders(root / "test")
    for folder in types:
        pictures = pictures_in(folder)
        if not pictures:
            notes.append(f"test: folder {folder.name!r} holds no picture")
        mask_root = root / "ground_truth" / folder.name
        masks: Sequence[Path | None] = [None] * len(pictures)
        if folder.name != GOOD and os.path.isdir(mask_root):
            matched = match_masks(pictures, folder, pictures_in(mask_root), mask_root)
            notes += mask_notes(f"defect {folder.name!r}", pictures, matched)
            masks = matched.masks
        samples += [Sample(picture, folder.name, mask) for picture, mask in zip(pictures, masks, strict=True)]
    loose = [path for path in pictures_in(root / "test") if path.parent == root / "test"]
    if loose:
        notes.append(f"test: {len(loose)} picture(s) in no folder of a type are not read")
    if os.path.isdir(root / "ground_truth"):
        known = {folder.name for folder in types}
        strange = [folder.name for folder in subfolders(root / "ground_truth") if folder.name not in known]
        if strange:
            notes.append(f"ground_truth: no pictures in test for {', '.join(strange)}")
    return tuple(samples)


def _foregrounds(root: Path, pictures: Sequence[Path], notes: list[str]) -> tuple[Path | None, ...]:
    folders = [root / name / below for name in _FOREGROUNDS for below in (f"train/{GOOD}", GOOD, ".")]
    folder = next((folder for folder in folders if os.path.isdir(folder)), None)
    if folder is None:
        return (None,) * len(pictures)
    matched = match_masks(pictures, root / "train" / GOOD, pictures_in(folder), folder)
    notes += mask_notes("foreground", pictures, matched)
    return matched.masks
