"""Bytes on disk that took long to compute, so that the second start does not compute them again.

A blob is stored under the hash of its fingerprint, beside a sidecar that spells the fingerprint out, carries the blob's
SHA-256, and is vouched for by this user's key. A blob that somebody else could have put there, or whose sidecar does
not fit, is never handed out; it is made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from edge_ad.disk.private import NotPrivateError, fault_of_folder, make_private_folder, read_private
from edge_ad.disk.storage import write_atomically
from edge_ad.disk.vouching import NoKeyError, fault_of_key, is_vouched, own_key, read_key, vouched, without_code
from edge_ad.errors import os_reason

log = logging.getLogger(__name__)

ENGINE_FOLDER = "engines"
"""Purpose of the cache for compiled models, of every engine."""

_said: set[Path] = set()
"""Folders that were said not to be used."""


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
        if not self._is_private():
            return None
        try:
            text = read_private(sidecar_path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            log.warning("%s is not used: %s; making it again", self.what, exc)
            return None
        try:
            key = read_key()
            fault = fault_of_key() if key is None else None
            if fault is not None:
                raise NoKeyError(fault)
            sidecar = json.loads(text)
            if isinstance(sidecar, dict) and is_vouched(key, blob_path.name, sidecar):
                blob = read_private(blob_path)
                if without_code(sidecar) == _content(fingerprint, blob):
                    return blob
            log.warning("%s %s is damaged or not this user's; making it again", self.what, blob_path)
        except NoKeyError as exc:
            self._say(str(exc))
        except NotPrivateError as exc:
            log.warning("%s is not used: %s; making it again", self.what, exc)
        except (OSError, ValueError, RecursionError):  # the last one: brackets in brackets in brackets
            log.warning("%s %s is damaged; making it again", self.what, blob_path)
        return None

    def put(self, fingerprint: Mapping[str, str], blob: bytes) -> None:
        """Store a blob; a cache that is not this user's, or a full or read-only disk, is logged, otherwise ignored."""
        blob_path, sidecar_path = self._paths(fingerprint)
        try:
            if not self._is_private():
                return
            make_private_folder(self.folder)
            if not self._is_private():  # somebody else may have been faster
                return
            sidecar = vouched(own_key(), blob_path.name, _content(fingerprint, blob))
            write_atomically(blob_path, blob)
            write_atomically(sidecar_path, json.dumps(sidecar, indent=2).encode())
        except NoKeyError as exc:
            self._say(str(exc))
        except OSError as exc:
            log.warning("%s cannot be kept in %s: %s", self.what, self.folder, os_reason(exc))

    def forget(self, fingerprint: Mapping[str, str]) -> None:
        """Drop a blob that turned out to be of no use."""
        with suppress(OSError):
            for path in self._paths(fingerprint):
                path.unlink(missing_ok=True)

    def _is_private(self) -> bool:
        fault = fault_of_folder(self.folder)
        if fault is not None:
            self._say(f"{fault}; choose a folder that only this user can write to")
        return fault is None

    def _say(self, why: str) -> None:
        """Say once in this process why a folder is not used, whatever is looked for in it."""
        if self.folder not in _said:
            _said.add(self.folder)
            log.warning("cache %s is not used: %s", self.folder, why)

    def _paths(self, fingerprint: Mapping[str, str]) -> tuple[Path, Path]:
        key = hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / f"{key}.blob", self.folder / f"{key}.json"


def _content(fingerprint: Mapping[str, str], blob: bytes | bytearray) -> dict[str, object]:
    return {"fingerprint": dict(fingerprint), "sha256": hashlib.sha256(blob).hexdigest()}
