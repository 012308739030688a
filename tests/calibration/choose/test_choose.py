"""Which configurations are tried within a time, and which is taken."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.calibration.choose.candidates import CANDIDATES, Candidate, candidates_for
from edge_ad.calibration.choose.choose import try_all
from edge_ad.calibration.choose.defects import KINDS
from edge_ad.calibration.choose.rule import Judgement, Tried, taken, uncertainty
from edge_ad.calibration.choose.trial import MOST_HELD_OUT, write_trial
from edge_ad.datasets import open_dataset, plain_dataset, read_mask
from edge_ad.errors import ConfigError, SourceError, TrainingError
from edge_ad.models import model_family
from edge_ad.models.synthesis.textures import open_textures


def _judgements(quality: float, origins: int = 40, seed: int = 0) -> tuple[Judgement, ...]:
    """A good and a defective picture of each origin, of which a share of `quality` score higher."""
    rng = np.random.default_rng(seed)
    good = [Judgement(str(n), False, float(rng.uniform(0.4, 0.6))) for n in range(origins)]
    above = rng.permutation(origins) < round(quality * origins)
    return (*good, *(Judgement(str(n), True, 0.9 if above[n] else 0.1) for n in range(origins)))


def _tried(name: str, image: float, pixel: float | None, ms: float, origins: int = 40) -> Tried:
    return Tried(name, pixel, ms, 1.0, _judgements(image, origins))


TRIED = [_tried("bank", 0.95, 0.95, 9.0), _tried("slow", 0.975, 0.99, 40.0), _tried("poor", 0.80, 0.9, 2.0)]


def test_one_that_is_clearly_better_than_those_before_it_is_taken() -> None:
    assert taken(TRIED, None).name == "slow"
    assert taken([_tried("bank", 0.95, 0.95, 9.0), _tried("same", 0.95, 0.958, 5.0)], None).name == "bank"


def test_of_few_pictures_a_gain_that_may_be_chance_counts_nothing() -> None:
    few = [_tried("bank", 0.625, 0.92, 9.0, 8), _tried("other", 0.75, 0.92, 9.0, 8)]
    many = [_tried("bank", 0.625, 0.92, 9.0, 800), _tried("other", 0.75, 0.92, 9.0, 800)]
    assert 2 * uncertainty(few[1], few[0]) > 0.0625 > 5 * uncertainty(many[1], many[0])
    assert (taken(few, None).name, taken(many, None).name) == ("bank", "other")


def test_uncertainty_is_that_of_independent_pictures() -> None:
    """Good pictures all score alike, so an AUROC is a share of N pictures: its deviation is known in closed form."""
    rng, count = np.random.default_rng(1), 400

    def made(share: float) -> Tried:
        above = rng.random(count) < share
        good = [Judgement(str(n), False, 0.5) for n in range(count)]
        return Tried("x", None, 1.0, 1.0, (*good, *(Judgement(str(n), True, float(a)) for n, a in enumerate(above))))

    one, other = made(0.7), made(0.5)
    expected = np.sqrt((0.7 * 0.3 + 0.5 * 0.5) / count)
    assert uncertainty(one, other) == pytest.approx(expected, rel=0.15)  # 400 resamples: 3.5 % of deviation
    assert uncertainty(one, one) == 0.0


def test_a_budget_is_held() -> None:
    assert taken(TRIED, 5.0).name == "poor"
    with pytest.raises(ConfigError, match=r"in 1 ms here; the fastest, poor, takes 2\.0 ms"):
        taken(TRIED, 1.0)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.none() | st.floats(0, 1), st.floats(0.1, 100)), min_size=1, max_size=5),
    st.floats(1, 100),
)
def test_the_one_taken_holds_the_budget_and_is_no_worse_than_the_first(rows: list, budget_ms: float) -> None:
    tried = [_tried(str(number), image / 8, pixel, ms, 8) for number, (image, pixel, ms) in enumerate(rows)]
    holding = [one for one in tried if one.latency_ms <= budget_ms]
    if not holding:
        with pytest.raises(ConfigError):
            taken(tried, budget_ms)
        return
    best = taken(tried, budget_ms)
    assert best in holding and best.quality >= holding[0].quality


class _Clock:
    """A clock that attempts move on."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def attempt(self, candidate: Candidate) -> Tried:
        self.now_s += 10 * candidate.cost
        return Tried(candidate.name, None, 5.0, 10 * candidate.cost, _judgements(0.9))


