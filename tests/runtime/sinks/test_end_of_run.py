"""What still waits at the end of a run is sent as long as there is hope, and time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from webhook_service import Service

from edge_ad.runtime.host.messages import UpAndDown
from edge_ad.runtime.sinks.settings import WebhookSettings
from edge_ad.runtime.sinks.spool import Spool
from edge_ad.runtime.sinks.spooled import DOWN_S, SpooledSink
from edge_ad.runtime.sinks.webhook import WebhookRecords

Write = Callable[..., None]
RECORDS = 30
FLUSH_S = 6.0
TICK_S = 0.1  # of the clocks here


def _webhook(service: Service, spool: Spool, said: list[str], **more: Any) -> WebhookRecords:
    """Its clock moves with each post, so that no stall of the machine counts."""
    settings = {"backoff_s": (0.001, 0.01), "timeout_s": 30.0, "attempts": 1000, "flush_s": 60, **more}
    return WebhookRecords(
        WebhookSettings(service.url, **settings),
        spool,
        "run",
        say=said.append,
        now_s=lambda: TICK_S * len(service.tried),
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_service_that_starts_late_and_fails_now_and_then_gets_all_of_it(
    service: Service, make_spool: Any, write: Write, seed: int
) -> None:
    rng = random.Random(seed)
    service.answer = lambda _: 503 if len(service.tried) < 0.5 * DOWN_S / TICK_S or rng.random() < 0.3 else 204
    said: list[str] = []
    sink = _webhook(service, make_spool(), said)
    with sink:
        for number in range(RECORDS):
            write(sink, number)
    assert sink.account().waiting == 0 and sink.account().failures > 5
    assert sorted(service.numbers()) == list(range(RECORDS))
    assert not any("the next run with this output" in line for line in said)


def test_a_service_that_stays_down_is_given_up_and_what_waits_is_said(
    service: Service, make_spool: Any, write: Write
) -> None:
    service.answer = lambda _: 503
    said: list[str] = []
    sink = _webhook(service, make_spool(), said, backoff_s=(0.05, 0.05))
    with sink:
        for number in range(RECORDS):
            write(sink, number)
    assert DOWN_S / TICK_S < len(service.tried) < 60 / TICK_S  # not at once, and not after all of `flush_s`
    assert sink.account().waiting == RECORDS
    assert said[-1].startswith(f"{RECORDS} records wait in")


class _Sender(SpooledSink):
    """Has nobody to send to, which it knows if it `is_gone`."""

    def __init__(self, spool: Spool, is_gone: bool, now_s: Callable[[], float]) -> None:
        super().__init__(spool, "run", flush_s=FLUSH_S, now_s=now_s)
        self._is_gone = is_gone

    def _begin(self) -> None:
        if self._is_gone:
            self._is_down("nobody is there")

    def _send(self) -> None: ...

    def _finish(self) -> None: ...


@pytest.mark.parametrize("is_gone", [False, True])
def test_who_never_was_there_does_not_cost_all_the_time_and_who_is_silent_no_more_than_that(
    make_spool: Any, write: Write, is_gone: bool
) -> None:
    ticks = itertools.count()
    now_s = lambda: TICK_S * next(ticks)  # noqa: E731 - each look at the clock moves it
    sink = _Sender(make_spool(), is_gone, now_s)
    with sink:
        write(sink, 0)
    assert sink.account().waiting == 1
    assert (now_s() < FLUSH_S) is is_gone


def test_only_a_time_without_a_break_counts_as_down() -> None:
    now_s = 100.0
    state = UpAndDown(lambda _: None, lambda: "up", now_s=lambda: now_s)
    assert state.down_for_s == 0
    state.down("one")
    now_s = 102.0
    state.down("another")  # the same outage
    assert state.down_for_s == pytest.approx(2.0)
    state.up()
    assert state.down_for_s == 0
    now_s = 103.0
    state.down("a new one")
    now_s = 103.5
    assert state.down_for_s == pytest.approx(0.5)
