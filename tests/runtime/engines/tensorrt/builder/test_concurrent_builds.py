"""Two processes that build the same engine, and processes that are killed while they build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_ad.runtime.engines.tensorrt.builder.lock import locked
from edge_ad.runtime.engines.tensorrt.plans import PlanFile

pytestmark = [pytest.mark.rung(3), pytest.mark.skipif(os.name != "posix", reason="locks and signals of POSIX")]
SECONDS = 120


@contextmanager
def building(bundle: Path, cache: Path, slow: bool = False) -> Iterator[subprocess.Popen[str]]:
    """`edge-ad build` in a process of its own; a slow one waits for a minute inside of the builder."""
    command = ["build", str(bundle), "--flavour", "rtx", "--sm", "86", "--precision", "int8"]
    start = "import sys; from edge_ad.cli.main import main; "
    if slow:
        start += (
            "import time; from edge_ad.runtime.engines.tensorrt.builder import builder;"
            " keep = builder._keep_timing_cache; "
            "builder._keep_timing_cache = lambda session: (print('built', file=sys.stderr, flush=True),"
            " time.sleep(60), keep(session)); "
        )
    arguments = [sys.executable, "-c", f"{start}sys.exit(main(sys.argv[1:]))", *command, "--engine-cache", str(cache)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if word in line:
            return
    pytest.fail(f"{word!r} was not said: {lines}")


def assert_sound(path: Path) -> None:
    file = PlanFile(path)
    plan = file.read()
    assert plan is not None and len(plan) > 1_000_000 and file.fingerprint() is not None
    assert sorted(entry.suffix for entry in path.parent.iterdir()) == [".json", ".plan"]


def test_one_builds_and_the_other_waits(tensorrt_rtx: None, three_precisions: Path, tmp_path: Path) -> None:
    with building(three_precisions, tmp_path) as first, building(three_precisions, tmp_path) as second:
        answers = [process.communicate(timeout=SECONDS) for process in (first, second)]
    assert first.returncode == second.returncode == 0, answers
    assert answers[0][0] == answers[1][0]
    said = sorted("found" if "found" in text else "wrote" for _, text in answers)
    assert said == ["found", "wrote"], answers
    assert_sound(Path(answers[0][0].strip()))


def test_killed_in_the_middle_then_built(tensorrt_rtx: None, three_precisions: Path, tmp_path: Path) -> None:
    with building(three_precisions, tmp_path, slow=True) as killed:
        read_until(killed, "built")
        with building(three_precisions, tmp_path) as waiting:
            read_until(waiting, "another process builds")
            assert waiting.poll() is None
            assert not list(tmp_path.glob("*.plan")) and not list(tmp_path.glob("*.json"))
            killed.send_signal(signal.SIGKILL)
            assert killed.wait(timeout=SECONDS) == -signal.SIGKILL
            out, text = waiting.communicate(timeout=SECONDS)  # the dead process's lock is gone with it
    assert waiting.returncode == 0 and "wrote" in text
    assert_sound(Path(out.strip()))


@pytest.mark.usefixtures("heard_interrupts")
def test_interrupted_it_ends_with_one_line(tensorrt_rtx: None, three_precisions: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches the process while TensorRT's builder works in another thread."""
    slow = (
        "import sys, time, threading, os, signal; from edge_ad.cli.main import main; "
        "from edge_ad.runtime.engines.tensorrt.builder import build; "
        "from edge_ad.runtime.engines.tensorrt.builder.progress import NoProgress; "
        "steps = []; P = type('P', (NoProgress,), {'step': lambda self, *_: (steps.append(1), os.kill(os.getpid(),"
        " signal.SIGINT) if len(steps) == 3 else None, time.sleep(0.1))}); plan = build.build_plan; "
        "build.build_plan = lambda model, request, progress: plan(model, request, P()); code = main(sys.argv[1:]); "
        "print(len(steps)); sys.exit(code)"
    )
    command = ["build", str(three_precisions), "--flavour", "rtx", "--sm", "86", "--precision", "int8"]
    done = subprocess.run(
        [sys.executable, "-c", slow, *command, "--engine-cache", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 130 and done.stderr.splitlines()[-1] == "edge-ad: error: interrupted", done
    assert 3 <= int(done.stdout) < 30, done  # an uninterrupted build takes several hundred steps
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_handed_on(tmp_path: Path) -> None:
    """Many processes, each of which reads a number and writes the next: none is lost, none waits for ever."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    program = (
        "import sys; from pathlib import Path; from edge_ad.runtime.engines.tensorrt.builder.lock import locked\n"
        "path = Path(sys.argv[1])\n"
        "for _ in range(25):\n"
        "    with locked(path, lambda: None):\n"
        "        path.write_text(str(int(path.read_text()) + 1))\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(counter)]) for _ in range(4)]
    assert [process.wait(timeout=SECONDS) for process in processes] == [0] * 4
    assert counter.read_text() == "100"
    assert list(tmp_path.iterdir()) == [counter]


def test_without_locks_the_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_ad.runtime.engines.tensorrt.builder import lock

    ran = []
    monkeypatch.setattr(lock, "fcntl", None)
    with locked(tmp_path / "a.plan", lambda: None):
        ran.append(1)
    with locked(tmp_path / "no folder" / "a.plan", lambda: None):
        ran.append(2)
    assert ran == [1, 2] and list(tmp_path.iterdir()) == []
