"""Labelled pictures on disk, for training and evaluation: MVTec AD and its relatives, VisA, DAGM, plain folders.

Opening a data set lists folders and compares files; no picture is decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_ad.datasets.dagm import is_dagm, open_dagm
from edge_ad.datasets.folders import pictures_in, subfolders
from edge_ad.datasets.mvtec import is_mvtec, is_test_half, open_mvtec, open_test_half
from edge_ad.datasets.pixels import (
    MaskArray,
    covers_nearly_all,
    model_mask,
    read_foreground,
    read_image,
    read_mask,
    swapped_notes,
)
from edge_ad.datasets.plain import plain_dataset
from edge_ad.datasets.sample import GOOD, Dataset, Layout, Sample
from edge_ad.datasets.visa import is_visa, open_visa
from edge_ad.errors import SourceError

__all__ = [
    "GOOD",
    "Dataset",
    "Layout",
    "MaskArray",
    "Sample",
    "covers_nearly_all",
    "model_mask",
    "open_dataset",
    "open_labelled",
    "plain_dataset",
    "read_foreground",
    "read_image",
    "read_mask",
    "swapped_notes",
]

WITH_FOLDERS = "name the folder of good images with --good, that of defective ones with --bad"
_LAYOUTS = "train/good with test/<type> (MVTec AD), Data/Images/Normal (VisA), Train/Label (DAGM), or pictures alone"
_OPENERS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Dataset]], ...] = (
    (is_mvtec, open_mvtec),
    (is_visa, open_visa),
    (is_dagm, open_dagm),
)
"""How a category in each layout is recognised, and how it is read."""


def open_dataset(root: Path, advice: str = WITH_FOLDERS) -> Dataset:
    """The data set at `root`, whatever its layout is; a folder around one category stands for that category.

    A folder of pictures without subfolders of pictures is taken for good images.

    Args:
        advice: what to do about a folder in no known layout, with options that the command has.

    Raises: SourceError when there is no good image, no known layout, or more than one category; when a folder cannot
        be listed; and when it is unclear which mask belongs to which picture.
    """
    folders = subfolders(root)
    opened = _category(root)
    if opened is not None:
        return opened
    categories = [folder for folder in folders if _is_category(folder)]
    if len(categories) > 1:
        names = ", ".join(folder.name for folder in categories)
        raise SourceError(f"{root} holds {len(categories)} categories: {names}; name one, such as {categories[0]}")
    if categories:
        opened = _category(categories[0])
        assert opened is not None
        return opened
    pictures = pictures_in(root)
    below = sorted({path.relative_to(root).parts[0] for path in pictures if path.parent != root})
    if below or not pictures:
        got = f"pictures in the folders {', '.join(below)}" if below else "no good image"
        raise SourceError(f"{root}: wanted {_LAYOUTS}; got {got}; {advice}")
    return plain_dataset(root)


def open_labelled(root: Path, advice: str) -> Dataset:
    """As `open_dataset`; also a folder of `good/` and kinds of defects, as the `test` of a category is, all for a test.

    Raises: SourceError as `open_dataset` does.
    """
    if not _is_category(root) and is_test_half(root):
        return open_test_half(root)
    return open_dataset(root, advice)


def _is_category(root: Path) -> bool:
    return any(recognised(root) for recognised, _ in _OPENERS)


def _category(root: Path) -> Dataset | None:
    return next((opened(root) for recognised, opened in _OPENERS if recognised(root)), None)
