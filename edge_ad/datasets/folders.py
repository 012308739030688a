"""What the layouts have in common: listing folders, giving every picture its mask, holding images out."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from edge_ad.errors import SourceError, os_reason
from edge_ad.image.pictures import IMAGE_SUFFIXES, natural_key, pictures_below

MASK_SUFFIX = "_mask"
_SHOWN = 3


@dataclass(frozen=True)
class Matched:
    """Pictures with their masks.

    Attributes:
        masks: for every picture, in the order given, its mask or None.
        unused: masks that belong to no picture.
    """

    masks: tuple[Path | None, ...]
    unused: tuple[Path, ...]


def subfolders(folder: Path) -> list[Path]:
    """Folders in `folder` that are not hidden, in natural order. Raises: SourceError when it cannot be listed."""
    try:
        found = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and os.path.isdir(entry)]
    except OSError as exc:
        raise SourceError(
            f"folder {folder} cannot be listed: {os_reason(exc)}; check its name and permissions"
        ) from exc
    return sorted(found, key=lambda entry: natural_key(entry.name))


def child(folder: Path, name: str) -> Path:
    """The subfolder of that name, in upper or lower case: `Good` is meant where `good` is wanted.

    Returns: `folder / name` where there is none, or `folder` cannot be listed. Raises: SourceError for several.
    """
    try:
        alike = [entry for entry in folder.iterdir() if entry.name.casefold() == name.casefold() and entry.is_dir()]
    except OSError:
        return folder / name
    if len(alike) > 1:
        raise SourceError(f"{folder} holds the folders {_shown(sorted(alike))}, which mean the same; keep one")
    return alike[0] if alike else folder / name


def pictures_in(folder: Path) -> list[Path]:
    """Pictures below `folder` in natural order, maybe none.

    Raises: SourceError when it is no folder, or cannot be listed.
    """
    if not os.path.isdir(folder):
        state = "is a file" if os.path.exists(folder) else "does not exist"
        raise SourceError(f"wanted a folder of pictures, got {folder}, which {state}; check the path")
    return [Path(path) for path in pictures_below(str(folder))]


def good_pictures_in(folder: Path) -> list[Path]:
    """Pictures below `folder`, at least one. Raises: SourceError as `pictures_in` does, or when there is none."""
    found = pictures_in(folder)
    if not found:
        raise SourceError(
            f"folder {folder} holds no good image to learn from: looked for {', '.join(IMAGE_SUFFIXES)}, also in its"
            " subfolders; put pictures of good parts there, or name another folder"
        )
    return found


def match_masks(
    pictures: Sequence[Path],
    picture_root: Path,
    masks: Sequence[Path],
    mask_root: Path,
    *,
    suffix: str = MASK_SUFFIX,
) -> Matched:
    """Give every picture the mask of its name, whatever the kinds of files are: `<stem><suffix>` or else `<stem>`.

    The path below the two roots decides first; masks that are sorted into other folders are found by their stem alone.

    Raises: SourceError when a picture has two masks of the same rank, or a mask is wanted by two pictures.
    """
    by_path: defaultdict[str, list[Path]] = defaultdict(list)
    by_stem: defaultdict[str, list[Path]] = defaultdict(list)
    for mask in masks:
        by_path[_key(mask, mask_root)].append(mask)
        by_stem[mask.stem].append(mask)
    owners: dict[Path, Path] = {}
    found = []
    for picture in pictures:
        path, stem = _key(picture, picture_root), picture.stem
        ranks = (by_path[path + suffix], by_path[path], by_stem[stem + suffix], by_stem[stem])
        candidates: list[Path] = next((rank for rank in ranks if rank), [])
        if len(candidates) > 1:
            raise SourceError(f"picture {picture} has two masks, {_shown(candidates)}; remove one")
        for mask in candidates:
            if mask in owners:
                raise SourceError(f"mask {mask} fits two pictures, {owners[mask]} and {picture}; rename one of them")
            owners[mask] = picture
        found.append(candidates[0] if candidates else None)
    return Matched(tuple(found), tuple(mask for mask in masks if mask not in owners))


def hold_out(pictures: Sequence[Path], root: Path, share: Fraction) -> tuple[list[Path], list[Path]]:
    """Split pictures into those kept and those held out, each in the order given.

    The share with the smallest hashes of the names below `root` is held out (rounded down, but one of two or more):
    the choice depends on the names alone, not on their order, the machine or the place of the folder.
    """
    count = max(int(len(pictures) * share), 1) if len(pictures) > 1 else 0
    chosen = set(sorted(pictures, key=lambda path: _hash(path.relative_to(root)))[:count])
    return [path for path in pictures if path not in chosen], [path for path in pictures if path in chosen]


def mask_notes(kind: str, pictures: Sequence[Path], matched: Matched) -> list[str]:
    """What to say of pictures without a mask and of masks without a picture.

    Args:
        kind: what the pictures are, such as `defect 'scratch'`.
    """
    notes = []
    bare = [picture for picture, mask in zip(pictures, matched.masks, strict=True) if mask is None]
    if bare:
        notes.append(f"{kind}: {len(bare)} of {len(pictures)} pictures have no mask: {_shown(bare)}")
    if matched.unused:
        notes.append(f"{kind}: {len(matched.unused)} mask(s) belong to no picture: {_shown(matched.unused)}")
    return notes


def _shown(paths: Iterable[Path]) -> str:
    paths = list(paths)
    return ", ".join(str(path) for path in paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")


def _key(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()


def _hash(relative: Path) -> bytes:
    return hashlib.sha256(os.fsencode(relative.as_posix())).digest()
