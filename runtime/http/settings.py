"""Where the HTTP server of a line listens, and whom it lets in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from edge_ad.errors import ConfigError
from edge_ad.runtime.host.environment import Variable
from edge_ad.runtime.host.loopback import is_loopback
from edge_ad.validation import strict

PORT = 9464  # registered with the Prometheus project for exporters of OpenTelemetry's kind
_HOST = re.compile(r"[A-Za-z0-9.:_-]{1,253}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,1024}")


def _host(host: str) -> str:
    if _HOST.fullmatch(host) is None:
        raise ValueError("wanted an address or name of this machine, such as 127.0.0.1")
    return host


@strict
@dataclass(frozen=True)
class HttpSettings:
    """The HTTP server of a line.

    Attributes:
        host: address or name that it listens on.
        port: 0 for any that is free.
        token_env: environment variable that holds the token which requests have to bear; None lets in everybody who
            can reach it, which is allowed on loopback only.
    """

    host: Annotated[str, AfterValidator(_host)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = PORT
    token_env: Variable | None = None

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def address(self) -> str:
        """What to bind: `localhost` may mean anything, where the system's tables say so."""
        return "127.0.0.1" if self.host.lower() == "localhost" else self.host

    def contradictions(self) -> Iterator[str]:
        """What is wrong between the settings; one line each, beginning with the key."""
        if not self.is_loopback and self.token_env is None:
            yield (
                f"host: {self.host} can be reached from other machines, so requests have to bear a token; wanted"
                " token_env, the name of the environment variable that holds it, or the host 127.0.0.1"
            )

    def token(self, environment: Mapping[str, str] = os.environ) -> bytes | None:
        """The token; None without one. Raises: ConfigError when the environment lacks it or it is no token."""
        if self.token_env is None:
            return None
        value = environment.get(self.token_env, "")
        if not value:
            raise ConfigError("http", [f"token_env: the environment holds no variable {self.token_env}; set it"])
        if _TOKEN.fullmatch(value) is None:
            raise ConfigError(
                "http",
                [f"token_env: the variable {self.token_env} holds no token; wanted printable ASCII without spaces"],
            )
        return value.encode("ascii")
