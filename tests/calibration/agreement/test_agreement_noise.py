"""The score noise: how pixels are changed, which images are tried, and what comes out for a judge that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.calibration.agreement.answers import collect
from edge_ad.calibration.agreement.noise import evenly, measure_noise, with_noise
from edge_ad.calibration.evaluation.evaluate import Judge
from edge_ad.datasets import Sample
from edge_ad.errors import ImageError
from edge_ad.image.frame import ImageArray
from edge_ad.image.geometry import place
from edge_ad.record.verdict import Maps, Verdict

SPEC = PreprocessSpec(4, 4, "stretch")


def mean_judge(seen: list[ImageArray] | None = None) -> Judge:
    """Scores an image by its mean grey level."""

    def judge(image: ImageArray) -> Verdict:
        if seen is not None:
            seen.append(image)
        blank = np.zeros((4, 4), np.float32)
        maps = Maps(blank, blank, place(SPEC, (image.shape[0], image.shape[1])), PostprocessSpec(), None)
        return Verdict("ok", score=float(image.mean()), maps=maps)

    return judge


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """20 pictures of 6×5."""
    rng = np.random.default_rng(8)
    found = []
    for index in range(20):
        Image.fromarray(rng.integers(20, 230, (5, 6, 3), dtype=np.uint8)).save(tmp_path / f"{index:02}.png")
        found.append(Sample(tmp_path / f"{index:02}.png", "good"))
    return found


def test_noise_is_uniform_clipped_and_of_the_frame() -> None:
    rng = np.random.default_rng(0)
    grey = np.full((200, 300, 3), 128, np.uint8)
    change = with_noise(grey, 2, rng).astype(int) - 128
    values, counts = np.unique(change, return_counts=True)
    assert values.tolist() == [-2, -1, 0, 1, 2]
    # 180,000 draws of 5 values: 36,000 each, with a standard deviation of 170.
    assert np.abs(counts - 36_000).max() < 5 * 170
    assert change.std() == pytest.approx(np.sqrt(2), abs=0.01)
    dark, bright = (with_noise(np.full((40, 40, 3), level, np.uint8), 2, rng) for level in (0, 255))
    assert (dark.max(), bright.min(), dark.dtype) == (2, 253, np.uint8)
    assert np.array_equal(with_noise(grey, 0, rng), grey)
    assert (grey == 128).all()


def test_the_quantile_of_score_changes(samples: list[Sample]) -> None:
    seen: list[ImageArray] = []
    answers = collect(samples, mean_judge())
    noise = measure_noise(samples, mean_judge(seen), answers, seed=3)
    assert (noise.grey_levels, noise.images, len(seen)) == (2, 20, 20)
    changes = []
    for sample, image in zip(samples, seen, strict=True):
        original = np.array(Image.open(sample.image))
        assert image.shape == (5, 6, 3)
        assert 0 < np.abs(image.astype(int) - original).max() <= 2
        changes.append(abs(float(image.mean()) - float(original.mean())))
    assert noise.value == pytest.approx(np.quantile(changes, 0.95), abs=1e-12)
    # The mean of 90 values of deviation √2 has one of 0.15; the 95 % quantile of its size is near 0.29.
    assert 0.1 < noise.value < 0.5


def test_more_grey_levels_move_scores_further_and_none_not_at_all(samples: list[Sample]) -> None:
    answers = collect(samples, mean_judge())
    values = [measure_noise(samples, mean_judge(), answers, grey_levels=levels).value for levels in (0, 2, 8)]
    assert values[0] == 0 < values[1] < values[2] / 2


def test_each_image_has_noise_of_its_own_that_only_the_seed_changes(samples: list[Sample]) -> None:
    answers = collect(samples, mean_judge())
    drawn: list[list[ImageArray]] = [[], [], [], []]
    for seen, (seed, limit) in zip(drawn, ((3, 100), (3, 100), (4, 100), (3, 2)), strict=True):
        measure_noise(samples, mean_judge(seen), answers, seed=seed, limit=limit)
    first, again, other, few = drawn
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert np.array_equal(few[0], first[0]) and np.array_equal(few[1], first[19])
    changes = [seen - np.array(Image.open(s.image)) for seen, s in zip(first, samples, strict=True)]
    assert not np.array_equal(changes[0], changes[1])


def test_what_was_not_judged_before_or_not_now_is_left_out(samples: list[Sample]) -> None:
    samples[4].image.write_bytes(b"no picture")
    answers = collect(samples, mean_judge())
    assert measure_noise(samples, mean_judge(), answers).images == 19
    calls: list[ImageArray] = []

    def refusing(image: ImageArray) -> Verdict:
        if len(calls) < 3:
            calls.append(image)
            raise ImageError("no")
        return mean_judge()(image)

    assert measure_noise(samples, refusing, answers).images == 16
    nothing = collect(samples[4:5], mean_judge())
    assert measure_noise(samples[4:5], mean_judge(), nothing).images == 0
    assert measure_noise(samples[4:5], mean_judge(), nothing).value == 0


def test_progress_sees_the_images_that_are_tried(samples: list[Sample]) -> None:
    shown: list[Sample] = []
    measure_noise(
        samples, mean_judge(), collect(samples, mean_judge()), limit=3, watch=lambda given: shown.extend(given) or shown
    )
    assert shown == [samples[0], samples[10], samples[19]]


@given(st.integers(0, 400), st.integers(1, 150))
def test_places_are_evenly_spread(count: int, limit: int) -> None:
    places = evenly(count, limit)
    assert len(places) == min(count, limit)
    assert sorted(set(places)) == places
    assert all(0 <= place < count for place in places)
    steps = np.diff(places)
    assert not len(steps) or steps.max() - steps.min() <= 1
    if count and limit > 1:
        assert (places[0], places[-1]) == (0, count - 1)


@pytest.mark.parametrize("wrong", [{"grey_levels": -1}, {"grey_levels": 256}, {"limit": 0}])
def test_numbers_that_are_none(samples: list[Sample], wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"wanted 0\.\.255 grey levels"):
        measure_noise(samples, mean_judge(), collect([], mean_judge()), **wrong)  # type: ignore[arg-type]
