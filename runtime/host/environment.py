"""Secrets in environment variables: settings hold the name of a variable, never what is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator

from edge_ad.errors import ConfigError
from edge_ad.validation import unshown


def _variable(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise unshown("wanted the name of an environment variable, such as LINE_TOKEN, not the secret itself")
    return value


Variable = Annotated[str, BeforeValidator(_variable)]
"""Name of a variable."""


def secret(name: str, key: str, environment: Mapping[str, str]) -> str:
    """The value of a variable. Raises: ConfigError when it is not set.

    Args:
        key: key path, below `sinks`, of the setting that names the variable.
    """
    value = environment.get(name)
    if not value:
        raise ConfigError("sinks", [f"{key}: the environment variable {name} is not set"])
    return value
