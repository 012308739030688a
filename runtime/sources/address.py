"""Addresses as they may be shown: without user names, passwords and tokens."""

from __future__ import annotations

import re

# A kind of source that was put in front of an address by mistake hides none of it from the rules for addresses.
_URL = re.compile(r"(\s*(?:(?:camera|sim):)*)([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL | re.IGNORECASE)
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
    kind, scheme, rest = url.group(1), url.group(2).lower(), url.group(3)
    location = re.split(r"[?#]", rest, maxsplit=1)[0]
    query = f"?{_HIDDEN}" if location != rest else ""
    authority, slash, path = location.partition("/")
    host = authority.rpartition("@")[2]
    if "@" in path or "@" in rest[len(location) :]:
        return f"{kind}{scheme}://{_HIDDEN}"
    segments = [_HIDDEN if "=" in segment else segment for segment in path.split("/")]
    return f"{kind}{scheme}://{host}{slash}{'/'.join(segments)}{query}"
