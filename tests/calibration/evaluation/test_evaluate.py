"""Judging and measuring labelled images with a judge whose scores are known: the maximum of the red channel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn import metrics as oracle

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.calibration.evaluation.evaluate import ImageResult, Judged, judge_images, names_of
from edge_ad.calibration.evaluation.figures import measure
from edge_ad.datasets import Dataset, Sample, model_mask, open_dataset, read_mask
from edge_ad.errors import EngineError, ImageError, SourceError
from edge_ad.image.frame import ImageArray
from edge_ad.image.preprocess import Preprocessor
from edge_ad.metrics.localization import pixel_metrics
from edge_ad.record.verdict import Maps, Verdict

SPEC = PreprocessSpec(16, 16, "stretch")
LETTERBOX = PreprocessSpec(16, 16, "letterbox")


def judge_with(spec: PreprocessSpec) -> Callable[[ImageArray], Verdict]:
    preprocess = Preprocessor(spec, threads=1)

    def judge(image: ImageArray) -> Verdict:
        if not image.any():
            return Verdict("unusable", reason="black")
        prepared = preprocess(image)
        red: NDArray[np.float32] = prepared.image_hwc[:, :, 0].astype(np.float32) / 255
        x_min, y_min, x_max, y_max = prepared.geometry.content_box
        maps = Maps(red[::4, ::4].copy(), red, prepared.geometry, PostprocessSpec(), None)
        return Verdict("ok", score=float(red[y_min:y_max, x_min:x_max].max()), maps=maps)

    return judge


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """MVTec layout, 24×32 pictures of dim noise: 6 good, 4 dents with masks and 4 stains without; they overlap."""
    rng = np.random.default_rng(7)
    levels = {"good": (40, 60, 80, 100, 120, 140), "dent": (90, 130, 170, 210), "stain": (50, 150, 180, 190)}
    for kind, values in levels.items():
        (tmp_path / "test" / kind).mkdir(parents=True)
        for index, level in enumerate(values):
            picture = rng.integers(0, 30, (24, 32, 3), dtype=np.uint8)
            picture[8:16, 8:24] = level
            Image.fromarray(picture).save(tmp_path / "test" / kind / f"{index}.png")
            if kind == "dent":
                mask = np.zeros((24, 32), np.uint8)
                mask[8:16, 8:24] = 255
                (tmp_path / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(tmp_path / "ground_truth" / kind / f"{index}_mask.png")
    (tmp_path / "train" / "good").mkdir(parents=True)
    Image.fromarray(np.full((24, 32, 3), 9, np.uint8)).save(tmp_path / "train" / "good" / "0.png")
    return open_dataset(tmp_path)


def judged(data: Dataset, spec: PreprocessSpec = SPEC, **options: object) -> Judged:
    return judge_images(data.test, judge_with(spec), spec, **options)  # type: ignore[arg-type]


def scored(results: tuple[ImageResult, ...]) -> tuple[list[bool], list[float]]:
    pairs = [(r.sample.anomalous, r.score) for r in results if r.score is not None]
    return [truth for truth, _ in pairs], [score for _, score in pairs]


def test_figures_of_scores_agree_with_scikit_learn(data: Dataset) -> None:
    figures = measure(judged(data), {"bundle": 0.4})
    truth, scores = scored(figures.results)
    assert len(scores) == 14
    assert figures.auroc == pytest.approx(oracle.roc_auc_score(truth, scores), abs=1e-6)
    assert figures.average_precision == pytest.approx(oracle.average_precision_score(truth, scores), abs=1e-6)
    done = figures.operations["bundle"]
    called = [score >= 0.4 for score in scores]
    assert (done.false_alarms, done.misses) == (2, 2)
    assert done.f1 == pytest.approx(oracle.f1_score(truth, called), abs=1e-6)
    assert done.accuracy == pytest.approx(oracle.accuracy_score(truth, called), abs=1e-6)
    best = figures.operations["best_f1"]
    assert best.f1 == max(oracle.f1_score(truth, np.array(scores) >= level) for level in scores)
    assert (figures.in_use, figures.threshold) == ("bundle", 0.4)


def test_each_kind_is_measured_against_the_good_images(data: Dataset) -> None:
    figures = measure(judged(data), {})
    for name in ("dent", "stain"):
        one = next(found for found in figures.types if found.defect == name)
        truth, scores = scored(tuple(r for r in figures.results if r.sample.defect in ("good", name)))
        assert one.images == 4
        assert one.auroc == pytest.approx(oracle.roc_auc_score(truth, scores), abs=1e-6)
        assert one.average_precision == pytest.approx(oracle.average_precision_score(truth, scores), abs=1e-6)
        assert one.at_threshold is not None and one.at_threshold.defective == 4
        assert (one.pixels is None) == (name == "stain")
    assert figures.in_use == "best_f1"
    assert any("these very images" in note for note in figures.notes)


def test_pixels_are_those_of_images_with_a_truth(data: Dataset) -> None:
    figures = measure(judged(data), {})
    known = [sample for sample in data.test if sample.defect != "stain"]
    maps, masks = [], []
    for sample in known:
        verdict = judge_with(SPEC)(np.array(Image.open(sample.image)))
        assert verdict.maps is not None
        maps.append(verdict.maps.anomaly_map)
        masks.append(model_mask(read_mask(sample, (24, 32)), SPEC))
    truth, values = np.stack(masks).ravel(), np.stack(maps).ravel()
    assert figures.pixels == pixel_metrics(maps, masks)
    assert figures.pixels.auroc == pytest.approx(oracle.roc_auc_score(truth, values), abs=1e-6)
    assert figures.pixels.good_pixels + figures.pixels.defective_pixels == 10 * 16 * 16
    assert figures.unmasked == 4
    assert any("4 defective images have no mask" in note for note in figures.notes)


def test_padding_counts_nowhere(data: Dataset) -> None:
    """A 24×32 frame in a 16×16 letterbox fills 12 of 16 rows."""
    pixels = measure(judged(data, LETTERBOX), {}).pixels
    assert pixels.good_pixels + pixels.defective_pixels == 10 * 12 * 16


def test_without_any_mask_pixels_are_not_defined(data: Dataset) -> None:
    bare = replace(data, test=tuple(replace(sample, mask=None) for sample in data.test))
    figures = measure(judged(bare), {})
    assert (figures.pixels.auroc, figures.pixels.pro) == (None, None)
    assert figures.pixels.undefined == "no defective image has a mask"
    assert figures.auroc is not None


def test_images_that_cannot_be_judged_are_named(data: Dataset) -> None:
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(data.test[0].image)
    data.test[-1].image.write_bytes(b"no picture")
    found = judged(data)
    lost = [result for result in found.results if result.score is None]
    assert [(r.status, r.name) for r in lost] == [("unusable", names_of(data.test)[0]), ("error", "stain/3.png")]
    assert lost[0].reason == "black"
    assert "3.png" in (lost[1].reason or "")
    figures = measure(found, {})
    assert len(scored(figures.results)[0]) == 12
    assert any("2 of 14 images could not be judged" in note for note in figures.notes)


def test_the_study_reports_on_the_half_that_did_not_choose(data: Dataset) -> None:
    found = judged(data, protocol="study", seed=3)
    figures = measure(found, {"bundle": 0.4})
    assert figures.in_use == "study"
    assert {result.half for result in figures.results} == {"test"}
    validation = [result for result in found.results if result.half == "validation"]
    assert len(figures.results) == len(validation) == 7
    truth, scores = scored(tuple(validation))
    assert figures.validation is not None
    assert figures.validation.f1 == max(oracle.f1_score(truth, np.array(scores) >= level) for level in scores)
    done = figures.operations["study"]
    assert done.threshold == figures.validation.threshold
    truth, scores = scored(figures.results)
    assert done.f1 == pytest.approx(oracle.f1_score(truth, np.array(scores) >= done.threshold), abs=1e-6)
    assert figures.auroc == pytest.approx(oracle.roc_auc_score(truth, scores), abs=1e-6)
    masked = sum(r.sample.defect != "stain" for r in figures.results)
    assert figures.pixels.good_pixels + figures.pixels.defective_pixels == masked * 16 * 16


def test_a_threshold_given_comes_first(data: Dataset) -> None:
    figures = measure(judged(data), {"bundle": 0.4, "given": 0.5})
    assert list(figures.operations) == ["given", "bundle", "best_f1"]
    assert figures.threshold == 0.5


def subset(data: Dataset, *kinds: str) -> Dataset:
    return replace(data, test=tuple(sample for sample in data.test if sample.defect in kinds))


def test_without_good_images_there_is_nothing_to_measure(data: Dataset) -> None:
    with pytest.raises(SourceError, match="no good image was judged, of 0"):
        measure(judged(subset(data, "dent")), {"bundle": 0.4})


def test_good_images_alone_need_a_threshold(data: Dataset) -> None:
    found = judged(subset(data, "good"))
    with pytest.raises(SourceError, match="no defective image was judged, of 0"):
        measure(found, {})
    figures = measure(found, {"bundle": 0.4})
    assert (figures.auroc, figures.average_precision, figures.types) == (None, None, ())
    assert figures.operations["bundle"].false_alarm_rate == pytest.approx(2 / 6, abs=1e-12)
    assert any("only false alarms" in note for note in figures.notes)


def test_a_study_needs_both_kinds_in_each_half(data: Dataset) -> None:
    few = replace(data, test=tuple(s for s in data.test if s.defect == "good" or s.image.stem == "0")[:7])
    assert sum(sample.anomalous for sample in few.test) == 1
    with pytest.raises(SourceError, match="no defective image was judged"):
        measure(judged(few, protocol="study"), {})


def test_a_mask_of_another_size(data: Dataset, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "ground_truth" / "dent" / "1_mask.png")
    with pytest.raises(ImageError, match=r"1_mask\.png is 30×20, its picture .*1\.png is 32×24"):
        judged(data)


def test_a_defect_outside_of_what_the_model_sees(data: Dataset, tmp_path: Path) -> None:
    corner = np.zeros((24, 32), np.uint8)
    corner[0, 0] = 255
    Image.fromarray(corner).save(tmp_path / "ground_truth" / "dent" / "1_mask.png")
    cropped = judged(data, PreprocessSpec(16, 16))
    assert cropped.outside_masks == ("dent/1.png",) and cropped.empty_masks == ()
    figures = measure(cropped, {})
    masked = sum(sample.mask is not None for sample in data.test)
    assert figures.warning is not None
    assert figures.warning.startswith(f"1 of {masked} defective images with a mask show nothing of their defect")
    assert any("dent/1.png" in note for note in figures.notes)


def test_a_defect_that_is_too_small_for_the_grid(data: Dataset, tmp_path: Path) -> None:
    corner = np.zeros((24, 32), np.uint8)
    corner[0, 0] = 255
    Image.fromarray(corner).save(tmp_path / "ground_truth" / "dent" / "1_mask.png")
    found = judged(data)
    assert found.empty_masks == ("dent/1.png",) and found.outside_masks == ()
    figures = measure(found, {})
    assert figures.warning is None and any("too small: dent/1.png" in note for note in figures.notes)


def test_a_mask_that_covers_nearly_everything(data: Dataset, tmp_path: Path) -> None:
    inverted = np.full((24, 32), 255, np.uint8)
    inverted[5:9, 5:9] = 0
    Image.fromarray(inverted).save(tmp_path / "ground_truth" / "dent" / "1_mask.png")
    found = judged(data)
    assert found.full_masks == ("dent/1.png",)
    (note,) = (note for note in measure(found, {}).notes if "nearly all" in note)
    assert note.startswith("1 masks cover nearly all of their picture") and "dent/1.png" in note


@pytest.mark.parametrize("where", ["score", "map"])
def test_a_score_that_is_no_number(data: Dataset, where: str) -> None:
    def judge(image: ImageArray) -> Verdict:
        verdict = judge_with(SPEC)(image)
        assert verdict.maps is not None
        if where == "score":
            return replace(verdict, score=math.nan)
        verdict.maps.anomaly_map[3, 3] = math.nan
        return verdict

    with pytest.raises(EngineError, match="wanted finite scores"):
        judge_images(data.test, judge, SPEC)


def test_names_are_paths_below_what_all_have_in_common(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "1.png", tmp_path / "b" / "c" / "1.png"]
    assert names_of([Sample(path, "good") for path in paths]) == ["a/1.png", "b/c/1.png"]
    assert names_of([Sample(paths[0], "good")]) == ["1.png"]
    assert names_of([]) == []


def test_a_name_does_not_depend_on_how_the_folder_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "x" / "..", Path("x", ".."), Path()):
        samples = [Sample(folder / "a" / "1.png", "good"), Sample(folder / "b" / "1.png", "good")]
        assert names_of(samples) == ["a/1.png", "b/1.png"], folder
