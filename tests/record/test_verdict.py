"""Verdicts and their records: the shipped schema describes what is written, and refuses what must not be."""

from __future__ import annotations

import json
import tracemalloc
from datetime import datetime, timedelta, timezone
from typing import Any, get_args

import numpy as np
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.image.frame import Frame, Truth
from edge_ad.image.geometry import place
from edge_ad.image.operators import ResizeSmooth
from edge_ad.record.events import disconnected_event, no_frame_event, reconnected_event
from edge_ad.record.verdict import Maps, Provenance, Region, Status, Verdict, record, record_line, record_schema

PROVENANCE = Provenance("0123456789abcdef" * 4, "openvino", "fp32")
REGION = Region((1, 2, 30, 40), 77, (12, 13), 0.875)
FORMATS = FormatChecker(())


@FORMATS.checks("date-time", raises=ValueError)
def _is_utc(text: object) -> bool:
    """RFC 3339; jsonschema checks it only where a package of its own is installed."""
    moment = datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%S.%fZ")
    return moment.tzinfo is None


def _faults(entry: dict[str, Any]) -> list[str]:
    validator = Draft202012Validator(record_schema(), format_checker=FORMATS)
    return [fault.message for fault in validator.iter_errors(json.loads(record_line(entry)))]


def _frame(**changes: Any) -> Frame:
    values: dict[str, Any] = {
        "frame_id": 7,
        "source": "folder",
        "captured_at": datetime(2026, 3, 4, 5, 6, 7, 89_000, timezone(timedelta(hours=2))),
        "captured_ns": 123,
        "image_hwc": np.zeros((20, 30, 3), np.uint8),
        "path": "a/b.png",
    }
    return Frame(**{**values, **changes})


def _verdict(status: Status) -> Verdict:
    if status in ("ok", "late"):
        times = {"decode": 1.23456, "total": 9.0}
        return Verdict(status, 0.9, 0.5, "anomalous", (REGION,), (0, 0, 30, 20), times)
    return Verdict(status, threshold=0.5, timings_ms={"decode": 0.1}, reason=f"it was {status}")


@pytest.mark.parametrize("status", get_args(Status))
@pytest.mark.parametrize("budget_ms", [None, 40.0])
def test_a_record_of_every_status_is_as_the_schema_says(status: Status, budget_ms: float | None) -> None:
    entry = record(_frame(), _verdict(status), PROVENANCE, budget_ms=budget_ms)
    assert _faults(entry) == []
    assert entry["captured_at"] == "2026-03-04T03:06:07.089Z"
    assert entry["frame_size"] == [30, 20]
    assert (entry["score"] is not None) == (status in ("ok", "late"))


def test_frames_without_picture_path_or_with_truth_are_as_the_schema_says() -> None:
    failed = _frame(image_hwc=None, path=None, error="no such file")
    entry = record(failed, Verdict("error", reason="no such file"), PROVENANCE, budget_ms=None)
    assert _faults(entry) == []
    assert entry["frame_size"] is None
    known = _frame(truth=Truth(True, ((1, 2, 3, 4),)))
    entry = record(known, _verdict("ok"), PROVENANCE, budget_ms=None)
    assert _faults(entry) == []
    assert entry["truth"] == {"anomalous": True, "boxes_xyxy": [[1, 2, 3, 4]]}
    without_threshold = Verdict("ok", score=0.2, inspected_box=(0, 0, 30, 20))
    assert _faults(record(_frame(), without_threshold, PROVENANCE, budget_ms=None)) == []


@pytest.mark.parametrize(
    ("status", "change"),
    [
        ("ok", {"score": None}),
        ("late", {"score": None}),
        ("ok", {"reason": "why?"}),
        ("skipped", {"score": 0.1}),
        ("error", {"verdict": "normal"}),
        ("unusable", {"verdict": "normal"}),
        ("stale", {"reason": None}),
        ("skipped", {"regions": [{"box_xyxy": [0, 0, 1, 1], "area_px": 1, "peak_xy": [0, 0], "peak_score": 1}]}),
        ("ok", {"status": "fine"}),
        ("ok", {"surprise": 1}),
        ("ok", {"bundle": "abc"}),
        ("ok", {"captured_at": "2026-03-04T03:06:07.089+00:00"}),
        ("ok", {"captured_at": "yesterdayZ"}),
        ("ok", {"inspected_box": [0, 0, 30]}),
        ("ok", {"frame_id": -1}),
        ("ok", {"budget_ms": 0}),
    ],
)
def test_the_schema_refuses_records_that_must_not_be(status: Status, change: dict[str, Any]) -> None:
    """Control: a frame that was not scored cannot look judged, and the other way round."""
    entry = record(_frame(), _verdict(status), PROVENANCE, budget_ms=None)
    assert _faults(entry) == []
    assert _faults({**entry, **change}) != []


@pytest.mark.parametrize("field", sorted(record_schema()["$defs"]["record"]["required"]))
def test_no_field_may_be_left_out(field: str) -> None:
    entry = record(_frame(), _verdict("ok"), PROVENANCE, budget_ms=None)
    del entry[field]
    assert _faults(entry) != []


NOON = datetime(2026, 3, 4, 12, 0, 0, 500_000, timezone(timedelta(hours=2)))
EVENTS = {
    "no_frame": no_frame_event("cam", at=NOON, monotonic_ns=5, silent_s=5.00049, count=1),
    "disconnected": disconnected_event("cam", at=NOON, monotonic_ns=5, cause="lost", reason="no cable", count=2),
    "reconnected": reconnected_event("cam", at=NOON, monotonic_ns=5, away_s=1.23456, attempts=3, count=2),
}


