"""Whether one way is faster than another: statistics, ties, order of the rounds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from edge_ad.errors import EngineError
from edge_ad.runtime.instruments.selftest.latency import (
    CHANCE,
    WARM_UP_ROUNDS,
    Percentiles,
    fastest,
    interleave,
    is_faster,
    sign_test,
)

ROUNDS = 200


def _noisy(median_ms: float, seed: int, rounds: int = ROUNDS, spread: float = 0.05) -> np.ndarray:
    """Times with a long tail, as a machine that does other things has."""
    rng = np.random.default_rng(seed)
    return median_ms * (1 + spread * rng.standard_normal(rounds) + rng.exponential(spread, rounds))


@pytest.mark.parametrize(("wins", "rounds"), [(0, 1), (5, 10), (10, 10), (3, 20), (160, 200), (40, 200), (1200, 2000)])
def test_the_sign_test_is_scipys(wins: int, rounds: int) -> None:
    assert sign_test(wins, rounds) == pytest.approx(binomtest(wins, rounds).pvalue, rel=1e-9)


def test_the_sign_test_of_nothing_and_of_many_rounds() -> None:
    assert sign_test(0, 0) == 1
    assert 0 <= sign_test(1_000, 50_000) < 1e-300  # whole numbers that no float holds


def test_noise_alone_is_faster_no_more_often_than_the_rule_says() -> None:
    found = [is_faster(_noisy(10, seed), _noisy(10, seed + 1)) for seed in range(0, 4000, 2)]
    assert sum(found) <= 5  # of 2000; half of CHANCE, for it has two sides: 1 expected


def test_a_tenth_is_seen_through_noise_and_through_a_clock_that_goes_down() -> None:
    throttling = np.linspace(1, 3, ROUNDS)
    faster, slower = _noisy(9, 1) * throttling, _noisy(10, 2) * throttling
    assert is_faster(faster, slower)
    assert not is_faster(slower, faster)


def test_a_gain_that_nobody_would_notice_is_none() -> None:
    slower = _noisy(10, 1)
    assert not is_faster(slower - 0.1, slower)  # always, and by one per cent
    assert is_faster(slower - 0.4, slower)


def test_too_few_rounds_decide_nothing() -> None:
    few = np.full(10, 10.0)
    assert sign_test(10, 10) > CHANCE
    assert not is_faster(few / 2, few)
    assert is_faster(np.full(11, 5.0), np.full(11, 10.0))
    assert not is_faster(np.full(200, 10.0), np.full(200, 10.0))


def test_ties_go_to_the_one_that_needs_less() -> None:
    order = ["defaults", "kernel tail", "device preprocessing", "both"]
    same = {name: _noisy(10, seed) for seed, name in enumerate(order)}
    assert fastest(same, order) == "defaults"
    one = {**same, "kernel tail": _noisy(7, 11), "both": _noisy(7, 12)}
    assert fastest(one, order) == "kernel tail"
    assert fastest({**one, "both": _noisy(5, 12)}, order) == "both"
    assert fastest({name: _noisy(10 + 5 * place, place) for place, name in enumerate(order)}, order) == "defaults"
    without = {name: times for name, times in one.items() if name != "kernel tail"}
    assert fastest(without, order) == "both"


def test_everybody_takes_part_in_every_round_and_nobody_always_follows_the_same() -> None:
    said: list[tuple[int, str]] = []

    def call(name: str):  # type: ignore[no-untyped-def]
        def timed(number: int) -> tuple[float, float]:
            said.append((number, name))
            return float(number), 10.0 * len(name)

        return timed

    seen: list[int] = []
    times, failed = interleave({name: call(name) for name in ("a", "bb", "ccc")}, range(6), after=seen.append)
    assert failed == {}
    assert seen == list(range(6))
    counted = said[3 * WARM_UP_ROUNDS :]
    assert [number for number, _ in counted] == [number for number in range(6) for _ in range(3)]
    assert [name for number, name in counted if number == 1] == ["bb", "ccc", "a"]
    assert {counted[3 * number][1] for number in range(6)} == {"a", "bb", "ccc"}
    np.testing.assert_array_equal(times["bb"].preprocess_ms, np.arange(6))
    np.testing.assert_array_equal(times["bb"].total_ms, np.arange(6) + 20)


def test_who_fails_is_left_out_with_the_reason() -> None:
    calls = 0

    def fails(number: int) -> tuple[float, float]:
        nonlocal calls
        calls += 1
        if calls > WARM_UP_ROUNDS + 2:
            raise EngineError("no more")
        return 1.0, 1.0

    times, failed = interleave({"fails": fails, "lives": lambda _: (1.0, 2.0)}, range(5))
    assert failed == {"fails": "no more"}
    assert calls == WARM_UP_ROUNDS + 3
    assert set(times) == {"lives"}
    assert len(times["lives"].total_ms) == 5


def test_nobody_at_all() -> None:
    assert interleave({}, range(3)) == ({}, {})


def test_percentiles() -> None:
    found = Percentiles.of(np.arange(101, dtype=np.float64))
    assert (found.p50, found.p95, found.p99, found.max) == (50, 95, 99, 100)
