"""What is within the tolerances and what is not, at their very edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.calibration.agreement.answers import Answers
from edge_ad.calibration.agreement.compute import agreement
from edge_ad.calibration.agreement.figures import Agreement, Flip, RankChange, ScoreNoise
from edge_ad.calibration.agreement.tolerances import Tolerances, breaches, statements
from edge_ad.calibration.evaluation.thresholds import rate_interval
from edge_ad.errors import ConfigError
from edge_ad.validation import build, plain

AnswersMaker = Callable[..., Answers]


def flip(name: str, *, within: bool = False) -> Flip:
    return Flip(name, "good", 0.49, 0.51, within)


def ranks(swapped: float, pairs: int, reference: float = 0.9) -> RankChange:
    return RankChange(reference, reference - swapped / pairs, pairs, swapped, None, (-0.01, 0.02), 0.95)


def found(images: int = 46, **figures: Any) -> Agreement:
    """An agreement without any fault but those that are named."""
    flips = figures.get("flips", ())
    beyond = sum(not one.within_noise for one in flips)
    base = Agreement(
        images=images,
        good=images // 2,
        defective=images - images // 2,
        lost=(),
        map_error_max=0.01,
        map_error_mean=0.001,
        map_correlation=0.99,
        score_error_max=0.01,
        score_error_mean=0.001,
        score_bias=0.0,
        score_correlation=0.99,
        rank_correlation=0.99,
        threshold=0.5,
        threshold_of="given",
        flips=(),
        flip_interval=rate_interval(beyond, images),
        confidence=0.95,
        noise=ScoreNoise(0.004, 2, 46),
        auroc=ranks(0, 460),
        pixel_auroc=RankChange(0.95, 0.95, 10**9, 0, None, None, None),
        reference_ms=10.0,
        candidate_ms=4.0,
    )
    return replace(base, **figures)


def broken(agreed: Agreement, **tolerances: float) -> list[str]:
    return [breach.key for breach in breaches(agreed, Tolerances(**tolerances))]


def test_an_agreement_within_everything() -> None:
    assert broken(found()) == []
    checks = statements(found(), Tolerances())
    assert [check.key for check in checks] == ["lost", "flips", "auroc_drop", "pixel_auroc_drop", "map_correlation"]
    assert all(check.ok for check in checks)


@pytest.mark.parametrize(("images", "flips", "share", "ok"), [
    (46, 0, 0.002, True),
    (46, 1, 0.002, False),
    (499, 1, 0.002, False),
    (500, 1, 0.002, True),
    (500, 2, 0.002, False),
    (100, 29, 0.29, True),  # 0.29 · 100 is 28.999999999999996
    (100, 30, 0.29, False),
    (3, 3, 1.0, True),
])  # fmt: skip
def test_flips_are_counted_in_whole_images(images: int, flips: int, share: float, ok: bool) -> None:
    agreed = found(images, flips=tuple(flip(f"{index}.png") for index in range(flips)))
    assert broken(agreed, flips=share) == ([] if ok else ["flips"])


def test_flips_within_the_noise_count_nothing() -> None:
    many = found(flips=tuple(flip(f"{index}.png", within=True) for index in range(9)))
    assert broken(many, flips=0) == []
    text = next(check.figure for check in statements(many, Tolerances()) if check.key == "flips")
    assert "0 of 46 images" in text and "(9 within it)" in text


def test_the_line_of_a_flip() -> None:
    names = [f"dent/{index}.png" for index in range(5)]
    (breach,) = breaches(found(flips=(*map(flip, names), flip("x.png", within=True))), Tolerances())
    assert breach.text == (
        "label flips: 5 of 46 images change their label beyond the score noise of 0.004 (1 within it): 10.9%,"
        " 95% interval 3.62% to 23.6% (dent/0.png, dent/1.png, dent/2.png, ...);"
        " allowed: 0.2%, which is 0 of 46 images"
    )
    (breach,) = breaches(found(noise=None, flips=(flip("x.png"),)), Tolerances())
    assert breach.text.startswith("label flips: 1 of 46 images change their label: 2.17%,")


@pytest.mark.parametrize(("swapped", "pairs", "ok"), [
    (1, 460, True),  # less than a pair cannot be seen
    (1.5, 460, False),
    (2, 460, False),
    (2, 1000, True),
    (2.5, 1000, False),
    (3, 1500, True),  # 0.002 · 1500 is 3 and not a little less
    (-400, 460, True),
])  # fmt: skip
def test_auroc_is_counted_in_swapped_pairs(swapped: float, pairs: int, ok: bool) -> None:
    assert broken(found(auroc=ranks(swapped, pairs))) == ([] if ok else ["auroc_drop"])


def test_the_line_of_an_auroc() -> None:
    (breach,) = breaches(found(auroc=ranks(2, 460)), Tolerances())
    assert breach.text == (
        "image AUROC: 0.9000 to 0.8957, -0.0043 (2 net swapped of 460 pairs, 95% interval -0.0100 to +0.0200);"
        " allowed: a drop of 0.002, which is 1 swapped pair of 460, the least that can be seen"
    )
    better = next(c for c in statements(found(auroc=ranks(-3, 2000)), Tolerances()) if c.key == "auroc_drop")
    assert better.figure.startswith("0.9000 to 0.9015, +0.0015 (3 net put right of 2000 pairs")
    assert better.allowed == "a drop of 0.002, which is 4 swapped pairs of 2000"


def test_pixel_auroc() -> None:
    for drop, ok in ((0.0049, True), (0.0051, False), (-0.2, True)):
        change = RankChange(0.75, 0.75 - drop, 10**9, drop * 10**9, None, None, None)
        assert broken(found(pixel_auroc=change)) == ([] if ok else ["pixel_auroc_drop"])
        assert broken(found(pixel_auroc=change), pixel_auroc_drop=1) == []
    (breach,) = breaches(found(pixel_auroc=RankChange(0.95, 0.94, 10**9, 1e7, None, None, None)), Tolerances())
    assert breach.text == "pixel AUROC: 0.9500 to 0.9400, -0.0100; allowed: a drop of 0.005"


def test_without_labels_or_masks_there_is_no_such_check() -> None:
    checks = statements(found(auroc=None, pixel_auroc=None), Tolerances())
    assert [check.key for check in checks] == ["lost", "flips", "map_correlation"]


def test_maps() -> None:
    assert broken(found(map_correlation=0.95)) == []
    (breach,) = breaches(found(map_correlation=0.9499), Tolerances())
    assert breach.text == "correlation of the maps: 0.9499 over all pixels; allowed: at least 0.95"
    # A candidate whose maps are dead is not excused by a correlation that is not defined.
    assert broken(found(map_correlation=None)) == ["map_correlation"]
    assert broken(found(map_correlation=None), map_correlation=-1) == []
    assert broken(found(map_correlation=None, map_error_max=0.0), map_correlation=1) == []


def test_an_image_that_only_the_candidate_lost(make_answers: AnswersMaker) -> None:
    def compared(reference: Answers, candidate: Answers) -> Agreement:
        return agreement(reference, candidate, labelled=True, threshold=0.5, threshold_of="given", noise=None)

    whole, torn = make_answers([0.1, 0.2, 0.3]), make_answers([0.1, None, 0.3])
    (breach,) = breaches(compared(whole, torn), Tolerances())
    assert breach.key == "lost"
    assert breach.text == (
        "lost images: 1 that the reference judged and the candidate did not (good/1.png); allowed: none"
    )
    assert breaches(compared(torn, whole), Tolerances()) == ()
    assert breaches(compared(torn, torn), Tolerances()) == ()


@given(st.integers(0, 2**32 - 1))
def test_a_candidate_that_ranks_better_never_breaches(make_answers: AnswersMaker, seed: int) -> None:
    rng = np.random.default_rng(seed)
    defects = ["good"] * 12 + ["dent"] * 9
    good, defective = rng.random(12) * 0.9, rng.random(9)
    better = np.concatenate([good, defective + rng.random(9) * 0.1])
    maps = rng.random((21, 4, 4))
    agreed = agreement(
        make_answers(np.concatenate([good, defective]), defects, maps),
        make_answers(better, defects, maps),
        labelled=True,
        threshold=2.0,
        threshold_of="given",
        noise=None,
    )
    assert broken(agreed, flips=0, auroc_drop=0, pixel_auroc_drop=0, map_correlation=1) == []


@given(st.integers(0, 2**32 - 1))
def test_breaches_are_the_statements_that_do_not_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    agreed = found(
        flips=tuple(flip(str(index), within=bool(rng.integers(2))) for index in range(rng.integers(4))),
        auroc=ranks(float(rng.integers(-3, 4)) / 2, 460),
        map_correlation=float(rng.uniform(0.9, 1)),
        dropped=("a.png",) * int(rng.integers(2)),
    )
    checks = statements(agreed, Tolerances())
    failed = [check for check in checks if not check.ok]
    assert [(breach.key, breach.text) for breach in breaches(agreed, Tolerances())] == [
        (check.key, f"{check.name}: {check.figure}; allowed: {check.allowed}") for check in failed
    ]
    assert all("\n" not in check.figure + check.allowed for check in checks)


def test_a_section_of_yaml() -> None:
    given = {"flips": 0.01, "map_correlation": -0.5}
    assert build(Tolerances, given, "gate") == Tolerances(flips=0.01, map_correlation=-0.5)
    assert plain(Tolerances()) == {
        "flips": 0.002, "auroc_drop": 0.002, "pixel_auroc_drop": 0.005, "map_correlation": 0.95
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        build(
            Tolerances,
            {"flips": 2, "auroc_drop": -0.1, "pixel_auroc_drop": math.nan, "map_correlation": -1.5, "flip": 1},
            "gate",
        )
    assert sorted(caught.value.faults) == [
        "auroc_drop: wanted a number of at least 0, got -0.1",
        "flip: unknown key",
        "flips: wanted a number of at most 1, got 2",
        "map_correlation: wanted a number of at least -1, got -1.5",
        "pixel_auroc_drop: wanted a finite number, got nan",
    ]


@pytest.mark.parametrize("key", ["flips", "auroc_drop", "pixel_auroc_drop", "map_correlation"])
@pytest.mark.parametrize("value", [-1.01, 1.01, math.nan])
def test_in_python_too(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: wanted a number from"):
        Tolerances(**{key: value})