@pytest.mark.parametrize("name", list(EVENTS))
def test_an_event_is_as_the_schema_says_and_no_field_of_it_may_be_left_out(name: str) -> None:
    event = EVENTS[name]
    assert _faults(event) == []
    assert (event["event"], event["at"]) == (name, "2026-03-04T10:00:00.500Z")
    for field in event:
        assert _faults({key: value for key, value in event.items() if key != field}) != [], field
    assert _faults({**event, "more": 1}) != []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("no_frame", {"event": "silence"}),
        ("no_frame", {"event": "disconnected"}),
        ("disconnected", {"cause": "bored"}),
        ("disconnected", {"count": 0}),
        ("disconnected", {"reason": None}),
        ("reconnected", {"attempts": 0}),
        ("reconnected", {"away_s": -0.1}),
        ("reconnected", {"cause": "lost"}),
    ],
)
def test_the_schema_refuses_events_that_must_not_be(name: str, change: dict[str, Any]) -> None:
    assert _faults({**EVENTS[name], **change}) != []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_never_written(value: float) -> None:
    for verdict in (Verdict("ok", score=value), Verdict("ok", score=1.0, timings_ms={"total": value})):
        with pytest.raises(ValueError, match="JSON"):
            record_line(record(_frame(), verdict, PROVENANCE, budget_ms=None))


def test_a_line_is_one_line_in_any_encoding() -> None:
    """A path may hold line breaks, text outside of ASCII, or bytes that are no text (as surrogates)."""
    path = "Prüfling\n\u2028µ\udcff.png"
    line = record_line(record(_frame(path=path), _verdict("ok"), PROVENANCE, budget_ms=None))
    assert len(line.splitlines()) == 1
    line.encode("ascii")
    assert json.loads(line)["path"] == path


def _judged(spec: PreprocessSpec, frame_hw: tuple[int, int], **changes: Any) -> Verdict:
    patch_map = np.zeros((16, 16), np.float32)
    patch_map[4:8, 8:12] = 1
    post = PostprocessSpec()
    smooth = ResizeSmooth((16, 16), spec.size_hw)(patch_map)
    maps = Maps(patch_map, smooth, place(spec, frame_hw), post, changes.pop("pixel_threshold", 0.5))
    return Verdict("ok", score=1.0, threshold=0.5, verdict="anomalous", maps=maps, **changes)


SPECS = {
    "crop": (PreprocessSpec(64, 64, resize=64), (100, 180)),
    "stretch": (PreprocessSpec(64, 64, resize_mode="stretch"), (100, 180)),
    "letterbox": (PreprocessSpec(64, 64, resize_mode="letterbox"), (31, 57)),
}


@pytest.mark.parametrize("name", SPECS)
def test_maps_in_frame_coordinates(name: str) -> None:
    spec, frame_hw = SPECS[name]
    verdict = _judged(spec, frame_hw)
    anomaly, mask = verdict.anomaly_map_frame, verdict.mask_frame
    assert anomaly.shape == mask.shape == frame_hw
    assert (anomaly.dtype, mask.dtype) == (np.float32, np.uint8)
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal(mask == 255, anomaly >= 0.5)
    assert verdict.maps is not None
    geometry = verdict.maps.geometry
    x_min, y_min, x_max, y_max = geometry.inspected_box
    outside = np.ones(frame_hw, bool)
    outside[y_min:y_max, x_min:x_max] = False
    assert not anomaly[outside].any()
    # The spot is centred at model (40, 24); its centre of mass in the frame, to one model pixel.
    rows, columns = np.nonzero(mask)
    assert columns.mean() + 0.5 == pytest.approx((40 + geometry.left) * geometry.scale_x, abs=geometry.scale_x)
    assert rows.mean() + 0.5 == pytest.approx((24 + geometry.top) * geometry.scale_y, abs=geometry.scale_y)


def test_outside_of_the_crop_is_never_anomalous() -> None:
    """A threshold of 0 or below marks all that was seen, and nothing that was not."""
    verdict = _judged(*SPECS["crop"], pixel_threshold=-1.0)
    assert verdict.maps is not None
    x_min, y_min, x_max, y_max = verdict.maps.geometry.inspected_box
    assert (verdict.mask_frame == 255).sum() == (x_max - x_min) * (y_max - y_min) < 100 * 180


def test_the_peak_of_every_region_is_in_the_mask() -> None:
    verdict = _judged(*SPECS["crop"], pixel_threshold=2.0, regions=(Region((90, 20, 95, 30), 9, (91, 22), 1.0),))
    assert verdict.mask_frame.sum() == 255
    assert verdict.mask_frame[22, 91] == 255
    assert _judged(*SPECS["crop"], pixel_threshold=2.0).mask_frame.sum() == 0


def test_without_judgement_or_threshold_there_is_no_mask() -> None:
    with pytest.raises(ValueError, match=r"not judged.*'skipped'"):
        _ = Verdict("skipped", reason="x").anomaly_map_frame
    with pytest.raises(ValueError, match="no threshold"):
        _ = _judged(*SPECS["crop"], pixel_threshold=None).mask_frame


def test_the_mask_of_a_large_frame_needs_no_map_of_its_size() -> None:
    """Line scans: a map of floats and its copies would take four times the frame."""
    verdict = _judged(PreprocessSpec(64, 64, resize_mode="stretch"), (3000, 2000))
    tracemalloc.start()
    try:
        mask = verdict.mask_frame
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * mask.nbytes + (8 << 20)
    np.testing.assert_array_equal(mask == 255, verdict.anomaly_map_frame >= 0.5)
