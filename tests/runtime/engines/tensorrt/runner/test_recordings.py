"""Who may record a stream, and who waits meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from edge_ad.runtime.engines.tensorrt.runner.recording import Recordings

pytestmark = pytest.mark.rung(7)

ENDS_S = 20.0
WAITS_S = 0.2


def _kept_out(recordings: Recordings, inside: threading.Event) -> None:
    with recordings.kept_out():
        inside.set()


def test_one_records_and_the_others_wait_for_it() -> None:
    recordings, inside = Recordings(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        with recordings.begun() as may_record:
            assert may_record
            with recordings.begun() as may_too:
                assert not may_too
            waiting: Future[None] = pool.submit(_kept_out, recordings, inside)
            assert not inside.wait(WAITS_S)
            with recordings.kept_out():  # the one that records would wait for itself
                pass
        waiting.result(ENDS_S)
        assert inside.is_set()


def test_what_keeps_recordings_out_keeps_nothing_else_out() -> None:
    recordings, inside = Recordings(), threading.Event()
    with ThreadPoolExecutor(1) as pool, recordings.kept_out():
        pool.submit(_kept_out, recordings, inside).result(ENDS_S)
        with recordings.begun() as may_record:
            assert not may_record
    with recordings.begun() as may_record:
        assert may_record


def test_a_recording_that_fails_has_ended() -> None:
    recordings = Recordings()
    with pytest.raises(ValueError, match="some"), recordings.begun():
        raise ValueError("some fault")
    with pytest.raises(ValueError, match="another"), recordings.kept_out():
        raise ValueError("another")
    with recordings.begun() as may_record:
        assert may_record
