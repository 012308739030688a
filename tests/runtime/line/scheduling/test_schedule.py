"""The schedule on a simulated line with a clock of its own: what is judged is in time, and every lane has its turn."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_line import MOMENT, MS, Camera, Line, Station, informed, served_by_lane

from edge_ad.image.frame import Frame
from edge_ad.runtime.line.scheduling.schedule import HOLD_NS, LAG, PROBE_NS, Room, Schedule
from edge_ad.runtime.line.scheduling.service_times import ServiceTimes
from edge_ad.runtime.line.scheduling.ticket import Ticket

CAMERAS = st.lists(
    st.builds(
        lambda gaps, budget_ms, room: Camera(
            [sum(gaps[: end + 1]) * MS for end in range(len(gaps))], budget_ms and budget_ms * MS, room
        ),
        st.lists(st.integers(0, 80), max_size=25),
        st.none() | st.integers(5, 300),
        st.sampled_from([Room(freshest=True), Room(depth=4), Room(depth=2), Room(in_hand=1)]),
    ),
    min_size=1,
    max_size=4,
)
STATIONS = st.builds(
    Station.steady, st.integers(0, 30), st.integers(1, 60), st.integers(0, 20), max_batch=st.integers(1, 4)
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(cameras=CAMERAS, station=STATIONS)
def test_every_frame_has_one_end_and_what_is_judged_is_in_time(cameras: list[Camera], station: Station) -> None:
    # A batch costs at most its size times one image, which the forecast assumes.
    station.infer_ns = lambda _, batch, infer=station.infer_ns: min(infer(0, batch), batch * infer(0, 1))  # type: ignore[misc]
    fates = Line(cameras, station, informed(station)).run()
    assert len(fates) == sum(len(camera.arrivals_ns) for camera in cameras)
    for fate in fates:
        assert (fate.verdict_ns is None) == (fate.reason is not None)
        if not fate.ticket.is_probe:
            assert not fate.is_late
        if fate.reason == "overtaken":
            assert cameras[fate.ticket.lane].room.freshest


@settings(max_examples=60, derandomize=True, deadline=None)
@given(cameras=CAMERAS, station=STATIONS)
def test_nothing_is_left_out_of_sources_that_wait(cameras: list[Camera], station: Station) -> None:
    for camera in cameras:
        camera.live = False
        camera.room = Room(depth=2)
    fates = Line(cameras, station).run()
    assert [fate.reason for fate in fates if fate.reason is not None] == []
    assert len(fates) == sum(len(camera.arrivals_ns) for camera in cameras)


def test_control_without_leaving_out_an_overloaded_line_is_late() -> None:
    camera = Camera.regular(100, 2, budget_ns=40 * MS, room=Room(depth=8), live=False)
    fates = Line([camera], Station.steady(2, 30)).run()
    assert sum(fate.is_late for fate in fates) > 100
    camera.live = True
    fates = Line([camera], Station.steady(2, 30), informed(Station.steady(2, 30))).run()
    assert sum(fate.is_late for fate in fates) == 0
    assert sum(fate.verdict_ns is not None for fate in fates) >= 60  # the engine is hardly ever idle


def test_an_overloaded_camera_is_judged_on_its_newest_frames() -> None:
    """Three times as many frames as the engine takes; a frame is prepared just before the engine is free."""
    fates = Line([Camera.regular(100, 10)], Station.steady(5, 30)).run()
    judged = [fate for fate in fates if fate.verdict_ns is not None]
    assert len(judged) == pytest.approx(333, abs=5)  # the engine never waits for a preparation
    ages_ms = [(fate.verdict_ns - fate.ticket.frame.captured_ns) / MS for fate in judged if fate.verdict_ns]
    # From the third on, when all stages were measured: preparation, engine, conclusion, and one frame interval.
    assert max(ages_ms[2:]) <= 5 + 30 + 3 + 10


def test_a_frame_that_cannot_make_it_costs_nothing() -> None:
    station = Station.steady(5, 60)
    fates = Line([Camera.regular(10, 3, budget_ns=50 * MS)], station, informed(station)).run()
    judged = [fate for fate in fates if fate.verdict_ns is not None]
    assert all(fate.ticket.is_probe for fate in judged)
    gaps_ns = [b.ticket.frame.captured_ns - a.ticket.frame.captured_ns for a, b in pairwise(judged)]
    assert gaps_ns == [PROBE_NS] * (len(judged) - 1)
    reasons = [fate.reason for fate in fates if fate.reason]
    assert len(reasons) == 30 - len(judged)
    assert all("could not be judged in time (0 ms old, its verdict would take 71 ms more" in one for one in reasons)


def test_a_line_that_was_slow_once_is_not_given_up() -> None:
    """The engine hiccups for two seconds; one probe in time is enough to go on as before."""
    station = Station(lambda _: MS, lambda now_ns, _: (200 if 2e9 < now_ns < 4e9 else 10) * MS)
    fates = Line([Camera.regular(20, 10, budget_ns=50 * MS)], station).run()
    after = [fate for fate in fates if fate.ticket.frame.captured_ns > 5.3e9]
    assert all(fate.verdict_ns is not None and not fate.is_late for fate in after)
    during = [fate for fate in fates if 2.5e9 < fate.ticket.frame.captured_ns < 4e9]
    assert sum(fate.verdict_ns is not None for fate in during) <= 3


@pytest.mark.parametrize("max_batch", [1, 4])
@pytest.mark.parametrize("load", [0.9, 1.2, 3.0])
@pytest.mark.parametrize("budget_ms", [None, 150])
def test_equal_cameras_are_served_equally(max_batch: int, load: float, budget_ms: int | None) -> None:
    """Whatever their phases and jitter: with four cameras, max/min <= 1.1."""
    rng = random.Random(max_batch + load)
    infer_ms, more_ms = 20.0, 12.0
    capacity = max_batch / (infer_ms + (max_batch - 1) * more_ms) * 1000
    fps = load * capacity / 4
    for _ in range(4):
        cameras = []
        for _ in range(4):
            phase, jitter = rng.uniform(0, 1000 / fps), rng.choice([0, 2, 8])
            moments = [int((phase + number * 1000 / fps + rng.uniform(0, jitter)) * MS) for number in range(600)]
            cameras.append(Camera(sorted(moments), budget_ms and budget_ms * MS))
        served = served_by_lane(Line(cameras, Station.steady(3, infer_ms, more_ms, max_batch)).run(), 4)
        assert min(served) > 100
        assert max(served) / min(served) <= 1.1, served


@pytest.mark.parametrize("budget_ms", [42, 45, 50])
def test_a_budget_that_leaves_no_slack_starves_no_camera(budget_ms: int) -> None:
    """A frame has to find the engine free within some milliseconds; without waiting, phases decide who ever does."""
    station = Station.steady(3, 33)
    rng = random.Random(0)
    for jitter_ms in (0, 8):
        cameras = []
        for _ in range(4):
            phase_ms = rng.uniform(0, 22)
            moments = [int((phase_ms + number * 1000 / 45 + rng.uniform(0, jitter_ms)) * MS) for number in range(900)]
            cameras.append(Camera(sorted(moments), budget_ms * MS))
        served = served_by_lane(Line(cameras, station, informed(station)).run(), 4)
        assert max(served) / min(served) <= 1.1, served
        assert sum(served) >= 0.85 * 20 / 0.033  # what waiting for each other costs


def test_a_camera_whose_frames_arrive_too_old_does_not_hold_up_the_others() -> None:
    """Its budget would do for a frame that arrives at once; waiting for it would serve nobody."""
    station = Station.steady(3, 25)
    cameras = [
        Camera.regular(30, 20, budget_ns=100 * MS),
        Camera.regular(30, 20, 11, budget_ns=50 * MS, age_ns=30 * MS),
    ]
    served = served_by_lane(Line(cameras, station, informed(station)).run(), 2)
    assert served[0] >= 580
    assert served[1] <= 25  # one a second is tried


def test_a_camera_that_was_slow_to_prepare_once_is_tried_again_while_others_go_on() -> None:
    station = Station.steady(3, 10)
    line = Line([Camera.regular(30, 10, budget_ns=100 * MS), Camera.regular(30, 10, 5, budget_ns=50 * MS)], station)
    line.times.prepared(0, 3 * MS)
    line.times.prepared(1, 200 * MS)
    line.times.inferred(1, 10 * MS)
    fates = line.run()
    served = served_by_lane(fates, 2)
    assert served[0] == 300
    assert served[1] >= 260


def test_a_slow_camera_is_not_pushed_aside_by_fast_ones() -> None:
    """Two cameras of 60 fps want more than the engine has; one of 5 fps gets all it asks for."""
    cameras = [Camera.regular(60, 20), Camera.regular(60, 20, 3), Camera.regular(5, 20, 7)]
    served = served_by_lane(Line(cameras, Station.steady(3, 25)).run(), 3)
    assert served[2] == 100
    assert served[0] == pytest.approx(served[1], abs=3)
    assert sum(served) == pytest.approx(800, abs=5)


def test_a_camera_that_was_away_does_not_make_up_for_it() -> None:
    """After ten seconds without frames, the second camera gets its half and no more."""
    late = [moment for moment in Camera.regular(60, 20).arrivals_ns if moment > 10e9]
    fates = Line([Camera.regular(60, 20), Camera(late)], Station.steady(3, 25)).run()
    second_half = [fate for fate in fates if 10e9 < fate.ticket.frame.captured_ns < 20e9]
    first, second = served_by_lane(second_half, 2)
    assert first == pytest.approx(second, abs=4)


def test_large_frames_of_one_camera_do_not_speak_against_small_ones_of_another() -> None:
    """A forecast over all cameras would expect the preparation of the large one from every frame."""
    schedule = Schedule([Room(freshest=True), Room(freshest=True)], ServiceTimes())
    for _ in range(20):
        schedule.times.prepared(0, 40 * MS)
        schedule.times.prepared(1, 3 * MS)
        schedule.times.inferred(1, 10 * MS)
    tickets = [Ticket(lane, Frame(0, str(lane), MOMENT, 0, None), 30 * MS, may_skip=True) for lane in range(2)]
    for queue in schedule._queues:
        queue.judged_ns = 0  # so that neither is tried to test the forecast
    for ticket in tickets:
        schedule.offer(ticket)
    turn = schedule.to_prepare(0)
    assert ([skip.ticket for skip in turn.skips], turn.tickets) == (tickets[:1], (tickets[1],))


def test_the_nearest_deadline_comes_first() -> None:
    schedule = Schedule([Room(), Room()], ServiceTimes())
    relaxed, urgent = (
        Ticket(lane, Frame(0, str(lane), MOMENT, captured_ns, None), deadline_ns, may_skip=True)
        for lane, captured_ns, deadline_ns in ((0, 0, 500), (1, 5, 100))
    )
    schedule.offer(relaxed)
    schedule.offer(urgent)
    assert schedule.to_prepare(10).tickets == (urgent,)


def test_a_batch_is_never_longer_than_its_tightest_deadline() -> None:
    times = ServiceTimes()
    schedule = Schedule([Room() for _ in range(4)], times, max_batch=4)
    tickets = [Ticket(lane, Frame(0, str(lane), MOMENT, 0, None), 210, may_skip=True) for lane in range(4)]
    for ticket in tickets:
        schedule.offer(ticket)
        (taken,) = schedule.to_prepare(0).tickets
        schedule.prepared(taken)
    for size, took_ns in ((1, 100), (2, 150), (3, 200), (4, 250)):
        times.inferred(size, took_ns)
    turn = schedule.to_infer(0)
    assert len(turn.tickets) == 3
    schedule.inferred()
    turn = schedule.to_infer(200)
    assert (turn.tickets, [skip.ticket for skip in turn.skips]) == ((), tickets[3:])


def test_nothing_waits_for_a_lane_that_lags_behind_when_no_further_frame_comes() -> None:
    schedule = Schedule([Room(depth=20), Room(freshest=True)], informed(Station.steady(1, 40)))
    now_ns = 1000 * MS

    def offer(lane: int, number: int, deadline_ns: int | None) -> None:
        captured_ns = now_ns - 50 * MS
        frame = Frame(number, str(lane), MOMENT, captured_ns, None)
        schedule.offer(Ticket(lane, frame, deadline_ns, may_skip=True, arrived_ns=captured_ns))

    offer(1, 0, now_ns + 10 * MS)  # has waited for too long, and the next one may not
    assert len(schedule.to_prepare(now_ns).skips) == 1
    for number in range(LAG + 2):
        offer(0, number, None)
    turn = schedule.to_prepare(now_ns)
    while turn.tickets:
        schedule.given_up(turn.tickets[0])
        turn = schedule.to_prepare(now_ns)
    assert turn.again_ns == now_ns + HOLD_NS and schedule.waits_for_preparation
    schedule.finish()
    assert len(schedule.to_prepare(now_ns).tickets) == 1
    assert not schedule.waits_for_preparation
