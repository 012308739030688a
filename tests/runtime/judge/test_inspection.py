"""What a bundle inspects: what is left out never counts, a least area decides, and a part is followed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.inspection import IGNORE_FILE, TEMPLATE_FILE, Alignment, Inspection
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, Thresholds
from edge_ad.errors import BundleError, ConfigError, ImageError
from edge_ad.image.counted import polygons_mask
from edge_ad.image.inspected import Inspector, inspector_of
from edge_ad.record.verdict import Verdict, record_schema
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector

HW = (128, 160)
SIDE = 32
LEFT = ((0.0, 0.0), (80.0, 0.0), (80.0, 128.0), (0.0, 128.0))
TEMPLATE_BOX = (60, 50, 100, 80)

Open = Callable[..., Any]


def png(levels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", levels)[1])


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, fake_bundle: Callable[..., Bundle]) -> Open:
    """Open a detector of the fake engine with an inspection and its files; bundles are written once."""
    written: dict[str, Bundle] = {}

    @contextmanager
    def opened(spec: Inspection | None, files: dict[str, bytes] | None = None, **fields: Any) -> Iterator[Detector]:
        fields = {"thresholds": Thresholds(0.5), "postprocess": PostprocessSpec(sigma=1.0)} | fields
        key = repr((fields, sorted((files or {}).items())))
        if key not in written:
            folder = tmp_path_factory.mktemp("bundle")
            plain = fake_bundle(folder / "plain.edgead", side=SIDE, **fields)
            written[key] = write_changed(plain, folder / "b.edgead", {}, files=files or {})
        bundle = written[key]
        bundle = replace(bundle, manifest=replace(bundle.manifest, inspection=spec))
        with open_detector(bundle, engine="fake") as detector:
            yield detector

    return opened


def frame(*spots: tuple[int, int, int, int]) -> np.ndarray:
    """Dim noise with bright boxes (left, top, right, bottom)."""
    image = np.random.default_rng(5).integers(20, 60, (*HW, 3), dtype=np.uint8)
    for left, top, right, bottom in spots:
        image[top:bottom, left:right] = 250
    return image


RIGHT_SPOT, LEFT_SPOT = (110, 40, 140, 70), (20, 40, 50, 70)


def sound(verdict: Verdict, counted: np.ndarray) -> None:
    """What holds of every verdict, and where nothing may be said."""
    assert verdict.maps is not None and verdict.inspected is not None
    assert not verdict.anomaly_map_frame[~counted].any() and not verdict.mask_frame[~counted].any()
    assert (verdict.verdict == "anomalous") == bool(verdict.regions) == bool(verdict.mask_frame.any())
    for region in verdict.regions:
        x, y = region.peak_xy
        assert counted[y, x] and verdict.mask_frame[y, x] == 255


@pytest.mark.parametrize("by", ["polygon", "ignore"])
def test_what_is_left_out_counts_nowhere(opened: Open, by: str) -> None:
    counted = np.zeros(HW, np.bool_)
    counted[:, :80] = True
    spec = Inspection(polygons=(LEFT,)) if by == "polygon" else Inspection(ignore=IGNORE_FILE)
    files = {} if by == "polygon" else {IGNORE_FILE: png(np.where(counted, 0, 255).astype(np.uint8))}
    with opened(None) as whole, opened(spec, files) as part:
        bright = frame(RIGHT_SPOT)
        assert whole.judge(bright).verdict == "anomalous"
        verdict = part.judge(bright)
        assert verdict.verdict == "normal" and verdict.score == part.judge(frame()).score
        sound(verdict, counted)
        both = part.judge(frame(RIGHT_SPOT, LEFT_SPOT))
        assert both.verdict == "anomalous" and len(both.regions) == 1
        sound(both, counted)
        assert both.inspected is not None and both.inspected.ignored_share == 0.5
        assert both.score == part.judge(frame(LEFT_SPOT)).score


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    mode=st.sampled_from(["stretch", "letterbox", "shorter_side_crop"]),
    corners=st.lists(st.tuples(st.integers(0, HW[1]), st.integers(0, HW[0])), min_size=3, max_size=5),
    seed=st.integers(0, 99),
)
def test_verdict_regions_and_masks_agree(opened: Open, mode: Any, corners: list[tuple[int, int]], seed: int) -> None:
    polygon = tuple((float(x), float(y)) for x, y in corners)
    assume(polygons_mask((polygon,), HW).any())
    counted = polygons_mask((polygon, ((70, 50), (90, 50), (90, 70), (70, 70))), HW)
    square = ((70.0, 50.0), (90.0, 50.0), (90.0, 70.0), (70.0, 70.0))
    resize = 36 if mode == "shorter_side_crop" else None
    spec = Inspection(polygons=(polygon, square), min_area_px=150.0)
    rng = np.random.default_rng(seed)
    spots = [(x, y, x + int(w), y + int(w)) for x, y, w in rng.integers(4, 100, (6, 3)) * (1, 1, 0.4)]
    image = frame(*((int(a), int(b), int(c), int(d)) for a, b, c, d in spots))
    with opened(spec, preprocess=PreprocessSpec(SIDE, SIDE, resize_mode=mode, resize=resize)) as detector:
        verdict = detector.judge(image)
        sound(verdict, counted)
        other = image.copy()
        assert all(region.area_px >= 149 for region in verdict.regions)
        assert verdict.maps is not None
        margin = cv2.dilate(counted.astype(np.uint8), np.ones((25, 25))).astype(bool)
        other[~margin] = rng.integers(0, 255)  # so far out that no patch that counts shows it
        assert detector.judge(other).score == pytest.approx(verdict.score, abs=1e-6)


def test_a_least_area_decides_and_small_specks_are_not_shown(opened: Open) -> None:
    small, large = (20, 16, 44, 34), (80, 64, 120, 112)
    with opened(None) as any_area, opened(Inspection(min_area_px=900.0)) as areas:
        assert any_area.judge(frame(small)).verdict == "anomalous"
        verdict = areas.judge(frame(small))
        assert verdict.verdict == "normal" and verdict.regions == () and not verdict.mask_frame.any()
        both = areas.judge(frame(small, large))
        assert both.verdict == "anomalous" and len(both.regions) == 1 and both.regions[0].area_px >= 900
        assert not both.mask_frame[:50, :60].any() and both.mask_frame[88, 100] == 255
        assert any_area.judge(frame(small, large)).mask_frame[:50, :60].any()  # control


def test_an_area_in_mm2_is_one_in_pixels_with_its_scale(opened: Open) -> None:
    image = frame((90, 60, 130, 100))
    with (
        opened(Inspection(min_area_mm2=5.0, mm_per_px=0.1)) as by_mm,
        opened(Inspection(min_area_px=500.0)) as by_px,
    ):
        one, other = by_mm.judge(image), by_px.judge(image)
        assert one.score == other.score and one.inspected is not None
        assert one.inspected.min_area_px == pytest.approx(500)


def test_of_a_score_on_patches_the_least_area_counts_in_patches(opened: Open) -> None:
    spec = Inspection(min_area_px=800.0)  # a patch has 20 by 16 pixels
    with opened(spec, postprocess=PostprocessSpec(score="patch_max", sigma=1.0)) as detector:
        assert detector.judge(frame((40, 32, 60, 48))).verdict == "normal"
        large = detector.judge(frame((40, 32, 80, 64)))
        assert large.verdict == "anomalous" and len(large.regions) == 1 and large.score is not None
        assert large.score > 0.9
        hidden = replace(detector.bundle.manifest.postprocess, sigma=16.0)  # no pixel of the map reaches it
    with opened(spec, postprocess=hidden) as detector:
        (region,) = detector.judge(frame((40, 32, 80, 64))).regions
        assert region.box_xyxy == (40, 32, 80, 64) and region.area_px == 40 * 32


def scene(dx: int = 0, dy: int = 0, spot: tuple[int, int] | None = None) -> np.ndarray:
    """A part of texture on a plain ground, moved as a whole, and a bright spot on the part."""
    image = np.full((*HW, 3), 40, np.uint8)
    part = np.random.default_rng(1).integers(30, 90, (60, 80, 3), dtype=np.uint8)
    if spot is not None:
        part[spot[1] : spot[1] + 18, spot[0] : spot[0] + 18] = 250
    image[34 + dy : 94 + dy, 40 + dx : 120 + dx] = part
    return image


def template_of(image: np.ndarray) -> bytes:
    left, top, right, bottom = TEMPLATE_BOX
    return png(image[top:bottom, left:right][..., ::-1])


ALIGN = Alignment(TEMPLATE_FILE, TEMPLATE_BOX[:2], reach_px=32)
PART = ((40.0, 34.0), (120.0, 34.0), (120.0, 94.0), (40.0, 94.0))


LOCAL = PostprocessSpec(resize="nearest", smoothing="none")
"""Without smoothing, what has moved out of the frame changes nothing that is still in it."""


@pytest.mark.parametrize(
    ("spec", "postprocess", "reach"),
    [
        (Inspection(align=ALIGN), LOCAL, 20),
        (Inspection(roi=(40, 34, 120, 94), align=ALIGN), PostprocessSpec(sigma=1.0), 30),
        (Inspection(roi=(30, 30, 130, 98), polygons=(PART,), min_area_px=50.0, align=ALIGN), PostprocessSpec(), 30),
    ],
)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(dx=st.integers(-30, 30), dy=st.integers(-30, 30), spot=st.sampled_from([None, (2, 2), (62, 40), (2, 41)]))
def test_a_part_that_moved_gets_the_verdict_that_it_had(
    opened: Open,
    spec: Inspection,
    postprocess: PostprocessSpec,
    reach: int,
    dx: int,
    dy: int,
    spot: tuple[int, int] | None,
) -> None:
    dx, dy = dx * reach // 30, dy * reach // 30
    with opened(spec, {TEMPLATE_FILE: template_of(scene())}, postprocess=postprocess) as detector:
        still, moved = detector.judge(scene(0, 0, spot)), detector.judge(scene(dx, dy, spot))
    assert still.status == moved.status == "ok" and still.inspected is not None and moved.inspected is not None
    aligned = moved.inspected.aligned
    assert aligned is not None and (aligned.dx, aligned.dy) == (dx, dy) and aligned.match > 0.5
    assert (moved.score, moved.verdict) == (still.score, still.verdict)
    assert moved.verdict == ("normal" if spot is None else "anomalous")
    for one, other in zip(still.regions, moved.regions, strict=True):
        assert other.peak_xy == (one.peak_xy[0] + dx, one.peak_xy[1] + dy)
        assert other.peak_score == one.peak_score and other.area_px == one.area_px
        if spec.roi is not None:
            expected = tuple(edge + (dx, dy)[index % 2] for index, edge in enumerate(one.box_xyxy))
            assert other.box_xyxy == expected
    inner = np.s_[34:94, 40:120]
    again = np.s_[34 + dy : 94 + dy, 40 + dx : 120 + dx]
    np.testing.assert_allclose(still.anomaly_map_frame[inner], moved.anomaly_map_frame[again], atol=1e-6)
    if spec.roi is not None:
        np.testing.assert_array_equal(still.mask_frame[inner], moved.mask_frame[again])
    if spec.polygons:
        assert moved.inspected.polygons[0][0] == (40 + dx, 34 + dy)


def test_a_part_that_is_not_there_is_unusable(opened: Open) -> None:
    with opened(Inspection(align=ALIGN), {TEMPLATE_FILE: template_of(scene())}) as detector:
        empty = np.random.default_rng(9).integers(30, 90, (*HW, 3), dtype=np.uint8)
        verdict = detector.judge(empty)
        assert verdict.status == "unusable" and verdict.score is None and verdict.reason is not None
        assert "the part is not found: its template matches 0." in verdict.reason and "at least 0.7" in verdict.reason


def test_a_part_that_left_the_frame_is_unusable(opened: Open) -> None:
    spec = Inspection(roi=(40, 34, 120, 94), align=replace(ALIGN, reach_px=60))
    image = np.roll(scene(30), 15, axis=1)  # the part's last columns come in on the other side
    with opened(spec, {TEMPLATE_FILE: template_of(scene())}) as detector:
        verdict = detector.judge(image)
        assert verdict.status == "unusable" and verdict.reason is not None
        assert "partly outside of the 160x128 frame" in verdict.reason and "x 85 to 165" in verdict.reason


def test_a_part_of_which_nothing_is_left_in_the_frame_is_unusable(opened: Open) -> None:
    """The box of a corner, with a polygon in it, has gone as a whole; the template has not."""
    corner = ((150.0, 118.0), (158.0, 118.0), (158.0, 126.0), (150.0, 126.0))
    spec = Inspection(roi=(148, 116, 160, 128), polygons=(corner,), align=replace(ALIGN, reach_px=60))
    with opened(spec, {TEMPLATE_FILE: template_of(scene())}) as detector:
        verdict = detector.judge(scene(30, 20))
    assert verdict.status == "unusable" and verdict.reason is not None and "partly outside" in verdict.reason
    assert verdict.inspected is not None and verdict.inspected.aligned is not None
    assert verdict.inspected.ignored_share is not None and 0 <= verdict.inspected.ignored_share < 1


BEYOND = ((0.0, 0.0), (161.0, 0.0), (0.0, 9.0))
OTHER_SIZE, ALL_WHITE = (png(np.full(hw, 9, np.uint8)) for hw in ((64, 64), HW))


@pytest.mark.parametrize(
    ("spec", "ignore", "words"),
    [
        (
            Inspection(polygons=(LEFT, BEYOND)),
            None,
            r"polygon 2 of 2 reaches to x 161, y 9, outside of the 160x128",
        ),
        (Inspection(ignore=IGNORE_FILE), OTHER_SIZE, r"ignore mask .* is 64x64, the frame 160x128 pixels"),
        (Inspection(ignore=IGNORE_FILE), ALL_WHITE, "leave no pixel"),
        (Inspection(min_area_px=1e5), None, "nothing that is inspected has so much"),
        (
            Inspection(roi=(0, 0, 161, 9)),
            None,
            r"region of interest \[0, 0, 161, 9\] .* lies outside of the 160x128",
        ),
    ],
)
def test_what_a_frame_does_not_hold_is_refused(
    opened: Open, spec: Inspection, ignore: bytes | None, words: str
) -> None:
    files = {} if ignore is None else {IGNORE_FILE: ignore}
    with opened(spec, files) as detector, pytest.raises(ImageError, match=words):
        detector.judge(frame())


@pytest.mark.parametrize(
    ("postprocess", "spec", "words"),
    [
        (PostprocessSpec(score="family", score_range=(0.0, None)), Inspection(polygons=(LEFT,)), "polygons: the score"),
        (
            PostprocessSpec(score="family", score_range=(0.0, None)),
            Inspection(min_area_px=9.0),
            "min_area_px: the scor",
        ),
        (PostprocessSpec(score="top_mean", top_pixels=5), Inspection(min_area_px=9.0), "mean of some pixels"),
    ],
)
def test_a_score_that_cannot_be_masked_is_refused_when_it_is_opened(
    opened: Open, postprocess: PostprocessSpec, spec: Inspection, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Inspector(spec).check(postprocess)
    with pytest.raises(BundleError, match=words), opened(spec, postprocess=postprocess):
        pass
    with opened(Inspection(roi=(0, 0, 80, 64)), postprocess=postprocess) as detector:  # what is cut is no matter
        assert detector.judge(frame()).status == "ok"


def test_a_score_of_no_map_cannot_leave_out_what_lies_beyond_the_frame(opened: Open) -> None:
    of_no_map = PostprocessSpec(score="family", score_range=(0.0, None))
    files = {TEMPLATE_FILE: template_of(scene())}
    with (
        pytest.raises(BundleError, match="align: the score"),
        opened(Inspection(align=ALIGN), files, postprocess=of_no_map),
    ):
        pass
    with opened(Inspection(roi=(40, 34, 120, 94), align=ALIGN), files, postprocess=of_no_map) as detector:
        assert detector.judge(scene(3)).status == "ok"


def test_a_damaged_picture_in_a_bundle_is_the_bundles_fault(opened: Open) -> None:
    damaged = opened(Inspection(ignore=IGNORE_FILE), {IGNORE_FILE: b"no picture"})
    with pytest.raises(BundleError, match="write its inspection again"), damaged:
        pass


def test_a_file_that_the_bundle_does_not_list_is_refused(fake_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"'elsewhere\.png' has no checksum"):
        fake_bundle(tmp_path / "b.edgead", inspection=Inspection(ignore="elsewhere.png"))


def test_the_record_says_what_was_inspected(opened: Open) -> None:
    spec = Inspection(polygons=(PART,), min_area_px=50.0, align=ALIGN)
    with opened(spec, {TEMPLATE_FILE: template_of(scene())}) as detector:
        verdict = detector.judge(scene(3, -2))
    assert verdict.inspected is not None
    entries = verdict.inspected.entries()
    assert list(entries) == ["polygons", "ignored_share", "min_area_px", "aligned"]
    assert entries["aligned"]["dx"] == 3 and entries["polygons"][0][0] == [43.0, 32.0]
    known = record_schema()["$defs"]["record"]["properties"]
    for key, value in entries.items():
        jsonschema.validate(value, known[key])
    with opened(None) as detector:
        assert detector.judge(scene()).inspected is None


def test_a_camera_without_an_inspection_is_as_before(opened: Open) -> None:
    with opened(None) as detector, opened(Inspection(roi=(10, 10, 90, 90))) as boxed:
        assert inspector_of(detector.bundle).spec.is_everything
        one, other = detector.judge(frame(LEFT_SPOT), roi=(10, 10, 90, 90)), boxed.judge(frame(LEFT_SPOT))
        assert (one.score, one.regions, one.inspected_box) == (other.score, other.regions, other.inspected_box)
        assert other.inspected is None
