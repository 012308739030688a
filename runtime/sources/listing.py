"""Which pictures a folder or a pattern means, and in what order."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from edge_ad.errors import SourceError
from edge_ad.runtime.results import LEDGER, is_drawn
from edge_ad.runtime.sources.address import without_secrets

IMAGE_SUFFIXES = (".bmp", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")

NaturalKey = tuple[tuple[tuple[str | int, ...], ...], str]


def is_picture(path: str) -> bool:
    """Whether the name of `path` ends like a picture, in upper or lower case."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def natural_key(path: str) -> NaturalKey:
    """Sort key that puts `shot_2.png` before `shot_10.png`, folder by folder, upper and lower case alike."""
    parts = re.split(r"[/\\]", path) if os.sep == "\\" else path.split("/")
    # Splitting on a captured group alternates text and digits, so equal positions always hold equal types.
    return tuple(
        tuple(int(token) if index % 2 else token.casefold() for index, token in enumerate(re.split(r"([0-9]+)", part)))
        for part in parts
    ), path


def pictures_in_folder(folder: str) -> tuple[str, ...]:
    """All pictures below `folder`, naturally sorted, but for hidden files and folders and what edge-ad drew.

    Links to folders are followed, each real folder once.

    Raises:
        SourceError: the folder or one below it cannot be listed, or there is no picture.
    """
    found = _pictures_below(folder, set())
    if not found:
        raise SourceError(
            f"folder {folder} holds no picture: looked for {', '.join(IMAGE_SUFFIXES)}, also in its subfolders; "
            "give another folder or convert the pictures"
        )
    return tuple(sorted(found, key=natural_key))


def _pictures_below(folder: str, visited: set[str]) -> list[str]:
    """Pictures below `folder`, in no order; leaves out the real folders in `visited` and adds those it enters."""
    found: list[str] = []
    if not _enter(folder, visited):
        return found

    def refuse(exc: OSError) -> None:
        raise SourceError(f"folder {exc.filename} cannot be listed: {exc.strerror}; check its permissions") from exc

    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if LEDGER in names:
            folders[:] = [name for name in folders if not is_drawn(Path(here, name))]
        folders[:] = [
            name for name in sorted(folders) if not name.startswith(".") and _enter(os.path.join(here, name), visited)
        ]
        candidates = (os.path.join(here, name) for name in names if is_picture(name) and not name.startswith("."))
        found += [path for path in candidates if os.path.isfile(path)]
    return found


def _enter(folder: str, visited: set[str]) -> bool:
    real = os.path.realpath(folder)
    if real in visited:
        return False
    visited.add(real)
    return True


def pictures_matching(pattern: str) -> tuple[str, ...]:
    """All pictures that match the glob `pattern` or lie below a folder that does, each once, naturally sorted.

    `**` goes into subfolders. A folder that matches is read as `pictures_in_folder` reads it.

    Raises:
        SourceError: nothing matches, nothing that matches is or holds a picture, or a folder cannot be listed.
    """
    matches = sorted(set(glob.glob(pattern, recursive=True)))
    files = [path for path in matches if os.path.isfile(path) and not is_drawn(Path(path).parent)]
    folders = [path for path in matches if os.path.isdir(path) and not is_drawn(Path(path))]
    pictures = {path for path in files if is_picture(path)}
    visited: set[str] = set()
    for folder in folders:
        pictures.update(_pictures_below(folder, visited))
    if not pictures:
        counts = [f"{len(found)} {kind}(s)" for kind, found in (("file", files), ("folder", folders)) if found]
        others = f"{' and '.join(counts)} but no picture ({', '.join(IMAGE_SUFFIXES)})" if counts else "no file"
        shown = without_secrets(pattern)
        raise SourceError(f"pattern {shown} matches {others}; check it with ls, and quote it against the shell")
    return tuple(sorted(pictures, key=natural_key))
