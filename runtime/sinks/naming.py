"""Names of sources and files where not every one is allowed, and the key by which a receiver knows a record again."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edge_ad.record.verdict import record_line

MAX_CHARACTERS = 60
NAME_BYTES = 255
"""What a name in a folder may have at most, on nearly every file system."""


def topic_name(source: str) -> str:
    """A source's name as one level of a topic: letters, digits and `._=:-`, unambiguous."""
    return _plain(source, "A-Za-z0-9._=:-")


def file_name(source: str) -> str:
    """A source's name as part of a file's: letters, digits and `._=-`, unambiguous."""
    return _plain(source, "A-Za-z0-9._=-")


def longest_name(folder: Path) -> int:
    """How many bytes a name in a folder may have; less than `NAME_BYTES` where names are encrypted, for one."""
    try:
        return min(NAME_BYTES, os.pathconf(folder, "PC_NAME_MAX"))
    except (AttributeError, OSError, ValueError):
        return NAME_BYTES


def fitting_name(stem: str, suffix: str, most_bytes: int = NAME_BYTES) -> str:
    """`stem` and `suffix` as the name of a file: UTF-8, and no longer than a folder takes.

    A name that has to be changed is cut between two characters and gets the first digits of its hash, so that no two
    become the same. Args: most_bytes: of the whole name; room for the hash and the suffix at least.
    """
    data = os.fsencode(stem)
    text = re.sub("[\ud800-\udfff]", "_", stem)  # bytes that were no UTF-8
    if text == stem and len(data) + len(suffix.encode()) <= most_bytes:
        return f"{stem}{suffix}"
    end = f"-{hashlib.sha256(data).hexdigest()[:8]}{suffix}"
    return text.encode()[: most_bytes - len(end.encode())].decode("utf-8", "ignore") + end


def _plain(source: str, allowed: str) -> str:
    """A name that has to be changed gets the first digits of its hash, so that no two become the same."""
    plain = re.sub(f"[^{allowed}]+", "_", source).strip("_.")[-MAX_CHARACTERS:]
    if plain == source:
        return plain
    return f"{plain}-{hashlib.sha256(source.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def idempotency_key(entry: Mapping[str, Any], run_id: str) -> str:
    """The same for every delivery of a record or event, and for no other one; visible ASCII.

    `bundle/run/source/frame/time` for a record, `event/run/source/time` for an event. The time is the monotonic
    clock's: two sources may go by the same name.
    """
    source = quote(str(entry.get("source", "")), safe="", errors="surrogatepass")
    if "event" in entry:
        # An event that does not say when it was is told apart by all that it says.
        moment = entry.get("monotonic_ns") or hashlib.sha256(record_line(entry).encode()).hexdigest()[:16]
        return f"{entry['event']}/{run_id}/{source}/{moment}"
    return f"{entry['bundle'][:16]}/{run_id}/{source}/{entry['frame_id']}/{entry['captured_monotonic_ns']}"
