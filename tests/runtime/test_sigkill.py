"""`edge-ad run` is killed without a warning, and started again: what was recorded is whole."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pytest

BUNDLE = Path(str(resources.files("edge_ad.demo") / "disc.edgead"))
PATIENCE_S = 60
ROUNDS = 4


def start(folder: Path) -> subprocess.Popen[bytes]:
    source = ["--source", "sim:?fps=300&size=64x64", "--source", "sim:?fps=200&size=64x64&seed=1"]
    arguments = ["run", str(BUNDLE), "--engine", "fake", *source, "--output", str(folder)]
    return subprocess.Popen([sys.executable, "-m", "edge_ad.cli.main", *arguments], stderr=subprocess.DEVNULL)


def kill_after_records(process: subprocess.Popen[bytes], file: Path, count: int, wait_s: float) -> bytes:
    """Kill a run some time after it has written so many records. Returns: what the file held just before."""
    old = file.stat().st_ino if file.exists() else None
    try:
        until_s = time.monotonic() + PATIENCE_S
        while not (file.exists() and file.stat().st_ino != old and file.read_bytes().count(b"\n") >= count):
            assert process.poll() is None
            assert time.monotonic() < until_s
            time.sleep(0.005)
        time.sleep(wait_s)
        return file.read_bytes()
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def check_records(content: bytes) -> int:
    """Whole lines, and of each camera all numbers from 0 on; only the end of the last line may be missing."""
    *lines, last = content.split(b"\n")
    assert b"}" not in last  # empty, or a line that was cut off
    numbers: dict[str, int] = {}
    for line in lines:
        entry = json.loads(line)
        assert entry["frame_id"] == numbers.get(entry["source"], 0)
        numbers[entry["source"]] = entry["frame_id"] + 1
    return len(lines)


def test_killed_at_any_moment_it_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    rng = random.Random(0)
    folder = tmp_path / "out"
    file = folder / "verdicts.jsonl"
    earlier: list[bytes] = []
    for number in range(ROUNDS):
        before = kill_after_records(start(folder), file, rng.randrange(1, 60), rng.uniform(0, 0.1))
        content = file.read_bytes()
        assert content.startswith(before)
        assert check_records(content) >= before.count(b"\n") > 0
        aside = {path: path.read_bytes() for path in folder.glob("verdicts-*.jsonl")}
        assert sorted(aside.values()) == sorted(earlier)  # whole, under another name, and not touched again
        earlier.append(content)
        if number == 1:  # and once before it has written anything
            process = start(folder)
            time.sleep(rng.uniform(0, 0.4))
            process.kill()
            process.wait(PATIENCE_S)
            found = [path.read_bytes() for path in folder.glob("verdicts*.jsonl")]
            assert all(content in found for content in earlier)
            earlier += [content for content in found if content not in earlier]


@pytest.mark.parametrize(
    "damage",
    [
        b'{"frame_id": 0, "source": "a"}\n{"frame_id": 2, "source": "a"}\n',  # a record is missing
        b'{"frame_id": 0, "source": "a"}\n{"frame_id": 0, "source": "a"}\n',  # a record twice
        b'{"frame_id": 0, "sou\n{"frame_id": 1, "source": "a"}\n',  # torn in the middle
    ],
)
def test_control_damage_is_seen(damage: bytes) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check_records(damage)
