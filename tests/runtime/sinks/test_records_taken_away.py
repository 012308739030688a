"""Somebody removes, moves, replaces or empties the file of records under the line: noticed, said, and counted."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import OutputError
from edge_ad.runtime.host import held as held_module
from edge_ad.runtime.host import results as results_module
from edge_ad.runtime.host.results import LEDGER, RECORDS, ResultFolder, claim, claims, is_drawn
from edge_ad.runtime.sinks.jsonl import JsonLines
from edge_ad.runtime.sinks.rotation import Rotation, full_files
from edge_ad.runtime.sinks.syncing import SyncPolicy


def put(sink: JsonLines, *numbers: int) -> None:
    for number in numbers:
        sink.event({"frame_id": number})


def found(*paths: Path) -> list[int]:
    """Frames in files, in which every line is whole."""
    return [json.loads(line)["frame_id"] for path in paths for line in path.read_bytes().decode("ascii").splitlines()]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def sink(tmp_path: Path, said: list[str]) -> Iterator[JsonLines]:
    with JsonLines(tmp_path / "out", say=said.append) as sink:
        put(sink, 0, 1, 2)
        yield sink


def test_a_file_that_is_removed_is_begun_anew_and_what_was_in_it_is_gone(sink: JsonLines, said: list[str]) -> None:
    assert sink.path is not None
    sink.path.unlink()
    put(sink, 3, 4)
    assert found(sink.path) == [3, 4]
    assert (sink.written_off(), sink.written_off()) == ({"gone": 3}, {"gone": 0})
    lost = "records lost: 3"
    assert said == [f"warning: {sink.path}: somebody has removed or replaced it: {lost}; a new one is begun"]


def test_it_is_noticed_without_a_record(sink: JsonLines, said: list[str]) -> None:
    assert sink.path is not None
    sink.look()
    assert said == []
    sink.path.unlink()
    sink.look()
    assert (sink.path.read_bytes(), sink.written_off()) == (b"", {"gone": 3})
    assert len(said) == 1


def test_the_folder_is_made_again(sink: JsonLines) -> None:
    assert sink.path is not None
    shutil.rmtree(sink.path.parent)
    put(sink, 3)
    assert (found(sink.path), sink.written_off()) == ([3], {"gone": 3})


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_moved_keeps_its_records(sink: JsonLines, tmp_path: Path, said: list[str], what: str) -> None:
    assert sink.path is not None
    moved = tmp_path / "moved.jsonl"
    if what == "file":
        sink.path.rename(moved)
    else:
        sink.path.parent.rename(tmp_path / "elsewhere")
        moved = tmp_path / "elsewhere" / RECORDS
    put(sink, 3, 4, 5)
    assert found(moved, sink.path) == [0, 1, 2, 3, 4, 5]
    assert sink.written_off() == {"gone": 0}
    assert said == [f"{sink.path}: somebody has moved it to {moved}; a new one is begun"]


@pytest.mark.parametrize("content", [b"", b"somebody's", b'{"frame_id": 7}\n'])
def test_what_takes_its_place_is_kept(sink: JsonLines, tmp_path: Path, content: bytes) -> None:
    """logrotate makes an empty file, with the rights that it should have; an editor one with content."""
    assert sink.path is not None
    (tmp_path / "new").write_bytes(content)
    (tmp_path / "new").chmod(0o640)
    (tmp_path / "new").replace(sink.path)
    put(sink, 3, 4)
    assert sink.written_off() == {"gone": 3}
    kept = [path.read_bytes() for path, _ in full_files(sink.path)]
    assert kept == ([content] if content else [])
    assert found(sink.path) == [3, 4]
    if not content:
        assert sink.path.stat().st_mode & 0o777 == 0o640


def test_a_link_in_its_place_is_not_followed(sink: JsonLines, tmp_path: Path) -> None:
    assert sink.path is not None
    sink.path.unlink()
    sink.path.symlink_to(tmp_path / "victim")
    put(sink, 3)
    assert found(sink.path) == [3] and not (tmp_path / "victim").exists()


@pytest.mark.parametrize("left", [0, 1, 16, 17, 31, 32, 33, 47])
def test_a_file_that_is_truncated_goes_on_at_its_end(sink: JsonLines, said: list[str], left: int) -> None:
    """As by logrotate's copytruncate; of lines that are cut in two nothing stays."""
    assert sink.path is not None
    size = len(b'{"frame_id": 0}\n')
    os.truncate(sink.path, left)
    put(sink, 3, 4)
    whole = left // size
    assert found(sink.path) == [*range(whole), 3, 4]
    assert sink.written_off() == {"gone": 3 - whole}
    assert said == [f"warning: {sink.path}: somebody has truncated it: records lost: {3 - whole}"]


