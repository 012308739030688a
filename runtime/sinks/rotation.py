"""When a file of records is full, and which of the full ones are kept."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_ad.errors import os_reason
from edge_ad.runtime.host.results import claims
from edge_ad.runtime.sinks import dated_name
from edge_ad.runtime.sinks.line_file import LineFile


@dataclass(frozen=True)
class Rotation:
    """None stands for no limit. The file that is being written is never deleted.

    Attributes:
        max_bytes: a line that would make the file larger goes into the next one.
        max_age_s: of a file when the next line comes.
        keep: how many full files stay, those of earlier runs included; the oldest go.
        quota_bytes: of all full files together.
    """

    max_bytes: int | None = None
    max_age_s: float | None = None
    keep: int | None = None
    quota_bytes: int | None = None

    def is_full(self, file: LineFile, more_bytes: int) -> bool:
        """Whether `more_bytes` belong into the next file. An empty file is never full."""
        if file.size_bytes == 0:
            return False
        too_large = self.max_bytes is not None and file.size_bytes + more_bytes > self.max_bytes
        return too_large or (self.max_age_s is not None and time.monotonic() - file.began_s >= self.max_age_s)

    @property
    def deletes(self) -> bool:
        """Whether full files are ever deleted."""
        return self.keep is not None or self.quota_bytes is not None

    def clean(self, path: Path, say: Callable[[str], None]) -> None:
        """Delete the oldest full files of `path` that are too many.

        Only regular files whose name says that `set_aside` gave it. What cannot be looked at or deleted is said, and
        stays: the next record is more important.
        """
        if not self.deletes:
            return
        try:
            full = full_files(path)
        except OSError as exc:
            say(f"warning: {path.parent}: full files cannot be looked for: {os_reason(exc)}")
            return
        size_bytes = 0
        for count, (file, file_bytes) in enumerate(full, start=1):
            size_bytes += file_bytes
            too_many = self.keep is not None and count > self.keep
            if too_many or (self.quota_bytes is not None and size_bytes > self.quota_bytes):
                try:
                    file.unlink(missing_ok=True)
                except OSError as exc:
                    say(f"warning: {file}: cannot be deleted: {os_reason(exc)}")


def full_files(path: Path) -> list[tuple[Path, int]]:
    """Full files of `path` with their bytes, newest first, whatever the clock said meanwhile. Raises: OSError.

    In the order in which they are claimed; those of edge-ad before it claimed them are older, in that of their names.
    """
    named, claimed = dated_name(path), claims(path.parent)
    found = []
    for file in path.parent.iterdir():
        match = named.fullmatch(file.name)
        if match is None:
            continue
        try:
            status = file.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            order = claimed.get(file.name, -1), match[1], int(match[2] or 0)
            found.append((order, file, status.st_size))
    return [(file, size_bytes) for _, file, size_bytes in sorted(found, reverse=True)]
