"""What a run leaves behind: records, masks, overlays, and one warning."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.errors import OutputError
from edge_ad.image.frame import ColorOrder, Frame
from edge_ad.image.geometry import place
from edge_ad.image.operators import ResizeSmooth
from edge_ad.record.verdict import Maps, Provenance, Verdict, record
from edge_ad.runtime.host.results import RECORDS
from edge_ad.runtime.judge.postprocess import find_regions
from edge_ad.runtime.sinks import pictures
from edge_ad.runtime.sinks.coverage import CoverageWarning
from edge_ad.runtime.sinks.jsonl import JsonLines
from edge_ad.runtime.sinks.pictures import PICTURES, PictureFiles, draw_overlay
from edge_ad.runtime.sinks.sizes import MOST_SAID, SizeChanges

PROVENANCE = Provenance("0" * 64, "fake", "fp32")
CROP = PreprocessSpec(64, 64, resize=64)
FRAME_HW = (90, 160)


def _frame(number: int = 0, frame_hw: tuple[int, int] = FRAME_HW, path: str | None = None, **more: Any) -> Frame:
    image = np.random.default_rng(number).integers(40, 80, (*frame_hw, 3), np.uint8)
    return Frame(number, "test", datetime.now(timezone.utc), 0, image, path=path, **more)


def _verdict(
    frame_hw: tuple[int, int] = FRAME_HW, threshold: float | None = 0.5, spec: PreprocessSpec = CROP
) -> Verdict:
    patch_map = np.zeros((16, 16), np.float32)
    patch_map[4:9, 9:13] = 1
    anomaly_map = ResizeSmooth((16, 16), (64, 64))(patch_map)
    geometry = place(spec, frame_hw)
    regions = find_regions(anomaly_map, patch_map, geometry, threshold) if threshold is not None else ()
    return Verdict(
        "ok",
        score=float(anomaly_map.max()),
        threshold=threshold,
        verdict=None if threshold is None else "anomalous",
        regions=regions,
        inspected_box=geometry.inspected_box,
        maps=Maps(patch_map, anomaly_map, geometry, PostprocessSpec(), threshold),
    )


def _entry(frame: Frame, verdict: Verdict) -> dict[str, Any]:
    return record(frame, verdict, PROVENANCE, budget_ms=None)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _write(sink: Any, *frames: Frame, verdict: Verdict | None = None) -> None:
    for frame in frames:
        judged = verdict or Verdict("skipped", reason="test")
        sink.write(frame, judged, _entry(frame, judged))


def test_a_record_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with JsonLines(tmp_path / "new" / "folder") as sink:
        for number in range(3):
            _write(sink, _frame(number))
            assert [line["frame_id"] for line in _lines(tmp_path / "new" / "folder" / RECORDS)] == list(
                range(number + 1)
            )


def test_records_of_earlier_runs_are_kept(tmp_path: Path) -> None:
    for number in range(3):  # within one second, so that their dates are the same
        with JsonLines(tmp_path) as sink:
            _write(sink, _frame(number))
    assert [line["frame_id"] for line in _lines(tmp_path / RECORDS)] == [2]
    earlier = sorted(path for path in tmp_path.iterdir() if path.name != RECORDS)
    assert sorted(_lines(path)[0]["frame_id"] for path in earlier) == [0, 1]
    assert all(path.name.startswith("verdicts-2") and path.suffix == ".jsonl" for path in earlier)


def test_records_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines(None) as sink:
        _write(sink, _frame(3, path="Prüfling\udcff.png"))
    assert json.loads(capsys.readouterr().out)["path"] == "Prüfling\udcff.png"


def test_a_path_that_is_no_text_is_written(tmp_path: Path) -> None:
    """Linux file names are bytes; those that are not UTF-8 reach Python as lone surrogates."""
    with JsonLines(tmp_path) as sink:
        _write(sink, _frame(path="part\udcff.png"))
    assert _lines(tmp_path / RECORDS)[0]["path"] == "part\udcff.png"


@pytest.mark.parametrize("make", [JsonLines, lambda folder: PictureFiles(folder, *PICTURES["masks"])])
def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path, make: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be made"), make(tmp_path / "file" / "out"):
        pass


@pytest.mark.parametrize("frame_hw", [(90, 160), (301, 173), (40, 40)])
def test_masks_are_the_verdict_pixel_by_pixel(tmp_path: Path, frame_hw: tuple[int, int]) -> None:
    verdict = _verdict(frame_hw)
    with PictureFiles(tmp_path / "masks", *PICTURES["masks"]) as sink:
        _write(sink, _frame(12, frame_hw, path="in/part 7.jpeg"), _frame(13, frame_hw), verdict=verdict)
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["000012_part 7.png", "000013.png"]
    mask = np.asarray(Image.open(tmp_path / "masks" / "000013.png"))
    assert mask.shape == frame_hw
    np.testing.assert_array_equal(mask, verdict.mask_frame)
    assert 0 < (mask == 255).sum() < mask.size


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("frame_hw", [(360, 640), (5, 9)])
def test_overlays_show_the_frame(tmp_path: Path, frame_hw: tuple[int, int], order: ColorOrder) -> None:
    image = np.zeros((*frame_hw, 3), np.uint8)
    image[..., 0 if order == "rgb" else 2] = 200  # a red frame
    frame = Frame(0, "test", datetime.now(timezone.utc), 0, image, color_order=order)
    verdict = _verdict(frame_hw)
    with PictureFiles(tmp_path / "overlays", *PICTURES["overlays"]) as sink:
        _write(sink, frame, verdict=verdict)
    overlay = np.asarray(Image.open(tmp_path / "overlays" / "000000.jpg").convert("RGB")).astype(int)
    assert overlay.shape == (*frame_hw, 3)
    assert (image == (200 * np.eye(3, dtype=int)[0 if order == "rgb" else 2])).all()  # the frame itself is untouched
    if frame_hw == (360, 640):
        # Outside of the inspected box nothing is drawn: red to within JPEG's loss.
        assert np.abs(overlay[:, 600:] - (200, 0, 0)).mean() < 10
        left, top, right, bottom = verdict.regions[0].box_xyxy
        inside = overlay[top + 15 : bottom - 15, left + 15 : right - 15]
        assert inside[..., 1].max() > 40  # the heat is there: green, of which the frame has none


@pytest.mark.parametrize("spec", [CROP, PreprocessSpec(64, 64, "stretch"), PreprocessSpec(64, 64, "letterbox")])
def test_the_overlay_of_a_large_frame_is_a_small_one_of_the_same(
    spec: PreprocessSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame_hw = (360, 640)
    frame = replace(_frame(0, frame_hw), image_hwc=np.zeros((*frame_hw, 3), np.uint8))
    verdict = replace(_verdict(frame_hw, spec=spec), regions=())
    monkeypatch.setattr(pictures, "INSPECTED_BGR", (0, 0, 0))  # a line is as wide on both, hence not the same
    full = draw_overlay(frame, verdict)
    monkeypatch.setattr(pictures, "LARGEST_OVERLAY", 360 * 640 / 4)
    small = draw_overlay(frame, verdict)
    assert full.shape == (360, 640, 3) and small.shape == (180, 320, 3)
    below = slice(40, 176), slice(2, 318)  # the label, whose text is smaller, and inside of the edge
    wanted = cv2.resize(full, (320, 180), interpolation=cv2.INTER_AREA)[below].astype(int)
    difference = np.abs(small[below] - wanted).mean()
    assert difference < 0.3 and wanted.mean() > 1
    assert (
        np.abs(np.roll(small, 2, axis=1)[below] - wanted).mean() > 3 * difference
    )  # a heat that lies elsewhere is not the same
    monkeypatch.setattr(pictures, "LONGEST_EDGE", 100)
    assert max(draw_overlay(frame, verdict).shape) == 100


def test_overlays_need_no_threshold(tmp_path: Path) -> None:
    with PictureFiles(tmp_path, *PICTURES["overlays"]) as sink:
        _write(sink, _frame(), verdict=_verdict(threshold=None))
    with Image.open(tmp_path / "000000.jpg") as picture:
        assert picture.size == (FRAME_HW[1], FRAME_HW[0])


def test_frames_that_were_not_judged_have_no_picture(tmp_path: Path) -> None:
    with PictureFiles(tmp_path, *PICTURES["masks"]) as sink:
        _write(sink, _frame(), verdict=Verdict("unusable", reason="black"))
    assert list(tmp_path.iterdir()) == []


def test_a_mask_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with PictureFiles(tmp_path, *PICTURES["masks"]) as sink:
        (tmp_path / "000000.png").mkdir()
        with pytest.raises(OutputError, match=r"000000\.png: cannot be written"):
            _write(sink, _frame(), verdict=_verdict())


def test_the_coverage_warning_is_said_once() -> None:
    said: list[str] = []
    failed = Frame(9, "test", datetime.now(timezone.utc), 0, None, error="torn")
    with CoverageWarning(PreprocessSpec(288, 288), said.append) as sink:
        _write(sink, failed, _frame(0, (288, 288)))
        assert said == []  # nothing of a square frame is cut off
        _write(sink, _frame(1, (1080, 1920)), _frame(2, (1080, 1920)), _frame(3, (50, 600)))
    (warning,) = said
    assert "44% of the 1920x1080 frame" in warning
    assert "NOT inspected" in warning
    assert "x 420..1500, y 0..1080" in warning


def test_there_is_no_warning_when_all_is_seen() -> None:
    said: list[str] = []
    spec = PreprocessSpec(288, 288, resize_mode="letterbox")
    with CoverageWarning(spec, said.append) as sink:
        _write(sink, _frame(0, (1080, 1920)))
    assert said == []


def test_a_camera_that_changes_its_size_is_said_and_then_counted() -> None:
    said: list[str] = []
    sizes = [(90, 160), (90, 160), (60, 80)]
    with SizeChanges(said.append) as sink:
        _write(sink, *(_frame(number, size) for number, size in enumerate(sizes)))
        assert said == [
            "warning: test: frames have 80x60 pixels from frame 2 on, 160x90 before; set the camera to one size,"
            " the one of its threshold"
        ]
        _write(sink, *(_frame(3 + number, sizes[number % 2 * 2]) for number in range(20)))
        assert len(said) == MOST_SAID
    assert said[MOST_SAID:] == ["warning: test: the size of the frames has changed 21 times"]


def test_pictures_of_a_folder_may_have_any_size() -> None:
    said: list[str] = []
    with SizeChanges(said.append) as sink:
        _write(sink, _frame(0, (90, 160), path="a.png"), _frame(1, (60, 80), path="b.png"))
        _write(sink, _frame(2, (90, 160), path="v.avi"), _frame(3, (60, 80), path="v.avi"))
    assert len(said) == 1 and "80x60 pixels from frame 3 on" in said[0]
