"""Collecting answers and truths with a judge whose scores are known: the maximum of the red channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as oracle

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.calibration.agreement.answers import Answers, collect, pairs_of
from edge_ad.calibration.agreement.compute import agreement
from edge_ad.calibration.agreement.truths import read_truths
from edge_ad.calibration.evaluation.evaluate import Judge, judge_images
from edge_ad.calibration.evaluation.figures import measure
from edge_ad.datasets import Sample
from edge_ad.errors import EngineError, ImageError, SourceError
from edge_ad.image.frame import ImageArray
from edge_ad.image.preprocess import Preprocessor
from edge_ad.record.verdict import Maps, Verdict

AnswersMaker = Callable[..., Answers]
LETTERBOX = PreprocessSpec(16, 16, "letterbox", pad_rgb=(255, 255, 255))
CROP = PreprocessSpec(16, 16, "shorter_side_crop", resize=20)


def judge_with(spec: PreprocessSpec, gain: float = 1.0, kept: list[Verdict] | None = None) -> Judge:
    preprocess = Preprocessor(spec, threads=1)

    def judge(image: ImageArray) -> Verdict:
        if not image.any():
            return Verdict("unusable", reason="black")
        prepared = preprocess(image)
        red = prepared.image_hwc[:, :, 0].astype(np.float32) / np.float32(255) * np.float32(gain)
        x_min, y_min, x_max, y_max = prepared.geometry.content_box
        maps = Maps(red[::4, ::4].copy(), red, prepared.geometry, PostprocessSpec(), None)
        score = float(red[y_min:y_max, x_min:x_max].max())
        verdict = Verdict("ok", score=score, maps=maps, timings_ms={"preprocess": 1.0, "infer": 7.5})
        if kept is not None:
            kept.append(verdict)
        return verdict

    return judge


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """24×32 noise: 3 good images, 3 dents with masks, 2 stains without."""
    rng = np.random.default_rng(5)
    found = []
    for kind, count in (("good", 3), ("dent", 3), ("stain", 2)):
        (tmp_path / "test" / kind).mkdir(parents=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        for index in range(count):
            picture = rng.integers(1, 160, (24, 32, 3), dtype=np.uint8)
            mask = np.zeros((24, 32), np.uint8)
            if kind != "good":
                mask[6 : 14 + index, 8:20] = 255
                picture[mask > 0] = rng.integers(80, 250, (int((mask > 0).sum()), 3), dtype=np.uint8)
            image = tmp_path / "test" / kind / f"{index}.png"
            Image.fromarray(picture).save(image)
            truth = tmp_path / "masks" / f"{index}.png" if kind == "dent" else None
            if truth is not None:
                Image.fromarray(mask).save(truth)
            found.append(Sample(image, kind, truth))
    return found


def test_answers_are_what_the_judge_said_without_padding(samples: list[Sample]) -> None:
    verdicts: list[Verdict] = []
    answers = collect(samples, judge_with(LETTERBOX, kept=verdicts))
    assert answers.names[0] == "good/0.png" and answers.names[-1] == "stain/1.png"
    assert (answers.samples, answers.lost) == (tuple(samples), ())
    for answer, verdict in zip(answers.answers, verdicts, strict=True):
        assert answer is not None and verdict.maps is not None
        assert (answer.score, answer.infer_ms) == (verdict.score, 7.5)
        # A 24×32 frame in a 16×16 letterbox fills rows 2 to 13; the padding is white and would be the maximum.
        assert np.array_equal(answer.anomaly_map, verdict.maps.anomaly_map[2:14])
        assert verdict.maps.anomaly_map.max() == 1 > answer.anomaly_map.max()
        assert answer.anomaly_map.dtype == np.float32
        assert answer.anomaly_map.base is None  # nothing of the engine's memory is held


def test_images_that_cannot_be_judged_are_lost_with_a_reason(samples: list[Sample]) -> None:
    samples[1].image.write_bytes(b"no picture")
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(samples[4].image)
    answers = collect(samples, judge_with(CROP))
    assert [(lost.name, lost.status) for lost in answers.lost] == [("good/1.png", "error"), ("dent/1.png", "unusable")]
    assert "1.png" in answers.lost[0].reason and answers.lost[1].reason == "black"
    assert [answer is None for answer in answers.answers] == [index in (1, 4) for index in range(8)]


def test_a_judge_that_refuses_an_image_loses_only_that_one(samples: list[Sample]) -> None:
    inner, calls = judge_with(CROP), []

    def judge(image: ImageArray) -> Verdict:
        calls.append(image)
        if len(calls) == 2:
            raise ImageError("too small")
        return replace(inner(image), maps=None) if len(calls) == 3 else inner(image)

    answers = collect(samples, judge)
    assert [lost.reason for lost in answers.lost] == ["too small", "it was scored without an anomaly map"]
    assert sum(answer is not None for answer in answers.answers) == 6


@pytest.mark.parametrize("fault", ["engine", "score", "map"])
def test_a_broken_engine_ends_it(samples: list[Sample], fault: str) -> None:
    def judge(image: ImageArray) -> Verdict:
        verdict = judge_with(CROP)(image)
        assert verdict.maps is not None
        if fault == "engine":
            raise EngineError("gone")
        if fault == "score":
            return replace(verdict, score=math.nan)
        verdict.maps.anomaly_map[0, 0] = math.inf
        return verdict

    with pytest.raises(EngineError, match="gone" if fault == "engine" else "wanted finite scores"):
        collect(samples, judge)


def test_progress_sees_every_image(samples: list[Sample]) -> None:
    seen: list[Sample] = []

    def watch(given: Iterable[Sample]) -> Iterable[Sample]:
        for sample in given:
            seen.append(sample)
            yield sample

    collect(samples, judge_with(CROP), watch)
    assert seen == samples


def test_nothing_in_common_is_said(make_answers: AnswersMaker) -> None:
    with pytest.raises(SourceError, match=r"none of 0 images was judged by both models; name"):
        pairs_of(collect([], judge_with(CROP)), collect([], judge_with(CROP)))
    with pytest.raises(SourceError, match=r"none of 2 images .* \(good/1\.png: torn\)"):
        pairs_of(make_answers([0.5, None]), make_answers([None, 0.5]))
    with pytest.raises(ValueError, match="the same images"):
        pairs_of(make_answers([0.5]), make_answers([0.5], ["dent"]))


@pytest.mark.parametrize("spec", [LETTERBOX, CROP], ids=["letterbox", "crop"])
def test_pixel_auroc_is_that_of_eval_and_of_scikit_learn(samples: list[Sample], spec: PreprocessSpec) -> None:
    judges = [judge_with(spec), judge_with(spec, gain=-0.5)]
    reference, candidate = (collect(samples, judge) for judge in judges)
    truths = read_truths(samples, spec)
    assert sorted(truths.masks) == [3, 4, 5]
    found = agreement(
        reference, candidate, labelled=True, threshold=0.5, threshold_of="given", noise=None, truths=truths
    ).pixel_auroc
    assert found is not None
    known = [pair for pair in pairs_of(reference, candidate) if pair.sample.defect != "stain"]
    truth = np.concatenate([np.ravel(truths.of(pair)) for pair in known])  # type: ignore[arg-type]
    for value, model in ((found.reference, "reference"), (found.candidate, "candidate")):
        pixels = np.concatenate([getattr(pair, model).anomaly_map.ravel() for pair in known])
        assert value == pytest.approx(oracle.roc_auc_score(truth, pixels), abs=1e-9)
    evaluated = measure(judge_images(samples, judges[0], spec), {"given": 0.5}).pixels
    assert evaluated.auroc == found.reference
    assert found.pairs == evaluated.good_pixels * evaluated.defective_pixels
    assert found.candidate == pytest.approx(1 - found.reference, abs=1e-9)
    assert found.swapped == pytest.approx((2 * found.reference - 1) * found.pairs, abs=0.51)
    assert (found.disordered, found.interval, found.confidence) == (None, None, None)


def test_a_mask_that_covers_nearly_everything_is_noted(samples: list[Sample]) -> None:
    assert read_truths(samples, CROP).notes == ()
    mask = samples[4].mask
    assert mask is not None
    with Image.open(mask) as picture:
        Image.new("L", picture.size, 255).save(mask)
    (note,) = read_truths(samples, CROP).notes
    assert note.startswith("1 masks cover nearly all of their picture") and str(mask) in note


def test_truths_of_what_cannot_be_read(samples: list[Sample], tmp_path: Path) -> None:
    samples[3].image.write_bytes(b"no picture")
    assert sorted(read_truths(samples, CROP).masks) == [4, 5]
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "masks" / "1.png")
    with pytest.raises(ImageError, match="30×20"):
        read_truths(samples, CROP)


@pytest.mark.parametrize("case", ["no truths", "no masks", "not labelled"])
def test_without_masks_there_is_no_pixel_auroc(samples: list[Sample], case: str) -> None:
    bare = [replace(sample, mask=None) for sample in samples]
    answers = collect(bare, judge_with(CROP))
    truths = read_truths(samples if case == "not labelled" else bare, CROP)
    found = agreement(
        answers,
        answers,
        labelled=case != "not labelled",
        threshold=0.5,
        threshold_of="given",
        noise=None,
        truths=None if case == "no truths" else truths,
    )
    assert found.pixel_auroc is None
    assert (found.auroc is None) == (case == "not labelled")
