"""What of a frame is inspected, as frozen values: its part, polygons, what is ignored, least area, how it is found."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from pydantic import Field

from edge_ad.validation import strict

LARGEST_EDGE = 100_000  # pixels of a frame
LARGEST_AREA = 1e10  # of all pixels of such a frame
MOST_POLYGONS = 64
MOST_CORNERS = 1000
IGNORE_FILE = "inspection/ignore.png"
TEMPLATE_FILE = "inspection/template.png"

Edge = Annotated[int, Field(ge=0, le=LARGEST_EDGE)]
Place = Annotated[float, Field(ge=0, le=LARGEST_EDGE)]
Polygon = Annotated[tuple[tuple[Place, Place], ...], Field(min_length=3, max_length=MOST_CORNERS)]
"""Corners (x, y) in frame pixels, edges of pixels counted; it is closed, and its last corner leads to its first."""
Polygons = Annotated[tuple[Polygon, ...], Field(max_length=MOST_POLYGONS)]


@strict
@dataclass(frozen=True)
class Alignment:
    """How a part that does not always lie at the same place is found.

    Attributes:
        template: PNG of something that every part shows at the same place; only its grey levels count.
        at: left and top of where it lies in the frame that everything else was drawn on.
        reach_px: how far from there it is looked for, in each direction.
        least_match: correlation from which on it is found: of grey levels without their mean, normalised, up to 1.
    """

    template: Annotated[str, Field(min_length=1)]
    at: tuple[Edge, Edge]
    reach_px: Annotated[int, Field(ge=1, le=10_000)] = 50
    least_match: Annotated[float, Field(gt=0, le=1)] = 0.7


@strict
@dataclass(frozen=True)
class Inspection:
    """What of a frame counts. Everything is said for the frame that it was drawn on, and moves along with the part.

    Attributes:
        roi: left, top, right, bottom of what the model is shown, in frame pixels; None for all of the frame.
        polygons: what lies in one of them is inspected; all of it without any.
        ignore: PNG of the frame's size, in which what is not black is ignored.
        min_area_px, min_area_mm2: area from which on a defect counts, in one of the units.
        mm_per_px: side of a frame pixel on the part.
        align: how the part is found; None where it always lies at the same place.
    """

    roi: tuple[Edge, Edge, Edge, Edge] | None = None
    polygons: Polygons = ()
    ignore: Annotated[str, Field(min_length=1)] | None = None
    min_area_px: Annotated[float, Field(gt=0, le=LARGEST_AREA)] | None = None
    min_area_mm2: Annotated[float, Field(gt=0, le=LARGEST_AREA)] | None = None
    mm_per_px: Annotated[float, Field(ge=1e-6, le=1e6)] | None = None
    align: Alignment | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError for a box or areas that contradict themselves."""
        if self.roi is not None and not (self.roi[0] < self.roi[2] and self.roi[1] < self.roi[3]):
            raise ValueError(f"roi: wanted left, top, right, bottom, each pair in that order, got {list(self.roi)}")
        if self.min_area_px is not None and self.min_area_mm2 is not None:
            raise ValueError("min_area_px, min_area_mm2: wanted one of them")
        if self.min_area_mm2 is not None and self.mm_per_px is None:
            raise ValueError("min_area_mm2: needs mm_per_px, the side of a frame pixel on the part")

    @property
    def least_area_px(self) -> float | None:
        """Least area of a defect in frame pixels; None where any area counts."""
        if self.min_area_mm2 is not None and self.mm_per_px is not None:
            return self.min_area_mm2 / self.mm_per_px**2
        return self.min_area_px

    @property
    def masks(self) -> bool:
        """Whether it takes something out of what the model is shown."""
        return bool(self.polygons) or self.ignore is not None

    @property
    def is_everything(self) -> bool:
        """Whether it leaves frames as they are."""
        return all(getattr(self, field.name) == field.default for field in fields(self) if field.name != "mm_per_px")

    @property
    def files(self) -> tuple[str, ...]:
        """The pictures that it names."""
        named = (self.ignore, None if self.align is None else self.align.template)
        return tuple(name for name in named if name is not None)


EVERYTHING = Inspection()
