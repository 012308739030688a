"""The gate's statistics on made-up machines whose noise is known, and on ratios whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from edge_ad.runtime.instruments.bench.statistics import BUSY_MARGIN, MIN_ROUNDS, FloatArray, compare

LIMIT = 0.10
STAGES = 3  # that share the confidence


def run(seed: int, *, slower: float = 0.0, rounds: int = 80, jitter: float = 0.05, unlike: float = 0.05) -> FloatArray:
    """Ratios of one run on a virtual machine with noisy neighbours.

    The machine's speed drifts, its clock jumps by up to 30 %, and bursts of a neighbour last one to six rounds. The
    subject follows that nearly as the yardstick does, both have heavy-tailed noise of their own (Student's t with three
    degrees of freedom), and each run as a whole is off by some percent, as memory happens to lie.

    Args:
        slower: share by which the subject takes longer.
        jitter: of one measurement.
        unlike: how differently subject and yardstick follow the machine, from run to run.
    """
    rng = np.random.default_rng(seed)
    machine = np.cumsum(rng.normal(0, 0.01, rounds))
    machine += np.repeat(rng.choice([0.0, 0.15, 0.3], -(-rounds // 20)), 20)[:rounds]
    for _ in range(rng.poisson(rounds / 40)):
        first = int(rng.integers(rounds))
        machine[first : first + int(rng.integers(1, 7))] += rng.exponential(0.5)
    subject = machine * rng.normal(1, unlike) + rng.normal(0, 0.01) + rng.standard_t(3, rounds) * jitter / 1.7
    yardstick = machine + rng.standard_t(3, rounds) * jitter / 1.7
    return np.asarray(10 * (1 + slower) * np.exp(subject - yardstick), np.float64)


def findings(slower: float, seeds: range, **noise: float) -> list[str]:
    return [
        compare(run(2 * seed), run(2 * seed + 1, slower=slower, **noise), limit=LIMIT, comparisons=STAGES).finding  # type: ignore[arg-type]
        for seed in seeds
    ]


def test_clean_runs_raise_no_alarm() -> None:
    assert findings(0.0, range(50)).count("slower") == 0


def test_a_slowdown_of_15_percent_is_caught_in_nearly_every_run() -> None:
    assert findings(0.15, range(50)).count("slower") >= 45


def test_a_slowdown_within_the_limit_raises_no_alarm_but_rarely() -> None:
    assert findings(0.05, range(40)).count("slower") <= 2


def test_without_the_yardstick_clean_runs_would_raise_alarms() -> None:
    """Negative control: the made-up machine is noisy enough for the ratio to be needed."""
    alarms = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        one, other = (10 * np.exp(rng.normal(level, 0.05, 80)) for level in rng.choice([0.0, 0.15, 0.3], 2))
        alarms += compare(one, other, limit=LIMIT).finding == "slower"
    assert alarms >= 6


def test_noise_that_hides_a_slowdown_is_unclear_and_never_an_all_clear() -> None:
    assert findings(0.15, range(20), jitter=0.6, rounds=30).count("unclear") >= 14
    clean = findings(0.0, range(20), jitter=0.6, rounds=30)
    assert clean.count("slower") == 0 and clean.count("unclear") >= 10


def test_a_known_change_is_told_exactly() -> None:
    change = compare([2.0] * 30, [2.5] * 30, limit=LIMIT)
    assert (change.ratio, change.low, change.high, change.finding) == (1.25, 1.25, 1.25, "slower")
    assert compare([2.5] * 30, [2.0] * 30, limit=LIMIT).finding == "faster"
    assert compare([2.0] * 30, [2.0] * 30, limit=LIMIT).finding == "same"


def test_the_interval_holds_the_true_change_about_as_often_as_it_says() -> None:
    """95 %, on independent rounds."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(50):
        old, new = (np.exp(rng.normal(0, 0.1, 80)) for _ in range(2))
        change = compare(old, 1.1 * new, limit=LIMIT)
        held += change.low <= 1.1 <= change.high
    assert 45 <= held <= 50


def test_neighbouring_rounds_that_go_together_widen_the_interval() -> None:
    rng = np.random.default_rng(6)
    steps = np.exp(np.repeat(rng.normal(0, 0.1, 10), 8))
    together, shuffled = compare(steps, steps, limit=LIMIT), rng.permutation(steps)
    apart = compare(shuffled, shuffled, limit=LIMIT)
    assert together.high - together.low > 1.3 * (apart.high - apart.low)


def test_more_comparisons_widen_the_interval() -> None:
    one, many = (compare(run(1), run(2), limit=LIMIT, comparisons=count) for count in (1, 50))
    assert many.low < one.low < one.ratio < one.high < many.high


def test_a_busy_machine_needs_the_whole_interval_above_the_limit() -> None:
    old, new = run(11), run(12, slower=0.15)
    change = compare(old, new, limit=LIMIT)
    assert 1 + LIMIT / 2 < change.low < 1 + LIMIT < change.ratio and change.finding == "slower"
    assert compare(old, new, limit=LIMIT, margin=BUSY_MARGIN).finding == "unclear"


def test_too_few_rounds_are_never_conclusive() -> None:
    few = [2.0] * (MIN_ROUNDS - 1)
    assert compare(few, [9.0] * 100, limit=LIMIT).finding == "unclear"
    assert compare([*few, 2.0], [9.0] * 100, limit=LIMIT).finding == "slower"


def test_the_same_runs_give_the_same_interval() -> None:
    assert compare(run(1), run(2), limit=LIMIT) == compare(run(1), run(2), limit=LIMIT)


@pytest.mark.parametrize("ratios", [[], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [float("inf")]])
def test_what_is_no_ratio_is_refused(ratios: list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        compare(ratios, [1.0], limit=LIMIT)
