"""From a frame to what the model sees of it: where the part lies, what is cut out, and what of that counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.files import file_inside
from edge_ad.bundle.inspection import EVERYTHING, Inspection, Polygons
from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.errors import BundleError, ConfigError, ImageError
from edge_ad.image.alignment import Aligned, Template, grey_of
from edge_ad.image.boxes import check_box, cropped, holds, moved, whole
from edge_ad.image.counted import Counted, polygons_mask
from edge_ad.image.frame import Box, ColorOrder, ImageArray
from edge_ad.image.geometry import FrameGeometry
from edge_ad.image.pictures import read_nonzero, read_picture
from edge_ad.image.preprocess import ModelInput, Preprocessor, check_image

KEPT_SIZES = 8  # of frames, whose masks are kept


@dataclass(frozen=True)
class Inspected:
    """What of a frame counted.

    Attributes:
        polygons: as they lie in this frame, in its pixels; empty without any.
        ignored_share: of the pixels of `inspected_box` that do not count, 0..1; None where nothing is masked out.
        min_area_px: least area of a defect; None where any counts.
        aligned: where the part lay; None where nobody looks for it, or it was not found.
    """

    polygons: Polygons = ()
    ignored_share: float | None = None
    min_area_px: float | None = None
    aligned: Aligned | None = None

    def entries(self) -> dict[str, Any]:
        """What a record says of it: a key for each thing that was asked for."""
        found: dict[str, Any] = {}
        if self.polygons:
            found["polygons"] = [[list(corner) for corner in polygon] for polygon in self.polygons]
        if self.ignored_share is not None:
            found["ignored_share"] = round(self.ignored_share, 6)
        if self.min_area_px is not None:
            found["min_area_px"] = self.min_area_px
        if self.aligned is not None:
            found["aligned"] = {
                "dx": self.aligned.dx,
                "dy": self.aligned.dy,
                "match": round(self.aligned.match, 6),
            }
        return found


@dataclass(frozen=True)
class Looked:
    """A frame as it is looked at.

    Attributes:
        model_input: what the model is to see; its geometry says what counts.
        inspected: for the record; None where all of the frame counts.
        reason: why it cannot be judged: the part was not found, or lies partly outside of the frame. None else.
    """

    model_input: ModelInput
    inspected: Inspected | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Placed:
    """Which part of a frame is judged. Attributes: box: in its pixels, beyond it where a part has moved."""

    box: Box
    inspected: Inspected | None = None
    reason: str | None = None


class Inspector:
    """Looks at frames as an inspection says; from one thread at a time.

    Args:
        spec: what is inspected.
        path_of: where a picture lies that it names; by default the name is its path.

    Attributes:
        ignored: (H, W) bool, True where a frame is ignored; None without such a mask.
        template: finds the part; None where it always lies at the same place.

    Raises: ImageError for a picture that cannot be read, or a template that shows nothing that could be found again.
    """

    def __init__(self, spec: Inspection, path_of: Callable[[str], str] = str) -> None:
        self.spec = spec
        self.ignored = None if spec.ignore is None else read_nonzero(path_of(spec.ignore))
        self.template: Template | None = None
        if spec.align is not None:
            name = spec.align.template
            self.template = Template(grey_of(read_picture(path_of(name))), spec.align, name)
        self._counted = lru_cache(maxsize=KEPT_SIZES)(self._make_counted)

    def check(self, postprocess: PostprocessSpec) -> None:
        """Raise ConfigError for what cannot be done with the scores of a model."""
        spec, least = self.spec, self.spec.least_area_px
        if postprocess.scored_map is None and spec.align is not None and spec.roi is None:
            raise ConfigError(
                "inspection",
                [
                    f"align: the score {postprocess.score!r} of this model is taken from no map, so what lies beyond"
                    " the frame where a part has moved cannot be left out of it; give a roi, which moves along"
                ],
            )
        if postprocess.scored_map is None and (spec.masks or least is not None):
            what = "min_area_px" if not spec.masks else "polygons" if spec.polygons else "ignore"
            raise ConfigError(
                "inspection",
                [
                    f"{what}: the score {postprocess.score!r} of this model is taken from no map, so nothing can be"
                    " left out of it; choose a score of a map at export, or cut with roi"
                ],
            )
        if postprocess.top_pixels is not None and least is not None:
            raise ConfigError(
                "inspection", ["min_area_px: a score that is the mean of some pixels has no area; choose map_max"]
            )

    def look(
        self, preprocess: Preprocessor, image_hwc: ImageArray, color_order: ColorOrder = "rgb", roi: Box | None = None
    ) -> Looked:
        """The model input of a frame.

        Args:
            roi: in place of the inspection's.

        Raises: ImageError, also for a frame that does not hold what is inspected.
        """
        check_image(image_hwc)
        roi = self.spec.roi if roi is None else roi
        frame_hw = (image_hwc.shape[0], image_hwc.shape[1])
        placed = self.place(image_hwc, color_order, roi)
        if roi is None and placed.box == whole(frame_hw):
            model_input = preprocess(image_hwc, color_order)
        else:
            model_input = preprocess(cropped(image_hwc, placed.box), color_order)
            model_input = replace(model_input, geometry=model_input.geometry.within(frame_hw, placed.box))
        if placed.inspected is None:
            return Looked(model_input, None, placed.reason)
        geometry = replace(model_input.geometry, counts=self._counted(frame_hw, roi))
        inspected = replace(placed.inspected, ignored_share=_ignored_share(geometry))
        return Looked(replace(model_input, geometry=geometry), inspected, placed.reason)

    def check_frame(self, frame_hw: tuple[int, int], roi: Box | None = None) -> None:
        """Raise ImageError where a frame of that size does not hold what is inspected."""
        roi = self.spec.roi if roi is None else roi
        if roi is not None:
            check_box(roi, frame_hw)
        self._counted(frame_hw, roi)

    def place(self, image_hwc: ImageArray, color_order: ColorOrder = "rgb", roi: Box | None = None) -> Placed:
        """Which part of a frame is judged, in its pixels. Raises: ImageError."""
        frame_hw = (image_hwc.shape[0], image_hwc.shape[1])
        roi = self.spec.roi if roi is None else roi
        box = whole(frame_hw) if roi is None else roi
        check_box(box, frame_hw)
        if replace(self.spec, roi=None).is_everything:
            return Placed(box)
        counted = self._counted(frame_hw, roi)
        inspected = Inspected(self.spec.polygons, min_area_px=self.spec.least_area_px)
        if self.template is None:
            return Placed(box, inspected)
        aligned = self.template.find(image_hwc, color_order)
        least = self.template.spec.least_match
        if aligned.match < least:
            reason = f"the part is not found: its template matches {aligned.match:.3f}, wanted at least {least:g}"
            return Placed(box, inspected, reason)
        now = moved(box, aligned.dx, aligned.dy)
        polygons = tuple(tuple((x + aligned.dx, y + aligned.dy) for x, y in polygon) for polygon in self.spec.polygons)
        outside = self._outside(now, roi, counted, frame_hw)
        if outside is not None:
            return Placed(box, replace(inspected, aligned=aligned), outside)
        return Placed(now, replace(inspected, polygons=polygons, aligned=aligned))

    def _outside(self, box: Box, roi: Box | None, counted: Counted, frame_hw: tuple[int, int]) -> str | None:
        """Why a part that has moved cannot be judged: some of what the user asked to be inspected left the frame."""
        if roi is None and not self.spec.polygons:
            return None
        bounds = counted.bounds
        needed = box if bounds is None else moved(bounds, box[0], box[1])
        if holds(frame_hw, needed):
            return None
        return (
            f"the part lies partly outside of the {frame_hw[1]}x{frame_hw[0]} frame: what is inspected of it reaches"
            f" from x {needed[0]} to {needed[2]}, y {needed[1]} to {needed[3]}"
        )

    def _make_counted(self, frame_hw: tuple[int, int], roi: Box | None) -> Counted:
        """What counts of the part of a frame that is cut out when nothing has moved."""
        (height, width), mask = frame_hw, None
        for index, polygon in enumerate(self.spec.polygons):
            if any(x > width or y > height for x, y in polygon):
                raise ImageError(
                    f"polygon {index + 1} of {len(self.spec.polygons)} reaches to x {max(x for x, _ in polygon):g}, y"
                    f" {max(y for _, y in polygon):g}, outside of the {width}x{height} frame; correct the polygon, or"
                    " the camera's resolution"
                )
            inside = polygons_mask([polygon], frame_hw)
            if not inside.any():
                raise ImageError(
                    f"polygon {index + 1} of {len(self.spec.polygons)} holds the centre of no pixel, so nothing of it"
                    " would be inspected; correct it"
                )
            mask = inside if mask is None else mask | inside
        if self.ignored is not None:
            if self.ignored.shape != frame_hw:
                rows, columns = self.ignored.shape
                raise ImageError(
                    f"ignore mask {self.spec.ignore} is {columns}x{rows}, the frame {width}x{height} pixels; a mask has"
                    " the size of the frame"
                )
            mask = ~self.ignored if mask is None else mask & ~self.ignored
        if mask is not None:
            x_min, y_min, x_max, y_max = whole(frame_hw) if roi is None else roi
            mask = np.ascontiguousarray(mask[y_min:y_max, x_min:x_max])
            if not mask.any():
                raise ImageError("nothing of the frame is inspected: roi, polygons and ignore mask leave no pixel")
        return Counted(None if mask is None or mask.all() else mask, self.spec.least_area_px)


AS_THEY_ARE = Inspector(EVERYTHING)
"""Looks at frames as they are."""


def inspector_of(bundle: Bundle) -> Inspector:
    """What the inspection of a bundle says. Raises: BundleError."""
    spec = bundle.manifest.inspection
    if spec is None:
        return AS_THEY_ARE
    try:
        inspector = Inspector(spec, path_in(bundle))
        inspector.check(bundle.manifest.postprocess)
    except (ImageError, ConfigError) as exc:
        raise BundleError(f"bundle {bundle.path}: {exc}; write its inspection again with 'edge-ad inspect'") from exc
    return inspector


def path_in(bundle: Bundle) -> Callable[[str], str]:
    """Gives the paths of files of a bundle, each checked once more. Raises: BundleError."""

    def path_of(name: str) -> str:
        bundle.read_file(name)
        return str(file_inside(bundle.path, name))

    return path_of


def _ignored_share(geometry: FrameGeometry) -> float | None:
    """Share of the pixels that the model sees of the frame that do not count."""
    if geometry.counts is None or geometry.counts.mask is None:
        return None
    left, top, right, bottom = geometry.inspected_box
    x_0, y_0 = geometry.region[:2]
    return _share_left_out(geometry.counts, (left - x_0, top - y_0, right - x_0, bottom - y_0))


@lru_cache(maxsize=KEPT_SIZES)
def _share_left_out(counts: Counted, box: Box) -> float:
    """Share of a box, in pixels of the part that was cut out, that does not count."""
    assert counts.mask is not None
    left, top, right, bottom = box
    return 1 - float(counts.mask[top:bottom, left:right].mean(dtype=np.float64))