@pytest.mark.parametrize("suffix", [".1", "-20260131", ".1.gz"])
@pytest.mark.parametrize("between", [0, 1, 5])
def test_what_was_copied_before_is_not_lost(sink: JsonLines, said: list[str], suffix: str, between: int) -> None:
    """logrotate's copytruncate loses what is written between its two steps: exactly that is counted."""
    assert sink.path is not None
    for _ in range(2):
        put(sink, *range(3, 50))
        copy = sink.path.with_name(sink.path.name + suffix)
        if suffix.endswith("gz"):
            copy.write_bytes(gzip.compress(sink.path.read_bytes()))
        else:
            shutil.copyfile(sink.path, copy)
        put(sink, *range(50, 50 + between))
        os.truncate(sink.path, 0)
        put(sink, 70, 71)
        assert found(sink.path) == [70, 71]
        assert sink.written_off() == {"gone": between}
    what = f"records lost: {between}" if between else "its records are in a copy beside it"
    line = f"{'warning: ' if between else ''}{sink.path}: somebody has truncated it: {what}"
    assert said == [line, line]


def test_what_was_compressed_and_then_removed_is_not_lost(sink: JsonLines, said: list[str]) -> None:
    """logrotate moves a file, makes an empty one, compresses the old one and deletes it, all within milliseconds."""
    assert sink.path is not None
    moved = sink.path.with_name(f"{sink.path.name}.1")
    sink.path.rename(moved)
    sink.path.touch()
    moved.with_name(f"{moved.name}.gz").write_bytes(gzip.compress(moved.read_bytes()))
    moved.unlink()
    put(sink, 3)
    assert (found(sink.path), sink.written_off()) == ([3], {"gone": 0})
    what = "its records are in a copy beside it"
    assert said == [f"{sink.path}: somebody has removed or replaced it: {what}; a new one is begun"]


@pytest.mark.parametrize("content", [b"", b"somebody's", b'{"frame_id": 0}\n{"frame_id": 5}\n', b"\x1f\x8bno archive"])
def test_control_a_file_beside_it_is_no_copy(sink: JsonLines, content: bytes) -> None:
    assert sink.path is not None
    for suffix in (".1", ".2.gz"):
        sink.path.with_name(sink.path.name + suffix).write_bytes(content)
    os.truncate(sink.path, 0)
    put(sink, 3)
    whole = content.startswith(b'{"frame_id": 0}\n')
    assert sink.written_off() == {"gone": 2 if whole else 3}


def test_others_may_write_there_too(sink: JsonLines) -> None:
    assert sink.path is not None
    with sink.path.open("ab") as other:
        other.write(b"no break")
    put(sink, 3)
    assert sink.path.read_bytes().splitlines()[3:] == [b"no break", b'{"frame_id": 3}']
    assert sink.written_off() == {"gone": 0}


