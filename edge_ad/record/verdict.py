"""What is said about a frame, in Python (`Verdict`) and as one line of JSON (`record`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.image.frame import Box, Frame
from edge_ad.image.geometry import FrameGeometry
from edge_ad.image.inspected import Inspected
from edge_ad.image.operators import FrameMap
from edge_ad.record.decision import reaches
from edge_ad.record.marks import leave_what_counts
from edge_ad.record.timestamps import utc_text

Status = Literal["ok", "late", "skipped", "stale", "unusable", "error"]
STATUSES: tuple[Status, ...] = get_args(Status)
VerdictLabel = Literal["normal", "anomalous"]
OVERTAKEN = "a newer frame arrived before this one could be judged"
"""Reason of a `skipped` frame that a newer one replaced."""


@dataclass(frozen=True)
class Region:
    """One connected anomalous area.

    Attributes:
        box_xyxy: bounding box in frame pixels, maxima exclusive.
        area_px: area in frame pixels.
        peak_xy: frame pixel of the highest anomaly.
        peak_score: value of the anomaly map there.
    """

    box_xyxy: Box
    area_px: int
    peak_xy: tuple[int, int]
    peak_score: float


@dataclass(frozen=True)
class Maps:
    """The maps behind a verdict.

    Attributes:
        patch_map: (h, w) float32.
        anomaly_map: (H, W) float32 at model size; the score is taken here, or on `patch_map`.
        geometry: where the model's pixels lie in the frame.
        postprocess: smoothing that led from `patch_map` to `anomaly_map`.
        pixel_threshold: from which value on a pixel is anomalous; None when nobody has chosen one.
    """

    patch_map: NDArray[np.float32]
    anomaly_map: NDArray[np.float32]
    geometry: FrameGeometry
    postprocess: PostprocessSpec
    pixel_threshold: float | None

    @property
    def carried(self) -> NDArray[np.float32]:
        """The map that the one in frame pixels is made from."""
        return self.anomaly_map if self.postprocess.frame_map == "anomaly_map" else self.patch_map

    def in_frame(self, geometry: FrameGeometry) -> FrameMap:
        """What carries `carried` over to the frame, or with another geometry to a reduced one."""
        smooth_already = self.postprocess.frame_map == "anomaly_map"
        return FrameMap(geometry, _hw(self.carried), None if smooth_already else self.postprocess)


@dataclass(frozen=True)
class Verdict:
    """Judgement of one frame.

    Attributes:
        status: `ok` for a scored frame; everything but `ok` and `late` means that the frame was NOT judged.
        score: raw anomaly score; None when the frame was not judged.
        threshold: score from which on a frame is anomalous; None when nobody has chosen one.
        verdict: `normal`, `anomalous`, or None when there is no score or no threshold.
        regions: anomalous areas, highest peak first.
        inspected_box: part of the frame that was looked at, in frame pixels.
        timings_ms: milliseconds by stage.
        reason: why the frame was not judged.
        maps: the maps, for a judged frame.
        inspected: what of the frame counted, and where the part lay; None where all of it counts.
    """

    status: Status
    score: float | None = None
    threshold: float | None = None
    verdict: VerdictLabel | None = None
    regions: tuple[Region, ...] = ()
    inspected_box: Box | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    maps: Maps | None = None
    inspected: Inspected | None = None

    @cached_property
    def anomaly_map_frame(self) -> NDArray[np.float32]:
        """(H_frame, W_frame) float32: the anomaly map in frame coordinates, 0 where nothing is inspected.

        Raises: ValueError when the frame was not judged.
        """
        maps = self._judged_maps()
        whole = maps.in_frame(maps.geometry)(maps.carried)
        counted = maps.geometry.counted_pixels()
        if counted is not None:
            whole[~counted] = 0
        return whole

    @cached_property
    def mask_frame(self) -> NDArray[np.uint8]:
        """(H_frame, W_frame) uint8: 255 where the frame is anomalous, else 0.

        The peak of every region is always set, so an anomalous frame never has an empty mask; and a normal one has no
        pixel in it: rounding on the way to the frame's own map decides nothing that the score has decided.

        Raises: ValueError when the frame was not judged or has no threshold.
        """
        maps = self._judged_maps()
        if maps.pixel_threshold is None:
            raise ValueError("mask: no threshold is known; pass one to edge_ad.open or write one into the bundle")
        x_min, _, x_max, _ = maps.geometry.inspected_box
        mask = np.zeros(maps.geometry.frame_hw, np.uint8)
        if self.verdict == "normal" and self.threshold == maps.pixel_threshold:
            return mask
        for top, values in maps.in_frame(maps.geometry).strips(maps.carried):
            inside = reaches(values, maps.pixel_threshold)
            mask[top : top + len(values), x_min:x_max] = inside * np.uint8(255)
        leave_what_counts(mask, maps.anomaly_map, maps.geometry, maps.pixel_threshold)
        for region in self.regions:
            mask[region.peak_xy[1], region.peak_xy[0]] = 255
        return mask

    def _judged_maps(self) -> Maps:
        if self.maps is None:
            raise ValueError(f"no map: the frame was not judged (status {self.status!r}: {self.reason})")
        return self.maps


@dataclass(frozen=True)
class Provenance:
    """Who judged: SHA-256 of the bundle's manifest, name of the engine, arithmetic that it uses."""

    bundle: str
    engine: str
    precision: str


def record(frame: Frame, verdict: Verdict, provenance: Provenance, *, budget_ms: float | None) -> dict[str, Any]:
    """The JSON object of one captured frame; `verdict.schema.json` describes it."""
    image = frame.image_hwc
    result: dict[str, Any] = {
        "frame_id": frame.frame_id,
        "source": frame.source,
        "path": frame.path,
        "captured_at": utc_text(frame.captured_at),
        "captured_monotonic_ns": frame.captured_ns,
        "status": verdict.status,
        "reason": verdict.reason,
        "score": verdict.score,
        "threshold": verdict.threshold,
        "verdict": verdict.verdict,
        "regions": [
            {"box_xyxy": list(r.box_xyxy), "area_px": r.area_px, "peak_xy": list(r.peak_xy), "peak_score": r.peak_score}
            for r in verdict.regions
        ],
        "frame_size": None if image is None else [image.shape[1], image.shape[0]],
        "inspected_box": None if verdict.inspected_box is None else list(verdict.inspected_box),
        "bundle": provenance.bundle,
        "engine": provenance.engine,
        "precision": provenance.precision,
        "part_id": frame.part_id,
        "budget_ms": budget_ms,
        "timings_ms": {stage: round(value, 3) for stage, value in verdict.timings_ms.items()},
    }
    if verdict.inspected is not None:
        result |= verdict.inspected.entries()
    if frame.truth is not None:
        boxes = [list(box) for box in frame.truth.boxes_xyxy]
        result["truth"] = {"anomalous": frame.truth.anomalous, "boxes_xyxy": boxes}
    return result


def record_line(entry: Mapping[str, Any]) -> str:
    """One record or event as one line of strict JSON, ASCII only, without the line break.

    ASCII because standard output may have any encoding, and a file name may hold bytes that are no text.
    """
    return json.dumps(entry, allow_nan=False).replace("\x7f", "\\u007f")  # the one control character that JSON allows


def record_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a record, or of an event between records."""
    text = resources.files("edge_ad.record").joinpath("verdict.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _hw(array: NDArray[np.float32]) -> tuple[int, int]:
    return int(array.shape[0]), int(array.shape[1])
