"""Addresses as they may be shown: without user names, passwords and tokens."""

from __future__ import annotations

import re

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_HIDDEN = "***"


def without_secrets(uri: str) -> str:
    """`uri` as it may appear in logs and errors.

    `user:password@` is dropped, a query or fragment becomes `?***`, and so does a path segment with a `=` in it
    (some cameras take `/user=admin_password=...`). Where an `@` leaves it open what the host is, everything
    behind the scheme is hidden. Text that is not a URL is returned as it is, up to the same `user:password@`.
    """
    url = _URL.fullmatch(uri)
    if url is None:
        return re.sub(r"^.*:.*@", f"{_HIDDEN}@", uri, flags=re.DOTALL)
    scheme, rest = url.group(1).lower(), url.group(2)
    location = re.split(r"[?#]", rest, maxsplit=1)[0]
    query = f"?{_HIDDEN}" if location != rest else ""
    authority, slash, path = location.partition("/")
    host = authority.rpartition("@")[2]
    if "@" in path or "@" in rest[len(location) :]:
        return f"{scheme}://{_HIDDEN}"
    segments = [_HIDDEN if "=" in segment else segment for segment in path.split("/")]
    return f"{scheme}://{host}{slash}{'/'.join(segments)}{query}"
