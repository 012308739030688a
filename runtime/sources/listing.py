"""Which pictures a folder or a pattern means, and in what order."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from edge_ad.errors import SourceError
from edge_ad.image.notices import pass_over
from edge_ad.image.pictures import IMAGE_SUFFIXES, is_picture, natural_key, pictures_below
from edge_ad.runtime.host.results import is_drawn
from edge_ad.text import without_secrets


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
    return tuple(found)


def _pictures_below(folder: str, visited: set[str]) -> list[str]:
    """Pictures below `folder` that edge-ad did not draw. Args: visited: real folders not to enter; grows."""
    return pictures_below(folder, visited=visited, left_out=lambda path: is_drawn(Path(path)))


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
    pass_over(path for path in files if path not in pictures)
    visited: set[str] = set()
    for folder in folders:
        pictures.update(_pictures_below(folder, visited))
    if not pictures:
        counts = [f"{len(found)} {kind}(s)" for kind, found in (("file", files), ("folder", folders)) if found]
        others = f"{' and '.join(counts)} but no picture ({', '.join(IMAGE_SUFFIXES)})" if counts else "no file"
        shown = without_secrets(pattern)
        raise SourceError(f"pattern {shown} matches {others}; check it with ls, and quote it against the shell")
    return tuple(sorted(pictures, key=natural_key))
