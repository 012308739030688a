"""Which pictures a folder or a pattern means, and in what order."""

from __future__ import annotations

import glob
import os
import re

from edge_ad.errors import SourceError

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
    """All pictures below `folder`, naturally sorted; hidden files and hidden folders are left out.

    Links to folders are followed, each real folder once.

    Raises:
        SourceError: the folder or one below it cannot be listed, or there is no picture.
    """
    found: list[str] = []
    visited = {os.path.realpath(folder)}

    def refuse(exc: OSError) -> None:
        raise SourceError(f"folder {exc.filename} cannot be listed: {exc.strerror}; check its permissions") from exc

    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and _enter(here, name, visited)]
        candidates = (os.path.join(here, name) for name in names if is_picture(name) and not name.startswith("."))
        found += [path for path in candidates if os.path.isfile(path)]
    if not found:
        raise SourceError(
            f"folder {folder} holds no picture: looked for {', '.join(IMAGE_SUFFIXES)}, also in its subfolders; "
            "give another folder or convert the pictures"
        )
    return tuple(sorted(found, key=natural_key))


def _enter(parent: str, name: str, visited: set[str]) -> bool:
    real = os.path.realpath(os.path.join(parent, name))
    if real in visited:
        return False
    visited.add(real)
    return True


def pictures_matching(pattern: str) -> tuple[str, ...]:
    """All pictures that match the glob `pattern` (`**` goes into subfolders), naturally sorted.

    Raises:
        SourceError: nothing matches, or nothing that matches is a picture.
    """
    matches = {path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)}
    pictures = [path for path in matches if is_picture(path)]
    if not pictures:
        others = f"{len(matches)} file(s) but no picture ({', '.join(IMAGE_SUFFIXES)})" if matches else "no file"
        raise SourceError(f"pattern {pattern} matches {others}; check it with ls, and quote it against the shell")
    return tuple(sorted(pictures, key=natural_key))
