"""Settings of the sinks, as they stand under `sinks:` of a line's file; docs/sinks.md describes every one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from edge_ad.runtime.host.environment import Variable
from edge_ad.runtime.sinks.pictures import PICTURES
from edge_ad.runtime.sinks.selection import Which
from edge_ad.validation import strict, unshown

Positive = Annotated[float, Field(gt=0, le=1e12)]
Count = Annotated[int, Field(gt=0, le=1 << 40)]
Port = Annotated[int, Field(gt=0, le=65535)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]


def _fsync(value: object) -> object:
    if value in ("never", "every"):
        return None if value == "never" else 0.0
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0.01 <= value <= 86400:
        return float(value)
    if value is None or (isinstance(value, float) and value == 0):
        return value  # a default
    raise ValueError("wanted never, every, or seconds from 0.01 on")


def is_web_address(value: object) -> bool:
    """Whether something is a whole http:// or https:// address."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _address(value: object) -> object:
    if not is_web_address(value):
        raise unshown("wanted an address that begins with http:// or https://")
    return value


def _prefix(value: object) -> object:
    good = isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()
    if not good or not isinstance(value, str) or re.search(r"[+#$]|^/|/$|//", value):
        raise ValueError("wanted a topic without + # $, nor a / at its ends")
    return value


def _kinds(value: object) -> object:
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name in PICTURES for name in names):
        raise ValueError(f"wanted a list of {', '.join(PICTURES)}")
    return tuple(dict.fromkeys(names))


Fsync = Annotated[float | None, BeforeValidator(_fsync)]


@strict
@dataclass(frozen=True)
class RecordSettings:
    """`verdicts.jsonl`. None stands for no limit."""

    rotate_mb: Positive | None = None
    rotate_hours: Positive | None = None
    keep: Annotated[int, Field(ge=0)] | None = None
    quota_mb: Positive | None = None
    fsync: Fsync = None


@strict
@dataclass(frozen=True)
class PictureSettings:
    """Masks and overlays; `which` and its rate and seed as in `Selection`. None stands for no limit."""

    save: Annotated[tuple[str, ...], BeforeValidator(_kinds)] = ()
    which: Which = "all"
    sample_rate: Annotated[float, Field(ge=0, le=1)] = 0.01
    seed: int = 0
    quota_mb: Positive | None = None
    max_age_days: Positive | None = None


@strict
@dataclass(frozen=True)
class SqliteSettings:
    """A database of records. `path` is relative to the output folder."""

    path: Path = Path("verdicts.sqlite")
    keep_days: Positive | None = None
    fsync: Fsync = None


@strict
@dataclass(frozen=True)
class SpoolSettings:
    """Where records wait for a receiver; `folder` is relative to the output folder."""

    folder: Path = Path("spool")
    budget_mb: Annotated[float, Field(ge=1, le=1e9)] = 256
    fsync: Fsync = 1.0


@strict
@dataclass(frozen=True)
class TlsSettings:
    """Whom to trust, and who we are; None for the system's authorities, and for no certificate of our own."""

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError for a key without a certificate."""
        if self.key_file is not None and self.certificate_file is None:
            raise unshown("key_file: wanted a certificate_file with it")


@strict
@dataclass(frozen=True)
class MqttSettings:
    """A broker. `port` is 8883 with TLS and 1883 without, if it is not given."""

    host: Text
    port: Port | None = None
    prefix: Annotated[str, BeforeValidator(_prefix)] = "edge-ad"
    client_id: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    protocol: Literal["3.1.1", "5"] = "5"
    keepalive_s: Annotated[int, Field(ge=1, le=65535)] = 30
    tls: TlsSettings | None = None
    username_env: Variable | None = None
    password_env: Variable | None = None
    max_inflight: Annotated[int, Field(ge=1, le=1000)] = 20
    reconnect_s: tuple[Annotated[int, Field(ge=1, le=3600)], Annotated[int, Field(ge=1, le=3600)]] = (1, 30)
    flush_s: Annotated[float, Field(ge=0, le=60)] = 3.0
    which: Literal["all", "rejects"] = "all"
    spool: SpoolSettings = field(default_factory=SpoolSettings)

    def __post_init__(self) -> None:
        """Raises: ValueError for a password without a user, or a longest wait below the shortest."""
        if self.password_env is not None and self.username_env is None:
            raise unshown("password_env: wanted a username_env with it")
        if self.reconnect_s[0] > self.reconnect_s[1]:
            raise unshown("reconnect_s: wanted the shortest wait first")

    @property
    def port_used(self) -> int:
        return self.port or (8883 if self.tls is not None else 1883)

    @property
    def place(self) -> str:
        """The broker in messages."""
        return f"{self.host}:{self.port_used}"


@strict
@dataclass(frozen=True)
class WebhookSettings:
    """An HTTP service that takes one record with each POST: at `url`, or the address in the variable `url_env`."""

    url: Annotated[str, BeforeValidator(_address)] | None = None
    url_env: Variable | None = None
    token_env: Variable | None = None
    headers_env: dict[str, Variable] = field(default_factory=dict)
    ca_file: Path | None = None
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    attempts: Annotated[int, Field(ge=1, le=1000)] = 8
    backoff_s: tuple[Positive, Positive] = (0.5, 60.0)
    flush_s: Annotated[float, Field(ge=0, le=60)] = 3.0
    which: Literal["all", "rejects"] = "all"
    spool: SpoolSettings = field(default_factory=SpoolSettings)

    def __post_init__(self) -> None:
        """Raises: ValueError unless there is one address, and header names are ones."""
        if (self.url is None) == (self.url_env is None):
            raise unshown("url: wanted either url or url_env")
        bad = [name for name in self.headers_env if not re.fullmatch(r"[A-Za-z0-9-]{1,100}", name)]
        if bad:
            raise unshown("headers_env: wanted names of headers, of letters, digits and -")
        if self.backoff_s[0] > self.backoff_s[1]:
            raise unshown("backoff_s: wanted the shortest wait first")


@strict
@dataclass(frozen=True)
class DriftSettings:
    """The drift alarm; see `DriftRule`. `file` is relative to the output folder."""

    reference: Annotated[int, Field(ge=20, le=5000)] = 1000
    block: Annotated[int, Field(ge=10, le=2000)] = 200
    frames_per_false_alarm: Annotated[float, Field(ge=1e3, le=1e10)] = 1e6
    every: Annotated[int, Field(ge=1, le=100_000)] = 1
    file: Path = Path("drift.json")


@strict
@dataclass(frozen=True)
class SinkSettings:
    """All sinks of a line; None for one that is not wanted."""

    records: RecordSettings = field(default_factory=RecordSettings)
    pictures: PictureSettings = field(default_factory=PictureSettings)
    sqlite: SqliteSettings | None = None
    mqtt: MqttSettings | None = None
    webhook: WebhookSettings | None = None
    drift: DriftSettings | None = None
