"""Compiled blobs on disk, so that the second start does not compile again.

A blob is stored under the hash of its fingerprint, beside a sidecar that spells the fingerprint out and carries the
blob's SHA-256. A blob whose sidecar is missing or does not fit is never handed to an engine; it is compiled anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from edge_ad.errors import os_reason
from edge_ad.storage import write_atomically

log = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """The user's cache folder for edge-ad."""
    from platformdirs import user_cache_path

    return user_cache_path("edge-ad", appauthor=False) / "engines"


class BlobCache:
    """Blobs of one engine under `folder`; a cache that cannot be used costs time, never correctness."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, fingerprint: Mapping[str, str]) -> bytes | None:
        """The blob stored for exactly this fingerprint, or None."""
        blob_path, sidecar_path = self._paths(fingerprint)
        try:
            sidecar = json.loads(sidecar_path.read_text("utf-8"))
            blob = blob_path.read_bytes()
        except (OSError, ValueError):
            return None
        expected = {"fingerprint": dict(fingerprint), "sha256": hashlib.sha256(blob).hexdigest()}
        if sidecar != expected:
            log.warning("compiled engine %s is damaged; compiling it again", blob_path)
            return None
        return blob

    def put(self, fingerprint: Mapping[str, str], blob: bytes) -> None:
        """Store a blob; a full or read-only disk is logged and otherwise ignored."""
        blob_path, sidecar_path = self._paths(fingerprint)
        sidecar = {"fingerprint": dict(fingerprint), "sha256": hashlib.sha256(blob).hexdigest()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(blob_path, blob)
            write_atomically(sidecar_path, json.dumps(sidecar, indent=2).encode())
        except OSError as exc:
            log.warning("compiled engine cannot be kept in %s: %s", self.folder, os_reason(exc))

    def forget(self, fingerprint: Mapping[str, str]) -> None:
        """Drop a blob that an engine refused."""
        with suppress(OSError):
            for path in self._paths(fingerprint):
                path.unlink(missing_ok=True)

    def _paths(self, fingerprint: Mapping[str, str]) -> tuple[Path, Path]:
        key = hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / f"{key}.blob", self.folder / f"{key}.json"
