"""How a source is treated while it runs: what happens at its end, and when it is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field

from edge_ad.validation import strict


def _reconnect(value: object) -> object:
    return {"forever": None, "never": 0.0}.get(value, value) if isinstance(value, str) else value


def _limit(value: object) -> object:
    return None if value == "never" else value


ReconnectS = Annotated[Annotated[float, Field(ge=0, le=1e9)] | None, BeforeValidator(_reconnect)]
"""Seconds; `never` is 0, `forever` is None."""

LimitS = Annotated[Annotated[float, Field(ge=0.1, le=1e6)] | None, BeforeValidator(_limit)]
"""Seconds; `never` is None."""


@strict
@dataclass(frozen=True)
class SourceSettings:
    """Settings of one source.

    Attributes:
        loop: begin again behind the last frame of a video, or behind the last picture.
        watch: wait for further pictures in a folder.
        reconnect_s: for how long a source that is lost is opened again and again, seconds; None for ever, 0 not at all.
        wait_for_source: whether a source that is absent at the start is waited for in the same way.
        watchdog_s: seconds without a frame after which a live source that was opened is given up and opened anew; None
            for a camera that may be silent, such as one with a trigger.
    """

    loop: bool = False
    watch: bool = False
    reconnect_s: ReconnectS = None
    wait_for_source: bool = False
    watchdog_s: LimitS = 15.0
