"""Text of others as it may be shown: no character of it steers a terminal, and no address in it holds a secret."""

from __future__ import annotations

import re
from urllib.parse import unquote

HIDDEN = "***"

# C0, DEL and C1; marks that turn the direction of writing; separators of lines; what is no character by itself.
_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_STEERING_IN_LINES = re.compile(_STEERING.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))  # all but tab and break

# A path loses one of two slashes; one letter in front of them is a drive of Windows.
_IN_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:/{1,3})[^\s\"'<>]*(?:@|%40)", re.IGNORECASE)
_IN_PARAMETER = re.compile(
    r"((?:pass(?:word|wd|phrase)|pwd|user-pw|proxy-pw|secret|token|api[-_]?key|access[-_]?key)(?:=|%3d))"
    r"(?:\"(?:\\.|[^\"\\])*\"|'[^']*'|[^\s&;,\"'<>]+)",
    re.IGNORECASE,
)
_IN_HEADER = re.compile(r"(authorization['\"]?\s*[:=]\s*['\"]?\w+\s+)[^\s'\"]+", re.IGNORECASE)

# A kind of source that was put in front of an address by mistake hides none of it from the rules for addresses.
_URL = re.compile(r"(\s*(?:(?:camera|sim):)*)([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL | re.IGNORECASE)
_MOST_LAYERS = 4  # of percent signs that stand for percent signs


def visible(text: str) -> str:
    r"""One line: every character that would steer a terminal, or break the line, as in JSON, such as `\u001b`.

    What is JSON stays JSON, and names look as they do in a record.
    """
    return _STEERING.sub(_escape, text)


def visible_lines(text: str) -> str:
    """Like `visible`, but with line breaks and tabs as they are."""
    return _STEERING_IN_LINES.sub(_escape, text)


def without_credentials(text: str) -> str:
    """A message without what looks like a user name, password or token in an address, a parameter or a header.

    The last net, for what a library, a driver or a server says: texts of our own name addresses as `without_secrets`
    shows them.
    """
    text = _IN_ADDRESS.sub(rf"\1{HIDDEN}@", text)
    return _IN_HEADER.sub(rf"\1{HIDDEN}", _IN_PARAMETER.sub(rf"\1{HIDDEN}", text))


def without_secrets(uri: str) -> str:
    """`uri` as it may appear in logs and errors.

    `user:password@` is dropped, a query or fragment becomes `?***`, and so does a path segment with a `=` in it
    (some cameras take `/user=admin_password=...`). Where an `@` leaves it open what the host is, everything
    behind the scheme is hidden; percent signs hide none of these. Text that is not a URL is returned as it is, up to
    the same `user:password@`.
    """
    url = _URL.fullmatch(uri)
    if url is None:
        return re.sub(r"^.*:.*(?:@|%40)", f"{HIDDEN}@", uri, flags=re.DOTALL)
    kind, scheme, rest = url.group(1), url.group(2).lower(), url.group(3)
    location = re.split(r"[?#]", rest, maxsplit=1)[0]
    query = f"?{HIDDEN}" if location != rest else ""
    authority, slash, path = location.partition("/")
    host = authority.rpartition("@")[2]
    if any("@" in _decoded(part) for part in (host, path, rest[len(location) :])):
        return f"{kind}{scheme}://{HIDDEN}"
    segments = [HIDDEN if "=" in _decoded(segment) else segment for segment in path.split("/")]
    return f"{kind}{scheme}://{host}{slash}{'/'.join(segments)}{query}"


def _escape(found: re.Match[str]) -> str:
    digits = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{digits[start : start + 4]}" for start in range(0, len(digits), 4))


def _decoded(text: str) -> str:
    for _ in range(_MOST_LAYERS):
        plain = unquote(text, errors="replace")
        if plain == text:
            break
        text = plain
    return text
