"""Programs and probes in processes of their own, with a deadline: whatever becomes of them, the report goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from edge_ad.errors import os_reason

PROBE_S = 40.0  # the first import of a large library from a slow card takes a Jetson many seconds
COMMAND_S = 10.0
LAST_WORDS_S = 2.0
KILLED = -9
START = """
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
from edge_ad.runtime.instruments.doctor.probes import main
main(sys.argv[1])
"""
"""What lies in the working folder is none of this machine's packages, so a probe does not look there."""


@dataclass(frozen=True)
class Ran:
    """What came of a program.

    Attributes:
        out, err: what it wrote.
        failure: why it did not end well, in words; None when it did.
        absent: True when there is no such program.
    """

    out: str = ""
    err: str = ""
    failure: str | None = None
    absent: bool = False


@dataclass(frozen=True)
class Answer:
    """What a probe has found.

    Attributes:
        value: what it says; empty when it failed.
        failure: why it says nothing; None when it does.
        absent: True when what it looked for is not installed.
    """

    value: Mapping[str, Any]
    failure: str | None = None
    absent: bool = False


class Processes:
    """Runs them.

    Args:
        environment: of the processes.
        probe_s, command_s: seconds that a probe and a program may take.
    """

    def __init__(
        self, environment: Mapping[str, str], *, probe_s: float = PROBE_S, command_s: float = COMMAND_S
    ) -> None:
        self._environment = dict(environment)
        self._probe_s, self._command_s = probe_s, command_s
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def run(self, *command: str) -> Ran:
        """Run a program to its end, or to its deadline."""
        return self._run(command, self._command_s)

    def probe(self, name: str) -> Answer:
        """Ask a function of `probes`."""
        ran = self._run((sys.executable, "-W", "ignore", "-c", START, name), self._probe_s)
        try:
            said = json.loads(ran.out.splitlines()[-1])
            value, failure, absent = dict(said["value"]), said["failure"], bool(said["absent"])
        except (IndexError, KeyError, TypeError, ValueError):
            return Answer({}, f"{ran.failure or 'no answer'}{_last_words(ran.err)}")
        # What it said counts, even where it fell over on its way out, as drivers do at exit.
        return Answer(value, failure, absent)

    def close(self) -> None:
        """End all that still run; no other is started."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            _kill(process)

    def _run(self, command: tuple[str, ...], seconds: float) -> Ran:
        try:
            with self._lock:
                if self._closed:
                    return Ran(failure="interrupted")
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    env=self._environment,
                    start_new_session=True,  # so that what it starts ends with it
                )
                self._running.add(process)
        except FileNotFoundError:
            return Ran(failure="not installed", absent=True)
        except OSError as exc:
            return Ran(failure=f"does not start: {os_reason(exc)}")
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return _end(process, seconds)
        except BaseException:  # an interrupt does not reach it, for it has a session of its own
            _end(process, seconds)
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        return Ran(out, err, _failure(process.returncode))


def _end(process: subprocess.Popen[str], seconds: float) -> Ran:
    """Kill what took too long. What hangs inside of a driver cannot be killed, and nobody may wait for it."""
    _kill(process)
    failure = f"no answer within {seconds:g} s"
    out = err = ""
    try:
        out, err = process.communicate(timeout=LAST_WORDS_S)
    except subprocess.TimeoutExpired:
        failure += ", and it cannot be ended: it waits for a driver; restart the machine"
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.returncode = KILLED  # else it would be waited for, or complained about, at exit
    return Ran(out, err, failure)


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _failure(code: int) -> str | None:
    if code == 0:
        return None
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _last_words(err: str) -> str:
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    return f": {lines[-1]}" if lines else ""
