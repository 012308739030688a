"""Who kept what lies in a cache: entries carry a code (HMAC-SHA256) of a key that only this user can read.

The key is 32 random bytes in the user's state folder, or beside the caches of a user without one, made when the first
entry is kept. Without it nothing that lies in a cache is believed, for whoever can write an entry can write its plain
checksum as well.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_ad.disk.private import NotPrivateError, fault_of_folder, make_private_folder, read_private
from edge_ad.errors import os_reason

KEY_BYTES = 32
KEY_FILE = "cache.key"
CODE = "hmac"
"""Field of an entry's description that holds the code."""
REMEDY = "name a folder that this user alone can write to in XDG_STATE_HOME"


class NoKeyError(Exception):
    """The key cannot be used or made; the message says why."""


def key_path() -> Path:
    """Where this user's key lies, or would be made."""
    made = [path for path in _places() if os.path.lexists(path)]
    return made[0] if made else _places_for_new()[0]


def read_key() -> bytes | None:
    """This user's key; None where none was made yet. Raises: NoKeyError for one that cannot be trusted or read."""
    path = key_path()
    if not os.path.lexists(path):
        return None
    fault = fault_of_folder(path.parent)
    if fault is not None:
        raise NoKeyError(f"the key {path} cannot be trusted: {fault}")
    try:
        key = bytes(read_private(path, closed=True))
    except FileNotFoundError:
        return None
    except NotPrivateError as exc:
        raise NoKeyError(f"the key cannot be trusted: {exc}; remove it") from exc
    except OSError as exc:
        raise NoKeyError(f"the key {path} cannot be read: {os_reason(exc)}; remove it") from exc
    if len(key) != KEY_BYTES:
        raise NoKeyError(f"the key {path} has {len(key)} bytes, wanted {KEY_BYTES}; remove it")
    return key


def own_key() -> bytes:
    """This user's key, made if there is none; of several processes that make one, all get the same.

    Raises: NoKeyError.
    """
    key = read_key()
    faults: list[str] = []
    for path in _places_for_new() if key is None else ():
        fault = fault_of_folder(path.parent)
        if fault is None:
            try:
                make_private_folder(path.parent)
                _make(path)
                key = read_key()
                break
            except OSError as exc:
                fault = f"{path.parent} cannot be written to: {os_reason(exc)}"
        faults.append(fault)
    if key is None:
        raise NoKeyError(f"no key can be made: {'; '.join(faults)}; {REMEDY}")
    return key


def fault_of_key() -> str | None:
    """Why nothing can be vouched for, on one line; None where it can, with a key that is there or could be made."""
    try:
        if read_key() is not None:
            return None
    except NoKeyError as exc:
        return str(exc)
    faults = [fault_of_folder(path.parent) or _unwritable(path.parent) for path in _places_for_new()]
    return None if None in faults else f"no key can be made: {'; '.join(filter(None, faults))}; {REMEDY}"


def _places() -> tuple[Path, Path]:
    """Where a key may lie: in the user's state folder, or beside the user's caches."""
    from platformdirs import user_cache_path, user_state_path

    state, caches = user_state_path("edge-ad", appauthor=False), user_cache_path("edge-ad", appauthor=False)
    return state / KEY_FILE, caches / KEY_FILE


def _places_for_new() -> list[Path]:
    """Where a key may be made, the best first. A HOME without a state folder does not get one."""
    state, beside_caches = _places()
    has_state = bool(os.environ.get("XDG_STATE_HOME")) or state.parent.parent.is_dir()
    return [state, beside_caches] if has_state else [beside_caches]


def _unwritable(folder: Path) -> str | None:
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written to"


def vouched(key: bytes, name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Content of an entry with its code in it.

    Args:
        name: of the entry, such as the name of its file: no other one may take its place.
        content: what JSON can hold; has to say all that matters of the entry, such as the hash of a file beside it.
    """
    return {**content, CODE: _code(key, name, content)}


def is_vouched(key: bytes | None, name: str, content: Mapping[str, Any]) -> bool:
    """Whether this user's key was used to vouch for exactly this content under that name."""
    claimed = content.get(CODE)
    if key is None or not isinstance(claimed, str):
        return False
    return hmac.compare_digest(claimed.encode("utf-8", "replace"), _code(key, name, without_code(content)).encode())


def without_code(content: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry says, without who vouches for it."""
    return {field: value for field, value in content.items() if field != CODE}


def _code(key: bytes, name: str, content: Mapping[str, Any]) -> str:
    text = json.dumps({"name": name, "content": dict(content)}, sort_keys=True)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _make(path: Path) -> None:
    """Make a key unless somebody else has just done so; it appears with all of its bytes. Raises: OSError."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(scratch, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without a second name for a file; who renames last has made the key
            scratch.rename(path)
    finally:
        with suppress(OSError):
            scratch.unlink()
