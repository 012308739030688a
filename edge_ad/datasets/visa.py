"""The layout in which VisA is published; its converted form is that of MVTec AD.

::

    <object>/Data/Images/Normal/*       good images
    <object>/Data/Images/Anomaly/*      defective ones, of one kind
    <object>/Data/Masks/Anomaly/*.png   0 where good, else the number of a kind of defect
    split_csv/1cls.csv                  columns object, split (train, test), label (normal, anomaly), image, mask

The split file lies beside the objects and its paths start there. Without it a tenth of the good images is held out,
which is about the share that 1cls.csv leaves for the test.
"""

from __future__ import annotations

import csv
import os
from fractions import Fraction
from pathlib import Path

from edge_ad.datasets.content import noted
from edge_ad.datasets.folders import good_pictures_in, hold_out, mask_notes, match_masks, pictures_in
from edge_ad.datasets.sample import GOOD, Dataset, Sample
from edge_ad.errors import SourceError, one_line, os_reason
from edge_ad.image.pictures import natural_key

HELD_OUT = Fraction(1, 10)
SPLIT_FILE = Path("split_csv", "1cls.csv")
DEFECT = "Anomaly"

_NORMAL = Path("Data", "Images", "Normal")
_ANOMALY = Path("Data", "Images", DEFECT)
_MASKS = Path("Data", "Masks", DEFECT)
_COLUMNS = ("object", "split", "label", "image", "mask")


def is_visa(root: Path) -> bool:
    """Whether `root` is a category in this layout."""
    return os.path.isdir(root / _NORMAL)


def open_visa(root: Path) -> Dataset:
    """Read the category at `root`.

    Raises: SourceError for no good image, unreadable folders, ambiguous masks, and a split file that is faulty or
        names files that are not there.
    """
    root = root.resolve()
    split_file = root.parent / SPLIT_FILE
    if not os.path.isfile(split_file):
        return _without_split(root, f"there is no {SPLIT_FILE.as_posix()} beside {root.name}")
    rows = _rows(split_file, root.name)
    if not rows:
        return _without_split(root, f"{SPLIT_FILE.as_posix()} has no rows for the object {root.name!r}")
    samples: dict[str, list[Sample]] = {"train": [], "test": []}
    for line, row in rows:
        fault = _fault(row, split_file.parents[1])
        if fault:
            raise SourceError(f"{split_file}, line {line}: {fault}; restore the published file, or remove it")
        mask = split_file.parents[1] / row["mask"] if row["mask"] else None
        defect = GOOD if row["label"] == "normal" else DEFECT
        samples[row["split"]].append(Sample(split_file.parents[1] / row["image"], defect, mask))
    if not samples["train"]:
        raise SourceError(f"{split_file}: no training image of {root.name!r}; restore the published file, or remove it")
    notes = (f"split: {SPLIT_FILE.as_posix()}",)
    return noted(Dataset(root.name, "visa", _ordered(samples["train"]), _ordered(samples["test"]), notes))


def _without_split(root: Path, reason: str) -> Dataset:
    kept, held_out = hold_out(good_pictures_in(root / _NORMAL), root / _NORMAL, HELD_OUT)
    notes = [f"{reason}: {len(held_out)} of {len(kept) + len(held_out)} good images are held out for the test"]
    test = [Sample(picture, GOOD) for picture in held_out]
    if os.path.isdir(root / _ANOMALY):
        pictures = pictures_in(root / _ANOMALY)
        masks = pictures_in(root / _MASKS) if os.path.isdir(root / _MASKS) else []
        matched = match_masks(pictures, root / _ANOMALY, masks, root / _MASKS)
        notes += mask_notes(f"defect {DEFECT!r}", pictures, matched)
        test += [Sample(picture, DEFECT, mask) for picture, mask in zip(pictures, matched.masks, strict=True)]
    return noted(
        Dataset(root.name, "visa", tuple(Sample(picture, GOOD) for picture in kept), tuple(test), tuple(notes))
    )


def _rows(split_file: Path, category: str) -> list[tuple[int, dict[str, str]]]:
    """Rows of a category, with their line numbers. Raises: SourceError when the file is no such table."""
    try:
        with split_file.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise SourceError(f"{split_file}: column(s) {', '.join(missing)} missing; wanted {','.join(_COLUMNS)}")
            return [(reader.line_num, row) for row in reader if row["object"] == category]
    except OSError as exc:
        raise SourceError(f"{split_file}: cannot be read: {os_reason(exc)}") from exc
    except (csv.Error, UnicodeDecodeError) as exc:
        raise SourceError(f"{split_file}: no table of comma-separated values: {one_line(exc)}") from exc


def _fault(row: dict[str, str], base: Path) -> str | None:
    """What is wrong with a row of the split file, or None."""
    if row["split"] not in ("train", "test"):
        return f"wanted the split train or test, got {row['split']!r}"
    if row["label"] not in ("normal", "anomaly"):
        return f"wanted the label normal or anomaly, got {row['label']!r}"
    if row["split"] == "train" and row["label"] == "anomaly":
        return "an anomaly in the training split, which holds good images only"
    if not row["image"]:
        return "no image"
    for name in (row["image"], row["mask"]):
        if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
            return f"{name} lies outside of the data set"
    absent = [name for name in (row["image"], row["mask"]) if name and not os.path.isfile(base / name)]
    return f"{absent[0]} does not exist" if absent else None


def _ordered(samples: list[Sample]) -> tuple[Sample, ...]:
    """Good ones first, each kind in natural order."""
    return tuple(sorted(samples, key=lambda sample: (sample.anomalous, natural_key(str(sample.image)))))
