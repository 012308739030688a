"""Files of records: whole lines only, full ones under a name of their own, old ones deleted and nothing else."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import OutputError
from edge_ad.runtime.host.results import RECORDS
from edge_ad.runtime.sinks import line_file, set_aside
from edge_ad.runtime.sinks import rotation as rotation_module
from edge_ad.runtime.sinks.jsonl import JsonLines
from edge_ad.runtime.sinks.line_file import LineFile
from edge_ad.runtime.sinks.rotation import Rotation, full_files
from edge_ad.runtime.sinks.syncing import SyncPolicy

Write = Callable[..., None]


def _numbers(folder: Path) -> list[int]:
    """Frames in all files, oldest file first."""
    paths = [path for path, _ in reversed(full_files(folder / RECORDS))] + [folder / RECORDS]
    return [json.loads(line)["frame_id"] for path in paths for line in path.read_text().splitlines()]


def test_full_files_get_names_with_their_date_and_nothing_is_lost(tmp_path: Path, write: Write) -> None:
    with JsonLines(tmp_path, Rotation(max_bytes=2000)) as sink:
        for number in range(40):
            write(sink, number)
            assert (tmp_path / RECORDS).stat().st_size <= 2000
    assert _numbers(tmp_path) == list(range(40))
    files = [path.name for path, _ in full_files(tmp_path / RECORDS)]
    assert len(files) > 5
    assert all(re.fullmatch(r"verdicts-\d{8}T\d{6}Z(-\d+)?\.jsonl", name) for name in files)


def test_a_file_that_somebody_follows_stays_the_same_when_it_is_full(tmp_path: Path, write: Write) -> None:
    with JsonLines(tmp_path, Rotation(max_bytes=2000)) as sink, (tmp_path / RECORDS).open() as follower:
        for number in range(8):
            write(sink, number)
        followed = [json.loads(line)["frame_id"] for line in follower]
    assert followed == list(range(len(followed))) and len(followed) < 8
    (oldest, _) = full_files(tmp_path / RECORDS)[-1]
    assert len(oldest.read_text().splitlines()) == len(followed)


def test_files_are_full_by_age(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    with JsonLines(tmp_path, Rotation(max_age_s=3600)) as sink:
        for number, now_s in enumerate([0.0, 3599.0, 3600.0, 7199.0, 7200.0, 99_999.0]):  # noqa: B007
            write(sink, number)
    sizes = [len(path.read_text().splitlines()) for path, _ in reversed(full_files(tmp_path / RECORDS))]
    assert (sizes, _numbers(tmp_path)) == ([2, 2, 1], list(range(6)))


@pytest.mark.parametrize("rotation", [Rotation(1000, keep=3), Rotation(1000, quota_bytes=3000), Rotation(1000, keep=0)])
def test_the_oldest_full_files_are_deleted_and_nothing_else(tmp_path: Path, write: Write, rotation: Rotation) -> None:
    target = tmp_path / "elsewhere.jsonl"
    target.write_text("somebody's")
    (tmp_path / "verdicts-20200101T000000Z.jsonl").symlink_to(target)
    foreign = ["verdicts-2020.jsonl", "verdicts-20200101T000000Z.jsonl.gz", "my-verdicts-20200101T000000Z.jsonl"]
    for name in foreign:
        (tmp_path / name).write_text("{}")
    (tmp_path / "verdicts-20190101T000000Z.jsonl").mkdir()
    for run in range(3):  # files of earlier runs count
        with JsonLines(tmp_path, rotation) as sink:
            for number in range(run * 20, run * 20 + 20):
                write(sink, number)
    full = full_files(tmp_path / RECORDS)
    numbers = _numbers(tmp_path)
    assert numbers == list(range(60 - len(numbers), 60))
    assert len(full) == rotation.keep if rotation.keep is not None else sum(size for _, size in full) <= 3000
    assert target.read_text() == "somebody's"
    assert all((tmp_path / name).exists() for name in foreign)
    assert (tmp_path / "verdicts-20200101T000000Z.jsonl").is_symlink()
    assert (tmp_path / "verdicts-20190101T000000Z.jsonl").is_dir()


def test_a_folder_that_cannot_be_listed_costs_no_record(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> list[tuple[Path, int]]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(rotation_module, "full_files", refuse)
    said: list[str] = []
    with JsonLines(tmp_path, Rotation(1000, keep=3), say=said.append) as sink:
        for number in range(8):
            write(sink, number)
    assert _numbers(tmp_path) == list(range(8))
    assert said[0] == f"warning: {tmp_path}: full files cannot be looked for: Input/output error"


def test_names_within_a_second_keep_their_order_when_older_ones_are_gone(tmp_path: Path) -> None:
    path = tmp_path / RECORDS
    moved = []
    for number in range(4):
        path.write_text(str(number))
        os.utime(path, (1e9, 1e9))
        moved.append(set_aside(path))
        if number == 1:
            assert moved[0] is not None
            moved[0].unlink()
    assert [file.read_text() for file, _ in full_files(path)] == ["3", "2", "1"]


class Disk:
    """Takes so many bytes more; a write that does not fit is cut short, the next one fails, as a real one does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free: int | None = None
        self.flushes = 0
        self.flush_fails = False
        outer, fsync = self, os.fsync

        class Limited:
            def __init__(self, file: Any) -> None:
                self._file = file

            def write(self, data: Any) -> int:
                if outer.free is None:
                    return int(self._file.write(data))
                if outer.free == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                count = self._file.write(data[: outer.free])
                outer.free -= count
                return int(count)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._file, name)

        original = LineFile.__init__

        def init(this: LineFile, path: Path, **more: Any) -> None:
            original(this, path, **more)
            this._file = Limited(this._file)  # type: ignore[assignment]

        monkeypatch.setattr(LineFile, "__init__", init)

        def flush(handle: int) -> None:
            outer.flushes += 1
            if outer.flush_fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            fsync(handle)

        monkeypatch.setattr(line_file.os, "fsync", flush)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(
    steps=st.lists(st.sampled_from(["write", "write", "fills", "empties", "flush fails", "flush works"]), max_size=30)
)
def test_every_line_in_the_file_is_whole_whatever_the_disk_does(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """What raises is not in the file, so that writing it again, as the queue does, writes it once."""
    folder = tmp_path_factory.mktemp("disk")
    rng = random.Random(len(steps))
    kept = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk = Disk(monkeypatch)
        with JsonLines(folder, Rotation(max_bytes=400), SyncPolicy(0)) as sink:
            for number, step in enumerate(steps):
                if step == "fills":
                    disk.free = rng.randrange(60)
                elif step == "empties":
                    disk.free = None
                elif step != "write":
                    disk.flush_fails = step == "flush fails"
                else:
                    for _ in range(2):
                        try:
                            sink.event({"frame_id": number, "x": "y" * rng.randrange(60)})
                            kept.append(number)
                            break
                        except OutputError:
                            continue
                whole = [path for path, _ in full_files(folder / RECORDS)] + [folder / RECORDS]
                assert all(path.read_bytes()[-1:] in (b"", b"\n") for path in whole if path.exists())
            disk.free, disk.flush_fails = None, False
    assert _numbers(folder) == kept


def test_a_full_disk_is_an_error_that_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    with JsonLines(tmp_path) as sink:
        sink.event({"frame_id": 0})
        disk.free = 7
        with pytest.raises(OutputError, match=r"verdicts\.jsonl: cannot be written: No space left on device"):
            sink.event({"frame_id": 1})
        assert (disk.free, (tmp_path / RECORDS).read_bytes()) == (0, b'{"frame_id": 0}\n')
        disk.free = None
        sink.event({"frame_id": 1})
    assert _numbers(tmp_path) == [0, 1]


def test_a_policy_flushes_as_often_as_it_says(
    tmp_path: Path, write: Write, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    for policy, most in ((SyncPolicy(None), 0), (SyncPolicy(1000), 1), (SyncPolicy(0), 10)):
        disk.flushes = 0
        with JsonLines(tmp_path, None, policy) as sink:
            for number in range(10):
                write(sink, number)
        assert disk.flushes == most  # with an interval, the last time when the run ends
    disk.flushes = 0
    said: list[str] = []
    with JsonLines(tmp_path, None, SyncPolicy(0.01), said.append) as sink:
        write(sink, 0)
        until(lambda: disk.flushes == 1)  # though no other record comes
        disk.flush_fails = True
        write(sink, 1)
        until(lambda: disk.flushes > 3)
        disk.flush_fails = False
        until(lambda: not sink._flusher.failed)
    assert len(said) == 1 and "cannot be flushed: Input/output error" in said[0]


WRITER = """
import sys
from pathlib import Path
from edge_ad.runtime.sinks.jsonl import JsonLines
from edge_ad.runtime.sinks.rotation import Rotation
with JsonLines(Path(sys.argv[1]), Rotation(max_bytes=5000)) as sink:
    for number in range(1 << 40):
        sink.event({"frame_id": number, "x": "y" * (number % 900)})
        print(number, flush=True)
"""


def test_a_kill_at_any_moment_loses_no_line_that_was_written(tmp_path: Path) -> None:
    for delay in (1, 60, 400):
        folder = tmp_path / str(delay)
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(delay):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split("\n")[:-1]
        process.stdout.close()
        process.wait(20)
        last = int(rest[-1]) if rest else delay - 1
        if not (folder / RECORDS).exists():  # killed between two files
            (folder / RECORDS).touch()
        numbers = _numbers(folder)
        assert numbers == list(range(len(numbers)))
        assert numbers[-1] in (last, last + 1)
