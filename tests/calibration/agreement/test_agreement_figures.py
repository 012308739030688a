"""The figures of an agreement against SciPy, scikit-learn and plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edge_ad.calibration.agreement.answers import Answers
from edge_ad.calibration.agreement.compute import agreement
from edge_ad.calibration.agreement.correlation import Moments, middle_ranks, pearson, spearman
from edge_ad.calibration.agreement.figures import Agreement, ScoreNoise
from edge_ad.errors import ConfigError, SourceError

AnswersMaker = Callable[..., Answers]
LEVELS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=40)


def agreed(reference: Answers, candidate: Answers, **options: Any) -> Agreement:
    given: dict[str, Any] = {"labelled": True, "threshold": 0.5, "threshold_of": "given", "noise": None}
    return agreement(reference, candidate, **{**given, **options})


def varies(values: Any) -> bool:
    return len(set(np.ravel(values).tolist())) > 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 2**32 - 1), st.sampled_from([0, 1e3, 1e7]))
def test_streamed_moments_are_those_of_all_values_at_once(sizes: list[int], seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    first = [rng.normal(offset, 1, size) for size in sizes]
    second = [part - offset + rng.normal(0, 0.5, len(part)) for part in first]
    moments = Moments()
    for one, other in zip(first, second, strict=True):
        moments.add(one, other)
    x, y = np.concatenate(first), np.concatenate(second)
    assert moments.count == len(x)
    assert moments.error_max == np.abs(x - y).max()
    assert moments.error_mean == pytest.approx(np.abs(x - y).mean(), rel=1e-12)
    if len(x) > 2:
        assert moments.correlation == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-7)


def test_an_offset_that_one_pass_in_float64_would_lose() -> None:
    """Sums of squares of 1e9 ± 1 have lost the ± 1 (control)."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4000))
    moments = Moments()
    for part in range(0, 4000, 400):
        moments.add(1e9 + x[part : part + 400], 1e9 + y[part : part + 400])
    expected = stats.pearsonr(x, y).statistic
    assert moments.correlation == pytest.approx(expected, abs=1e-6)
    large, n = (1e9 + x, 1e9 + y), 4000
    naive = np.sum(large[0] * large[1]) - n * large[0].mean() * large[1].mean()
    assert abs(naive / n / (x.std() * y.std()) - expected) > 1e-3


@given(LEVELS)
def test_correlations_of_scores_with_ties(levels: list[tuple[int, int]]) -> None:
    x, y = np.array(levels, float).T / 8
    assert np.array_equal(middle_ranks(x), stats.rankdata(x))
    if not (varies(x) and varies(y)):
        assert (pearson(x, y), spearman(x, y)) == (None, None)
        return
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("value", [0.1, 1e-30, 3e30])
def test_what_does_not_vary_has_no_correlation(value: float) -> None:
    moments, rng = Moments(), np.random.default_rng(1)
    for _ in range(7):
        moments.add(np.full(1001, value), rng.normal(size=1001))
    assert moments.correlation is None
    moments.add([], [])
    assert moments.count == 7007
    assert Moments().correlation is None


def test_maps_and_scores(make_answers: AnswersMaker) -> None:
    rng = np.random.default_rng(3)
    maps = rng.random((30, 9, 7), dtype=np.float32)
    others = maps + rng.normal(0, 0.1, maps.shape).astype(np.float32)
    scores = rng.random(30)
    moved = scores + rng.normal(0.02, 0.05, 30)
    defects = ["good"] * 18 + ["dent"] * 12
    ours = make_answers(scores, defects, maps, ms=np.arange(30.0))
    theirs = make_answers(moved, defects, others, ms=np.arange(30.0) / 3)
    found = agreed(ours, theirs)
    x, y = maps.astype(np.float64).ravel(), others.astype(np.float64).ravel()
    assert (found.images, found.good, found.defective) == (30, 18, 12)
    assert found.map_error_max == np.abs(x - y).max()
    assert found.map_error_mean == pytest.approx(np.abs(x - y).mean(), rel=1e-12)
    assert found.map_correlation == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert found.score_error_max == np.abs(scores - moved).max()
    assert found.score_error_mean == pytest.approx(np.abs(scores - moved).mean(), rel=1e-12)
    assert found.score_bias == pytest.approx((moved - scores).mean(), abs=1e-15)
    assert found.score_correlation == pytest.approx(stats.pearsonr(scores, moved).statistic, abs=1e-12)
    assert found.rank_correlation == pytest.approx(stats.spearmanr(scores, moved).statistic, abs=1e-12)
    assert (found.reference_ms, found.candidate_ms) == (14.5, pytest.approx(14.5 / 3))
    unlabelled = agreed(ours, theirs, labelled=False)
    assert (unlabelled.good, unlabelled.defective, unlabelled.auroc) == (0, 0, None)
    assert {flip.defect for flip in unlabelled.flips} <= {None}


