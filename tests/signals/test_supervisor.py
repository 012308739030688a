"""Requests to end and hangups, at processes that do all kinds of things meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType

import pytest

from edge_ad.signals import supervisor as supervisor_module
from edge_ad.signals.supervisor import Supervisor, supervised, was_interrupted

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
PATIENCE_S = 30
STORM = 400
START = """
import hashlib, os, signal, sys, threading, time
from edge_ad.signals import supervisor
from edge_ad.signals.supervisor import supervise_process, was_interrupted
supervisor.PRESS_S, supervisor.MOMENT_S, supervisor.CLEAN_UP_S = 0.3, 0.3, 0.5
one = supervise_process()
say = lambda *words: print(*words, flush=True)
"""
READY = "say('ready')\n"
CHILD = """
child = os.fork()
if not child:
    time.sleep(60)
"""


class Heard:
    """What a block has been given. Attributes: hangups, stops: how often."""

    def __init__(self) -> None:
        self.hangups = self.stops = 0
        self.news = threading.Condition()

    def hangup(self) -> None:
        with self.news:
            self.hangups += 1
            self.news.notify_all()

    def stop(self) -> bool:
        with self.news:
            self.stops += 1
            self.news.notify_all()
        return True

    def wait(self, condition: Callable[[], bool]) -> bool:
        with self.news:
            return self.news.wait_for(condition, PATIENCE_S)


@pytest.fixture
def supervisor(heard_interrupts: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(supervisor_module, "PRESS_S", PATIENCE_S)  # a busy computer may make a storm last
    with supervised() as one:
        assert one is not None
        yield one


@contextmanager
def program(text: str, **more: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has said that it is ready."""
    command = [sys.executable, "-c", START + text]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, **more) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
            yield process
        finally:
            process.kill()


def ending(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def test_nothing_of_python_runs_in_a_handler(supervisor: Supervisor) -> None:
    """Else a storm calls it inside of itself, until the stack is full or a lock is waited for that it holds."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert type(signal.getsignal(number)) is BuiltinFunctionType


def test_a_storm_is_heard_and_no_more_than_heard(supervisor: Supervisor) -> None:
    heard = Heard()
    with supervisor.on_hangup(heard.hangup), supervisor.on_stop(heard.stop):
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            for _ in range(STORM):
                os.kill(os.getpid(), number)
        assert heard.wait(lambda: heard.hangups > 0 and heard.stops > 0)
        before = heard.hangups
        os.kill(os.getpid(), signal.SIGHUP)
        assert heard.wait(lambda: heard.hangups > before)
    assert heard.stops == 1
    assert not supervisor.interrupted


def test_the_main_thread_is_interrupted_once(supervisor: Supervisor) -> None:
    def storm() -> None:
        for _ in range(STORM):
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE_S)

    with pytest.raises(KeyboardInterrupt):
        storm()
    assert was_interrupted()
    for _ in range(STORM):  # while it cleans up
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)


def test_no_interrupt_comes_behind_the_end(supervisor: Supervisor) -> None:
    supervisor.finish(3)
    for _ in range(STORM):
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
    assert not was_interrupted()


def test_handlers_are_given_back(heard_interrupts: None) -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, supervisor_module._INTERRUPT]
    before = [signal.getsignal(number) for number in numbers]
    threads = threading.active_count()
    with supervised() as outer, supervised() as inner:
        assert outer is inner is not None
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads
    assert not was_interrupted()


def test_there_is_none_outside_of_the_main_thread() -> None:
    found: list[object] = []

    def look() -> None:
        with supervised() as one:
            found.append(one)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [None]


@pytest.mark.usefixtures("heard_interrupts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_native_code_is_not_waited_for(number: signal.Signals) -> None:
    text = "threading.Timer(0.2, say, ['ready']).start(); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    with program(text) as process:
        process.send_signal(number)
        assert ending(process) == (130, "", "edge-ad: error: interrupted\n")


def test_one_that_cleans_up_is_waited_for_and_one_that_hangs_is_not() -> None:
    text = "try: say('ready'); time.sleep(60)\nfinally: time.sleep({0}); say('clean')\n"
    with program("supervisor.CLEAN_UP_S = 60\n" + text.format(0.6)) as process:
        process.terminate()
        code, out, err = ending(process)
        assert code != 0 and out == "clean\n" and err.endswith("KeyboardInterrupt\n")
    with program(text.format(60)) as process:
        process.terminate()
        assert ending(process) == (130, "", "edge-ad: error: interrupted\n")


def test_one_that_python_drops_comes_again() -> None:
    """As it does while it deletes an object: with a word about it, and no effect."""
    text = (
        "class Slow:\n def __del__(self): say('ready'); time.sleep(1); say('over')\n"
        "try:\n Slow(); time.sleep(60)\nexcept KeyboardInterrupt: say('interrupted')\n"
    )
    with program(text) as process:
        process.terminate()
        assert ending(process) == (0, "interrupted\n", "")


def test_one_that_was_swallowed_ends_all_the_same() -> None:
    with program("try: say('ready'); time.sleep(60)\nexcept KeyboardInterrupt: pass\ntime.sleep(60)") as process:
        process.terminate()
        assert ending(process)[0] == 130


def test_a_process_that_hangs_behind_its_end_is_ended_with_its_own_code() -> None:
    with program("threading.Thread(target=time.sleep, args=(60,)).start()\none.finish(7)\n" + READY) as process:
        time.sleep(0.1)  # the interpreter waits for the thread by now
        process.terminate()
        assert ending(process) == (7, "", "")


@pytest.mark.usefixtures("heard_interrupts")
def test_a_second_ctrl_c_interrupts_and_a_third_one_ends() -> None:
    taken = "with one.on_stop(lambda: say('asked') or True):\n"
    text = taken + " try: say('ready'); time.sleep(60)\n except KeyboardInterrupt: say('at once')\n time.sleep(60)"
    with program(text) as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGINT)  # the key has bounced
        process.terminate()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "at once\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert ending(process)[:2] == (130, "")


def test_a_forked_process_does_not_speak_for_its_parent() -> None:
    """It ends of the signals that it gets, and those are not its parent's."""
    with program(
        CHILD + READY + "os.kill(child, signal.SIGTERM); say(os.waitpid(child, 0)[1]); time.sleep(0.2)"
    ) as one:
        assert ending(one) == (0, f"{int(signal.SIGTERM)}\n", "")


@pytest.mark.parametrize("ignored", [True, False])
def test_what_is_ignored_from_the_start_stays_ignored(ignored: bool) -> None:
    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)

    with program(READY + "time.sleep(0.5); say('slept')", preexec_fn=prepare) as process:
        process.send_signal(signal.SIGINT)
        code, out, _ = ending(process)
    assert (code == 0, out) == (ignored, "slept\n" if ignored else "")


def test_a_hangup_that_nobody_takes_is_said_once() -> None:
    with program(READY + "time.sleep(0.3); one.finish(0)") as process:
        for _ in range(STORM):
            process.send_signal(signal.SIGHUP)
        code, _, err = ending(process)
    assert code == 0
    assert err == ("SIGHUP is ignored: no line runs from a file (--config) whose thresholds could be read again\n")


def test_signals_up_to_the_last_line_change_no_exit_code() -> None:
    """Python gives the signals back to the system before the libraries have ended."""
    last = "import atexit; atexit.register(lambda: (time.sleep(0.3), say('last')))\n"
    with program(last + "one.finish(5)\n" + READY + "sys.exit(5)") as process:
        for _ in range(STORM):
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                process.send_signal(number)
        assert ending(process) == (5, "last\n", "")
