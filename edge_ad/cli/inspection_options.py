"""Options that say what of a frame is inspected, shared by the commands that have them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from edge_ad.cli.option import text_option
from edge_ad.errors import ConfigError

if TYPE_CHECKING:
    from edge_ad.bundle.inspection import Inspection
    from edge_ad.image.frame import ImageArray

F = TypeVar("F", bound=Callable[..., Any])

_NUMBER = r"\d+(?:\.\d+)?"


def place_options(command: F) -> F:
    """`--roi` and what finds a part, for a click command."""
    for option in (
        text_option("--least-match", metavar="M", help="Correlation from which on the part is found (default: 0.7)."),
        text_option("--reach", metavar="PX", help="How far from there it is looked for (default: 50)."),
        text_option("--at", metavar="X,Y", help="Left and top of TEMPLATE in the frame that it was taken from."),
        text_option("--align", metavar="TEMPLATE", help="Picture of what every part shows at the same place."),
        text_option("--roi", metavar="L,T,R,B", help="Left, top, right, bottom of what the model is shown, in pixels."),
    ):
        command = option(command)
    return command


def with_given(before: Mapping[str, Any], given: Mapping[str, Any], where: str) -> Inspection:
    """An inspection with what options say in place of what it said.

    Args:
        before: plain values of an inspection.
        given: options by name, as texts; None and () are not given.

    Raises: ConfigError with every fault, under the names of the options.
    """
    from edge_ad.bundle.inspection import Inspection
    from edge_ad.validation import build

    faults: list[str] = []
    data = dict(before)
    if given.get("roi") is not None:
        data["roi"] = _numbers(given["roi"], 4, "roi", "L,T,R,B", faults)
    if given.get("polygon"):
        data["polygons"] = [_corners(text, faults) for text in given["polygon"]]
    areas = [key for key in ("min_area_px", "min_area_mm2") if given.get(key) is not None]
    if areas:
        data = {key: value for key, value in data.items() if key not in ("min_area_px", "min_area_mm2")}
    for key in (*areas, "mm_per_px", "ignore"):
        if given.get(key) is not None:
            data[key] = given[key]
    align = {
        key: given[option]
        for option, key in (("align", "template"), ("reach", "reach_px"), ("least_match", "least_match"))
        if given.get(option) is not None
    }
    if given.get("at") is not None:
        align["at"] = _numbers(given["at"], 2, "at", "X,Y", faults)
    if align:
        kept = data.get("align") or {}
        if "template" in align:  # another one lies elsewhere
            kept = {key: value for key, value in kept.items() if key != "at"}
        data["align"] = {**kept, **align}
        for option, key in (("align", "template"), ("at", "at")):
            if key not in data["align"]:
                faults.append(f"{option}: missing; a part is found by --align TEMPLATE and --at X,Y")
    if faults:
        raise ConfigError(where, faults)
    try:
        return build(Inspection, data, where)
    except ConfigError as exc:
        raise ConfigError(where, [_as_option(fault) for fault in exc.faults]) from exc


def png_bytes(picture: ImageArray) -> bytes:
    """A picture (H, W) or (H, W, 3) uint8 RGB as PNG, lossless."""
    import cv2

    levels = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".png", levels)
    return bytes(data)


def _as_option(fault: str) -> str:
    path, colon, rest = fault.partition(": ")
    for key, option in (("align.template", "align"), ("align.reach_px", "reach"), ("align.", ""), ("value", "")):
        if path.startswith(key):
            path = path.replace(key, option, 1)
    return f"{path}{colon}{rest}" if path else rest


def _numbers(text: object, count: int, option: str, form: str, faults: list[str]) -> list[int]:
    parts = str(text).split(",")
    if len(parts) == count and all(re.fullmatch(r"\s*\d{1,6}\s*", part) for part in parts):
        return [int(part) for part in parts]
    faults.append(f"{option}: wanted {form} in pixels, such as {','.join(['10', '20', '640', '480'][:count])}")
    return [0] * count


def _corners(text: str, faults: list[str]) -> list[tuple[float, float]]:
    corners = [re.fullmatch(f"({_NUMBER}),({_NUMBER})", part) for part in text.split()]
    if len(corners) >= 3 and all(corners):
        return [(float(corner[1]), float(corner[2])) for corner in corners if corner is not None]
    faults.append(f"polygon: wanted three or more corners 'X,Y X,Y X,Y' in pixels, got {text[:60]!r}")
    return [(0, 0)] * 3