def test_flips_and_which_of_them_the_noise_explains(make_answers: AnswersMaker) -> None:
    defects = ["good", "good", "dent", "dent", "good"]
    ours = make_answers([0.49, 0.30, 0.51, 0.50, 0.10], defects)
    theirs = make_answers([0.50, 0.60, 0.49, 0.50, 0.49], defects)
    found = agreed(ours, theirs, noise=ScoreNoise(0.02, 2, 5))
    assert [(flip.name, flip.defect, flip.within_noise) for flip in found.flips] == [
        ("good/0.png", "good", True),
        ("good/1.png", "good", False),
        ("dent/2.png", "dent", True),
    ]
    assert (found.flips[1].reference_score, found.flips[1].candidate_score) == (0.30, 0.60)
    assert found.flips_beyond_noise == 1
    expected = stats.binomtest(1, 5).proportion_ci(0.95, "exact")
    assert found.flip_interval == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.confidence == 0.95
    # Without a measured noise every flip counts.
    assert agreed(ours, theirs).flips_beyond_noise == 3
    assert (found.threshold, found.threshold_of) == (0.5, "given")
    assert agreed(ours, theirs, threshold_of="bundle").threshold_of == "bundle"


def test_without_a_threshold_it_is_a_quantile_of_the_reference(make_answers: AnswersMaker) -> None:
    rng = np.random.default_rng(4)
    scores, defects = rng.random(40), ["good", "dent"] * 20
    ours, theirs = make_answers(scores, defects), make_answers(scores / 2, defects)
    found = agreed(ours, theirs, threshold=None)
    assert found.threshold == np.quantile(scores[::2], 0.99)
    assert found.threshold_of == "quantile"
    assert agreed(ours, theirs, threshold=None, labelled=False).threshold == np.quantile(scores, 0.99)
    bad = agreed(make_answers(scores, ["dent"] * 40), make_answers(scores, ["dent"] * 40), threshold=None)
    assert bad.threshold == np.quantile(scores, 0.99)
    # It does not hang on what a candidate lost.
    lossy = make_answers([None, *scores[1:]], defects)
    assert agreed(ours, lossy, threshold=None).threshold == found.threshold


def test_images_of_one_model_alone_count_nowhere(make_answers: AnswersMaker) -> None:
    defects = ["good", "good", "dent", "dent", "dent"]
    ours = make_answers([0.1, 0.2, None, 0.8, None], defects)
    theirs = make_answers([0.1, None, 0.1, 0.8, None], defects)
    found = agreed(ours, theirs)
    assert (found.images, found.good, found.defective) == (2, 1, 1)
    assert [lost.name for lost in found.lost] == ["good/1.png", "dent/2.png", "dent/4.png"]
    assert found.dropped == ("good/1.png",)
    assert (found.score_error_max, found.flips) == (0, ())
    with pytest.raises(SourceError, match="nothing to compare"):
        agreed(make_answers([None]), make_answers([0.3]))


def test_maps_of_another_size_are_refused(make_answers: AnswersMaker) -> None:
    with pytest.raises(ConfigError, match=r"good/0\.png: maps of the reference show 3×2 pixels, .* 2×3; compare"):
        agreed(make_answers([0.1]), make_answers([0.1], maps=[np.zeros((3, 2))]))


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize("scores", [[0.5], [0.25, 0.25], [0.5, 0.5, 0.5], [0.0, 1.0]])
def test_few_images_and_constant_answers(
    make_answers: AnswersMaker, scores: list[float], threshold: float | None, labelled: bool
) -> None:
    defects = ["good", "dent", "good"][: len(scores)]
    found = agreed(make_answers(scores, defects), make_answers(scores, defects), labelled=labelled, threshold=threshold)
    assert (found.map_correlation, found.map_error_max, found.flips) == (None, 0, ())
    assert (found.score_correlation is None) == (not varies(scores))
    assert found.score_correlation in (None, 1.0) and found.rank_correlation in (None, 1.0)
    assert (found.auroc is None) == (not labelled or len(scores) == 1)
