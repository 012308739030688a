"""Bytes on disk that took long to compute, so that the second start does not compute them again.

A blob is stored under the hash of its fingerprint, beside a sidecar that spells the fingerprint out and carries the
blob's SHA-256. A blob whose sidecar does not fit is never handed out; it is made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from edge_ad.disk.storage import write_atomically
from edge_ad.errors import os_reason

log = logging.getLogger(__name__)


ENGINE_FOLDER = "engines"
"""Purpose of the cache for compiled models, of every engine."""


def default_cache_dir(purpose: str) -> Path:
    """Folder of one purpose, such as `engines`, in the user's cache folder for edge-ad."""
    from platformdirs import user_cache_path

    return user_cache_path("edge-ad", appauthor=False) / purpose


class BlobCache:
    """Blobs under `folder`; a cache that cannot be used costs time, never correctness.

    Processes that store the same blob at once do no harm: files appear whole, and a blob beside the sidecar of another
    one does not fit it, so it is made again.

    Args:
        folder: where they are; made when it is needed.
        what: the kind of blob in words, for the log.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self.folder = folder
        self.what = what

    def get(self, fingerprint: Mapping[str, str]) -> bytearray | None:
        """The blob stored for exactly this fingerprint, in memory that is the caller's alone, or None."""
        blob_path, sidecar_path = self._paths(fingerprint)
        try:
            text = sidecar_path.read_bytes()
        except OSError:
            return None
        try:
            sidecar = json.loads(text)
            blob = _read(blob_path)
        except (OSError, ValueError, RecursionError):  # the last one: brackets in brackets in brackets
            sidecar, blob = None, bytearray()
        if sidecar != _sidecar(fingerprint, blob):
            log.warning("%s %s is damaged; making it again", self.what, blob_path)
            return None
        return blob

    def put(self, fingerprint: Mapping[str, str], blob: bytes) -> None:
        """Store a blob; a full or read-only disk is logged and otherwise ignored."""
        blob_path, sidecar_path = self._paths(fingerprint)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(blob_path, blob)
            write_atomically(sidecar_path, json.dumps(_sidecar(fingerprint, blob), indent=2).encode())
        except OSError as exc:
            log.warning("%s cannot be kept in %s: %s", self.what, self.folder, os_reason(exc))

    def forget(self, fingerprint: Mapping[str, str]) -> None:
        """Drop a blob that turned out to be of no use."""
        with suppress(OSError):
            for path in self._paths(fingerprint):
                path.unlink(missing_ok=True)

    def _paths(self, fingerprint: Mapping[str, str]) -> tuple[Path, Path]:
        key = hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / f"{key}.blob", self.folder / f"{key}.json"


def _read(path: Path) -> bytearray:
    """All of a file; not mapped, for what changes there later is not to change here."""
    with path.open("rb", buffering=0) as file:
        blob = bytearray(os.fstat(file.fileno()).st_size)
        view, read = memoryview(blob), 0
        while read < len(blob) and (more := file.readinto(view[read:])):
            read += more
        view.release()
        del blob[read:]
        return blob


def _sidecar(fingerprint: Mapping[str, str], blob: bytes | bytearray) -> dict[str, object]:
    return {"fingerprint": dict(fingerprint), "sha256": hashlib.sha256(blob).hexdigest()}