def _candidates(*costs: float) -> list[Candidate]:
    return [Candidate(f"c{number}", "made up", "patchcore", {}, cost) for number, cost in enumerate(costs)]


def test_what_would_not_end_in_time_is_left_out_and_said() -> None:
    clock, said = _Clock(), []
    trial = try_all(_candidates(1, 6, 2), clock.attempt, 100, said.append, clock)
    assert [one.name for one in trial.tried] == ["c0", "c2"]
    assert trial.left_out == (("c1", "would take about 120 s, 90 are left"),)
    assert said[-1] == "not tried: c1: would take about 120 s, 90 are left"


def test_the_first_is_tried_however_short_the_time() -> None:
    clock = _Clock()
    trial = try_all(_candidates(1, 1), clock.attempt, 0.1, lambda line: None, clock)
    assert [one.name for one in trial.tried] == ["c0"]


def test_one_that_fails_is_left_out_unless_it_is_the_first() -> None:
    clock = _Clock()

    def attempt(candidate: Candidate) -> Tried:
        if candidate.name == "c1":
            raise TrainingError("a loss is not finite")
        return clock.attempt(candidate)

    trial = try_all(_candidates(1, 1, 1), attempt, 1000, lambda line: None, clock)
    assert [one.name for one in trial.tried] == ["c0", "c2"]
    assert trial.left_out == (("c1", "a loss is not finite"),)
    with pytest.raises(TrainingError):
        try_all(_candidates(1, 1)[1:], attempt, 1000, lambda line: None, clock)


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: candidate.name)
def test_every_candidate_is_what_its_family_can_be_told(candidate: Candidate, tmp_path: Path) -> None:
    family = model_family(candidate.family)
    values = {"preset": "fast", **candidate.options, "output": tmp_path / "run", "data": tmp_path}
    options = family.train_options.checked(values, "options", family.size_faults, family.tile_faults)
    assert options.preset == "fast"


def test_candidates_of_a_family_and_of_pictures_without_tiles() -> None:
    assert {one.family for one in candidates_for("patchcore", True)} == {"patchcore"}
    assert candidates_for("draem", True) == ()
    assert not any(one.wants_tiles for one in candidates_for(None, False))
    assert len({one.name for one in CANDIDATES}) == len(CANDIDATES)


def _good(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        image = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def test_trial_pictures_are_a_data_set_that_holds_every_defect_twice(tmp_path: Path) -> None:
    good = plain_dataset(_good(tmp_path / "good", 20), None, None)
    samples = (*good.train, *good.test)
    written = write_trial(samples, open_textures(None), tmp_path / "trial", seed=0)
    assert (written.learned, written.held_out, written.defective) == (14, 6, 6 * len(KINDS))
    found = open_dataset(tmp_path / "trial")
    assert len(found.train) == 14 and {sample.defect for sample in found.test} == {"good", *KINDS}
    learned = {sample.image.read_bytes() for sample in found.train}
    held_out = {sample.image.read_bytes() for sample in found.test if not sample.anomalous}
    assert not learned & held_out and len(learned | held_out) == 20
    assert all(read_mask(sample, (48, 64)).any() for sample in found.test if sample.anomalous)


def test_of_very_many_pictures_some_are_tried_on(tmp_path: Path) -> None:
    folder = _good(tmp_path / "good", 1)
    (only,) = plain_dataset(folder, None, None).train
    written = write_trial([only] * 1000, open_textures(None), tmp_path / "trial", seed=0)
    assert (written.learned, written.held_out) == (200, MOST_HELD_OUT)


def test_pictures_that_cannot_be_read_are_left_out_or_refused(tmp_path: Path) -> None:
    folder = _good(tmp_path / "good", 14)
    for path in sorted(folder.iterdir())[:3]:
        path.write_bytes(b"no picture")
    written = write_trial(plain_dataset(folder, None, None).train, open_textures(None), tmp_path / "trial", seed=0)
    assert written.held_out >= 2
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(SourceError, match="no good picture that can be read"):
        write_trial(plain_dataset(folder, None, None).train, open_textures(None), tmp_path / "none", seed=0)
