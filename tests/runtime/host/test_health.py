"""What parts say of themselves, and threads that end without a word."""

from __future__ import annotations

import logging
import threading

import pytest

from edge_ad.runtime.host.health import Condition, ThreadDeaths, found
from edge_ad.runtime.line.run_view import RunView


def end_a_thread(name: str, how: BaseException | None) -> None:
    def work() -> None:
        if how is not None:
            raise how

    thread = threading.Thread(target=work, name=name)
    thread.start()
    thread.join(20)


@pytest.mark.parametrize("how", [ValueError("rtsp://user:S3CRET@host"), SystemExit(3)])
def test_a_thread_that_a_defect_ends_makes_the_run_ill(how: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    run, before = RunView(), threading.excepthook
    with ThreadDeaths() as deaths:
        run.watch(deaths.conditions)
        end_a_thread("edge-ad-good", None)
        assert run.ill() == []
        end_a_thread("edge-ad-bad", how)
        assert run.ill() == [f"the thread edge-ad-bad has ended: {type(how).__name__}"]
        assert [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR] == ["thread edge-ad-bad"]
    assert threading.excepthook == before


def test_a_check_that_fails_is_a_trouble_itself() -> None:
    def check() -> list[Condition]:
        raise ZeroDivisionError("oh")

    good = Condition("mqtt: away", "noted")
    assert found([check, lambda: [good]]) == [Condition("a health check failed: ZeroDivisionError: oh", "ill"), good]


def test_what_is_said_where() -> None:
    run = RunView()
    run.watch(lambda: [Condition("a", "ill"), Condition("b", "unready"), Condition("c", "noted")])
    assert (run.ill(), run.noted()) == (["a"], ["c", "b"])
    assert run.unready() == [run.idle]  # there is no line yet
