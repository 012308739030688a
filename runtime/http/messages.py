"""Requests and responses as plain values, so that what answers them knows no socket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        path: without the query, percent signs decoded.
        headers: by lower-case name.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """One answer."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def answer_json(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A value as JSON, ASCII only."""
    return Response(status, json.dumps(value, allow_nan=False).encode() + b"\n", headers=headers or {})


def refuse(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error, which says why."""
    return answer_json(status, {"error": reason}, headers)
