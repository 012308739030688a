"""Folders of results: written whole or not at all, and never in place of anything that edge-ad did not write."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_ad.disk.storage import fsync_directory, publish_directory, write_durably
from edge_ad.errors import OutputError, os_reason


@dataclass(frozen=True)
class FolderKind:
    """What a folder of results holds.

    Attributes:
        files: names of all files that one may hold.
        marks: those that every one holds.
        example: a name for one.
    """

    files: frozenset[str]
    marks: frozenset[str]
    example: str


def check_folder(path: Path, kind: FolderKind, *, force: bool) -> None:
    """Raise OutputError early when results could not be written to `path`; what is not edge-ad's is never replaced."""
    if not path.name:
        raise OutputError(f"results folder {path}: wanted the name of a new folder, such as {kind.example}")
    if not path.exists() and not path.is_symlink():
        above = next(parent for parent in path.absolute().parents if parent.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise OutputError(f"results folder {path}: {above} is no folder that can be written to")
        return
    held = {entry.name for entry in path.iterdir()} if path.is_dir() and not path.is_symlink() else None
    if held == set():
        return
    if held is None or not kind.marks <= held <= kind.files:
        foreign = sorted(held - kind.files) if held else []
        what = f"holds {foreign[0]}, which is no result of edge-ad" if foreign else "is no folder of results"
        raise OutputError(f"{path} exists and {what}; choose another --output")
    if not force:
        raise OutputError(f"{path} holds earlier results; give --force to replace them, or choose another --output")


def write_folder(path: Path, kind: FolderKind, files: Mapping[str, bytes], *, force: bool) -> None:
    """Write a folder of results: all of it appears at `path`, or nothing. Raises: OutputError."""
    check_folder(path, kind, force=force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            for name, data in files.items():
                write_durably(scratch / name, data)
            scratch.chmod(0o755)
            fsync_directory(scratch)
            publish_directory(scratch, path, replace=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as exc:
        raise OutputError(f"results folder {path}: cannot be written: {os_reason(exc)}") from exc
