"""Storms of signals at whole commands, from their start to their end: the line goes on, or ends as it was asked to."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest
from patience import wait_until

from edge_ad.bundle.files import sha256_of_each

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
    pytest.mark.usefixtures("heard_interrupts"),
]
PATIENCE_S = 30
STORM = 400
DISC = Path(str(resources.files("edge_ad.demo") / "disc.edgead"))
SOURCE = "sim:?fps=60&size=160x120"


class Command:
    """`edge-ad` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.records = folder / "out" / "verdicts.jsonl"
        self._said = folder / "said"
        with self._said.open("w") as said:
            command = [sys.executable, "-m", "edge_ad", *arguments]
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)

    @property
    def said(self) -> str:
        return self._said.read_text()

    @property
    def count(self) -> int:
        return self.records.read_bytes().count(b"\n") if self.records.exists() else 0

    def storm(self, number: int) -> None:
        for _ in range(STORM):
            self.process.send_signal(number)

    def until(self, holds: Callable[[], bool]) -> None:
        wait_until(lambda: holds() or self.process.poll() is not None)
        assert holds(), self.said

    def ended(self) -> int:
        code = self.process.wait(PATIENCE_S)
        assert "Traceback" not in self.said and "Exception ignored" not in self.said, self.said
        return code


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Command]:
    command = Command(folder, *arguments)
    try:
        yield command
    finally:
        command.process.kill()
        command.process.wait()


def line_file(folder: Path) -> list[str]:
    """Options for a line that is described by a file."""
    text = f"bundle: {DISC}\nengine: fake\noutput: {folder / 'out'}\ncameras: [{{source: '{SOURCE}'}}]\n"
    (folder / "line.yaml").write_text(text)
    return ["run", "-c", str(folder / "line.yaml")]


def options(folder: Path) -> list[str]:
    return ["run", str(DISC), "--engine", "fake", "--source", SOURCE, "--output", str(folder / "out")]


@pytest.mark.parametrize("arguments", [line_file, options])
def test_a_storm_of_hangups_leaves_a_line_that_goes_on_and_can_be_stopped(
    arguments: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    with running(tmp_path, *arguments(tmp_path), "--http", "0") as command:
        command.until(lambda: "listening" in command.said)
        command.storm(signal.SIGHUP)
        command.until(lambda: command.count > 20)
        before = command.count
        command.storm(signal.SIGHUP)
        command.until(lambda: command.count > before + 20)
        has_file = arguments is line_file
        command.until(lambda: ("thresholds read again" in command.said) == has_file)
        command.storm(signal.SIGHUP)
        command.storm(signal.SIGTERM)
        assert command.ended() == 130
    assert command.said.count("SIGHUP is ignored") == (0 if has_file else 1)
    numbers = [json.loads(line)["frame_id"] for line in command.records.read_text().splitlines()]
    assert numbers == list(range(len(numbers)))
    assert f"{len(numbers)} frames captured" in command.said and "stopped by the user" in command.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_storm_of_requests_to_end_is_one_request(number: int, tmp_path: Path) -> None:
    with running(tmp_path, *options(tmp_path)) as command:
        command.until(lambda: command.count > 5)
        command.storm(number)
        assert command.ended() == 130
    assert f"{command.count} frames captured" in command.said and "stopped by the user" in command.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_storm_at_the_start_ends_a_line_that_has_not_begun(number: int, tmp_path: Path) -> None:
    with running(tmp_path, *options(tmp_path), "--http", "0") as command:
        command.until(lambda: "listening" in command.said)
        command.storm(number)
        assert command.ended() == 130


def hears(process: int, number: int) -> bool:
    """Whether a process has taken a signal over."""
    text = Path(f"/proc/{process}/status").read_text()
    (caught,) = (line.split()[1] for line in text.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_storm_at_the_first_line_of_a_command(number: int, tmp_path: Path) -> None:
    """Python takes SIGINT over before that, so one that is taken over last is looked for."""
    with running(tmp_path, *options(tmp_path), "--max-frames", "5") as command:
        command.until(lambda: hears(command.process.pid, signal.SIGHUP))
        command.storm(number)
        assert command.ended() == (0 if number == signal.SIGHUP else 130)
    assert command.count == (5 if number == signal.SIGHUP else 0)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_storm_at_the_end_changes_nothing_or_ends_it(number: int, tmp_path: Path) -> None:
    with running(tmp_path, *options(tmp_path), "--max-frames", "40") as command:
        command.until(lambda: command.count == 40)
        command.storm(number)
        assert command.ended() in ({0} if number == signal.SIGHUP else {0, 130})
    assert command.count == 40


def test_no_other_command_ends_of_a_hangup(tmp_path: Path) -> None:
    with running(tmp_path, "soak", "--seconds", "2", "--cameras", "1") as command:
        time.sleep(0.5)
        command.storm(signal.SIGHUP)
        assert command.ended() == 0


def test_a_bundle_is_hashed_no_longer_than_somebody_waits_for_it() -> None:
    def paths() -> Iterator[Path]:
        yield Path("/dev/zero")  # it never ends
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sha256_of_each(paths())


def test_a_large_bundle_is_given_up_at_the_first_request(tmp_path: Path) -> None:
    bundle = tmp_path / "large.edgead"
    bundle.mkdir()
    (bundle / "model.onnx").write_bytes((DISC / "model.onnx").read_bytes())
    text = (DISC / "manifest.yaml").read_text()
    for number in range(60):
        (bundle / f"{number}").touch()
        os.truncate(bundle / f"{number}", 2**31 - 1)  # a hole: takes no room, and some seconds to be hashed
        text = text.replace("\nfiles:\n", f"\nfiles:\n  '{number}': {'a' * 64}\n")
    (bundle / "manifest.yaml").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (bundle / "manifest.sha256").write_text(f"{digest}  manifest.yaml\n")
    with running(tmp_path, "run", str(bundle), *options(tmp_path)[2:], "--http", "0") as command:
        command.until(lambda: "listening" in command.said)
        time.sleep(0.2)
        command.process.terminate()
        assert command.ended() == 130
    assert command.said.split()[-1] == "interrupted" and not command.records.parent.exists()


def test_a_job_in_the_background_does_not_hear_ctrl_c(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell without job control starts one
    try:
        with running(tmp_path, *options(tmp_path)) as command:
            signal.signal(signal.SIGINT, before)
            command.until(lambda: command.count > 5)
            command.process.send_signal(signal.SIGINT)
            count = command.count
            command.until(lambda: command.count > count + 20)
            command.process.terminate()
            assert command.ended() == 130
    finally:
        signal.signal(signal.SIGINT, before)