def test_a_folder_that_cannot_be_made_is_an_error_until_it_can(
    sink: JsonLines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sink.path is not None
    shutil.rmtree(sink.path.parent)
    sink.path.parent.write_text("in its way")
    with pytest.raises(OutputError, match="cannot be made again"):
        put(sink, 3)
    with pytest.raises(OutputError, match="cannot be made again"):
        sink.look()
    sink.path.parent.unlink()
    put(sink, 3)
    assert (found(sink.path), sink.written_off()) == ([3], {"gone": 3})


def test_a_share_that_is_not_mounted_any_more_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be written to the folder below it fills another disk."""
    mounted, ismount = {tmp_path}, os.path.ismount
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) in mounted or ismount(path))
    with JsonLines(tmp_path / "out") as sink:
        put(sink, 0)
        shutil.rmtree(tmp_path / "out")
        mounted.clear()
        with pytest.raises(OutputError, match=f"nothing is mounted at {tmp_path} any more"):
            put(sink, 1)
        assert list(tmp_path.iterdir()) == []
        mounted.add(tmp_path)
        put(sink, 1)
    assert found(tmp_path / "out" / RECORDS) == [1]


def test_a_file_system_that_does_not_answer_takes_nothing_away(
    sink: JsonLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(held_module.os, "stat", fail)
        put(sink, 3)
    assert sink.path is not None
    assert (found(sink.path), sink.written_off()) == ([0, 1, 2, 3], {"gone": 0})


def test_what_happens_over_and_over_is_said_six_times(sink: JsonLines, said: list[str]) -> None:
    assert sink.path is not None
    for number in range(30):
        sink.path.unlink()
        put(sink, number)
    assert len(said) == 6
    assert sink.written_off() == {"gone": 3 + 29}


ACTS: list[Callable[[Path, Path], None]] = [
    lambda path, aside: path.unlink(missing_ok=True),
    lambda path, aside: path.rename(aside),
    lambda path, aside: os.truncate(path, 0),
    lambda path, aside: shutil.rmtree(path.parent),
]


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.integers(0, 9), max_size=25), sync=st.sampled_from([None, 0.0, 1000.0]))
def test_what_is_delivered_is_found(
    steps: list[int], sync: float | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is done to the file, and in whatever order, with files that fill up meanwhile."""
    top = tmp_path_factory.mktemp("away")
    rotation = Rotation(max_bytes=100)
    with JsonLines(top / "out", rotation, SyncPolicy(sync)) as sink:
        written = 0
        for number, step in enumerate(steps):
            if step < len(ACTS):
                ACTS[step](top / "out" / RECORDS, top / f"aside-{number}.jsonl")
                sink.look()
            else:
                put(sink, number)
                written += 1
        gone = sink.written_off()["gone"]
        numbers = found(*top.glob("aside-*.jsonl"), *(top / "out").glob("verdicts*.jsonl"))
        assert len(numbers) == len(set(numbers)) == written - gone


@pytest.mark.parametrize("act", [0, 1])
def test_somebody_else_at_any_moment(tmp_path: Path, act: int) -> None:
    """Not between two records but while they are written; each is found, is gone, or comes again."""
    over = threading.Event()
    rng = random.Random(act)

    def disturb() -> None:
        number = 0
        while not over.wait(rng.random() / 500):
            number += 1
            try:
                ACTS[act](tmp_path / "out" / RECORDS, tmp_path / f"aside-{number}.jsonl")
            except OSError:
                continue

    other = threading.Thread(target=disturb)
    with JsonLines(tmp_path / "out") as sink:
        other.start()
        for number in range(3000):
            while True:
                try:
                    put(sink, number)
                    break
                except OutputError:  # the queue tries again
                    continue
        over.set()
        other.join()
        sink.look()
        gone = sink.written_off()["gone"]
    numbers = found(*tmp_path.glob("aside-*.jsonl"), tmp_path / "out" / RECORDS)
    assert len(numbers) == len(set(numbers)) == 3000 - gone
    assert gone > 0 if act == 0 else gone == 0


def test_full_files_are_in_order_whatever_the_clock_says(tmp_path: Path) -> None:
    """The oldest go, not those with the oldest date: the clock has jumped ahead, and fallen back."""
    dates = [1.7e9, 2.1e9, 0.0, 1.7e9, 1.7e9 + 1]
    with JsonLines(tmp_path, Rotation(max_bytes=10, keep=3)) as sink:
        for number, date in enumerate(dates):
            put(sink, number)
            os.utime(tmp_path / RECORDS, (date, date))
        put(sink, 5)
    kept = full_files(tmp_path / RECORDS)
    assert [found(path) for path, _ in kept] == [[4], [3], [2]]


def test_the_folder_stays_locked_when_it_is_taken_away(
    tmp_path: Path, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_module, "LOOK_S", 0.02)
    folder, said = tmp_path / "out", list[str]()
    with ResultFolder(folder, said.append):
        claim(folder / "masks")
        for take_away in (
            shutil.rmtree,
            lambda path: path.rename(tmp_path / "moved"),
            lambda path: (path / LEDGER).unlink(),
        ):
            take_away(folder)
            until(lambda: (folder / LEDGER).exists())
            until(lambda: is_drawn(folder / "masks"))  # what edge-ad may delete is still known
            with pytest.raises(OutputError, match="another run"):
                ResultFolder(folder).__enter__()
        assert said == []
        (folder / LEDGER).unlink()
        with ResultFolder(folder):  # a run that began meanwhile has it now
            until(lambda: bool(said))
            assert "another run writes here" in said[0]
        until(lambda: "masks" in claims(folder))
