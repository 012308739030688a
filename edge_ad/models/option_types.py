"""Kinds of option values that exporting and training share, as they are written on a command line or in YAML."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from edge_ad.bundle.consistency import MAX_SIDE
from edge_ad.bundle.tiles import MOST_TILES


def option(default: Any, help: str, metavar: str = "N", *, off: str | None = None) -> Any:
    """A field of an options dataclass that the command line offers as `--field-name`.

    Args:
        help: what `--help` says of it.
        metavar: what stands for the value there; DIR for a folder of `edge-ad export`, which has to exist.
        off: of a field that is a bool, the flag that clears it, such as `no-amp`.
    """
    return field(default=default, metadata={"help": help, "metavar": metavar, "off": off})


def _size(value: object) -> tuple[int, int]:
    """`288`, `HxW` or [H, W] as (height, width)."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        value = "x".join(map(str, value))
    if isinstance(value, int) and not isinstance(value, bool):
        sides = [value, value]
    else:
        match = re.fullmatch(r"\s*(\d+)(?:\s*[xX]\s*(\d+))?\s*", str(value))
        if match is None:
            raise ValueError("wanted pixels as 288 or HxW such as 256x320")
        sides = [int(match[1]), int(match[2] or match[1])]
    if not all(1 <= side <= MAX_SIDE for side in sides):
        raise ValueError(f"wanted sides from 1 to {MAX_SIDE} pixels")
    return sides[0], sides[1]


def _tiles(value: object) -> object:
    """`RxC` or [R, C] as (rows, columns); a word as it is."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        value = "x".join(map(str, value))
    match = re.fullmatch(r"\s*(\d{1,4})\s*[xX]\s*(\d{1,4})\s*", str(value))
    if match is None:
        return value
    rows, columns = int(match[1]), int(match[2])
    if not 1 <= rows * columns <= MOST_TILES:
        raise ValueError(f"wanted 1 to {MOST_TILES} tiles")
    return rows, columns


def _is_grid(value: object) -> object:
    if not isinstance(value, tuple):
        raise ValueError("wanted rows and columns such as 1x3")
    return value


def _is_choice(value: object) -> object:
    if isinstance(value, str) and value not in ("auto", "off"):
        raise ValueError("wanted auto, off, or rows and columns such as 1x3")
    return value


def _names(value: object) -> object:
    """`a,b` or a list as a tuple of names."""
    if isinstance(value, (list, tuple)) and not value:
        raise ValueError("wanted at least one layer name")
    if not isinstance(value, str):
        return value
    names = tuple(part.strip() for part in value.split(","))
    if not all(names):
        raise ValueError("wanted layer names separated by commas, such as layer2,layer3")
    return names


Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_names)]
"""One or more names: a list, or text separated by commas."""
Size = Annotated[tuple[int, int], BeforeValidator(_size)]
"""(height, width) in pixels, written `288`, `256x320` or [256, 320]."""
Grid = Annotated[tuple[int, int], BeforeValidator(_is_grid), BeforeValidator(_tiles)]
"""(rows, columns) of tiles, written `1x3` or [1, 3]."""
Tiles = Annotated[Literal["auto", "off"] | tuple[int, int], BeforeValidator(_is_choice), BeforeValidator(_tiles)]
"""The same, or a word."""
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0)]
