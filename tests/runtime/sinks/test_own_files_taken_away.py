"""Somebody takes away what edge-ad keeps for itself: spools and the index of pictures are written again."""

from __future__ import annotations

import gc
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.errors import OutputError
from edge_ad.image.frame import Frame
from edge_ad.image.geometry import place
from edge_ad.record.verdict import Maps, Provenance, Verdict, record
from edge_ad.runtime.host.results import LEDGER, claim, is_drawn
from edge_ad.runtime.sinks import spool as spool_module
from edge_ad.runtime.sinks.pictures import PictureFiles
from edge_ad.runtime.sinks.rescue import MAX_REWRITES, OwnNames
from edge_ad.runtime.sinks.retention import Limits

GEOMETRY = place(PreprocessSpec(32, 32, resize=32), (32, 32))
MAPS = Maps(np.zeros((8, 8), np.float32), np.zeros((32, 32), np.float32), GEOMETRY, PostprocessSpec(), 0.5)

TAKEN: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.unlink(),
    "log": lambda path: path.with_name(f"{path.name}-wal").unlink(),
    "folder": lambda path: shutil.rmtree(path.parent),
    "moved": lambda path: path.rename(path.with_name("moved")),
    "folder moved": lambda path: path.parent.rename(path.parent.with_name("elsewhere")),
    "replaced": lambda path: (path.with_name("new").write_bytes(b"somebody's"), path.with_name("new").replace(path)),
}


@pytest.mark.parametrize("take", TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("by", ["put", "read", "look"])
def test_a_spool_loses_no_line(make_spool: Any, take: Callable[[Path], object], by: str) -> None:
    said: list[str] = []
    lines = [json.dumps({"number": number}) for number in range(40)]
    with make_spool(say=said.append) as spool:
        for line in lines[:30]:
            spool.put(line)
        spool.delivered([number for number, _ in spool.read(limit=5)])
        spool.refuse(6, "no")
        take(spool.path)
        if by == "look":
            spool.look()
        if by != "put":
            assert [line for _, line in spool.read(limit=100)] == lines[6:30]
        for line in lines[30:]:
            spool.put(line)
        counts = spool.counts()
        assert (counts.taken, counts.delivered, counts.lost, counts.waiting) == (40, 5, 1, 34)
        assert [reason for _, reason in spool.aside()] == ["no"]
    assert len(said) == 1 and f"{spool.path}: somebody has taken it away; it is written again" in said[0]
    with make_spool() as spool:  # and the next run finds it
        assert [line for _, line in spool.read(limit=100)] == lines[6:]
        assert spool.totals() == {"taken": 40, "delivered": 5, "lost": 1}
    kept = list(spool.path.parent.glob("spool-*.sqlite"))
    assert [path.read_bytes() for path in kept] == ([b"somebody's"] if take is TAKEN["replaced"] else [])


@pytest.mark.parametrize("times", [1, 4, 20])
def test_a_folder_that_is_deleted_file_by_file_takes_the_new_file_as_well(
    make_spool: Any, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """The file that was written again is gone before it is open."""
    left = times
    opened = spool_module.open_file

    def open_file(path: Path, **settings: Any) -> sqlite3.Connection:
        nonlocal left
        if left:
            left -= 1
            path.unlink()
        return opened(path, **settings)

    with make_spool() as spool:
        spool.put("a")
        monkeypatch.setattr(spool_module, "open_file", open_file)
        shutil.rmtree(spool.path.parent)
        while left >= MAX_REWRITES:
            with pytest.raises(OutputError, match="as often as it is written"):
                spool.put("b")
        spool.put("b")
        assert [line for _, line in spool.read()] == ["a", "b"]
        assert (spool.totals(), spool.counts().lost) == ({"taken": 2, "delivered": 0, "lost": 0}, 0)


def test_what_is_taken_away_last_is_there_when_the_spool_is_closed(make_spool: Any) -> None:
    with make_spool() as spool:
        spool.put("a")
        shutil.rmtree(spool.path.parent)
    with make_spool() as spool:
        assert [line for _, line in spool.read()] == ["a"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_names_that_cannot_all_be_held_hold_nothing(tmp_path: Path) -> None:
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        with pytest.raises(FileNotFoundError):
            OwnNames(tmp_path / "gone.sqlite")
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_spool_that_cannot_be_written_again_keeps_its_lines_until_it_can(make_spool: Any) -> None:
    with make_spool() as spool:
        spool.put("a")
        shutil.rmtree(spool.path.parent)
        spool.path.parent.write_text("in its way")
        for _ in range(2):
            with pytest.raises(OutputError, match="cannot be made again"):
                spool.put("b")
        spool.path.parent.unlink()
        spool.put("b")
        assert [line for _, line in spool.read()] == ["a", "b"]


def put(sink: PictureFiles, number: int) -> None:
    noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
    frame = Frame(number, "a", datetime.now(timezone.utc), number, noise)
    verdict = Verdict("ok", score=0.1, threshold=0.5, verdict="normal", maps=MAPS)
    sink.write(frame, verdict, record(frame, verdict, Provenance("0" * 64, "fake", "fp32"), budget_ms=None))


def pictures(folder: Path, say: Callable[[str], None], **more: Any) -> PictureFiles:
    limits = Limits(quota_bytes=20_000)
    return PictureFiles(folder, ".png", lambda frame, _: frame.image_hwc[:, :, 0], limits=limits, say=say, **more)


def numbers(*folders: Path) -> list[int]:
    return sorted(int(path.stem) for folder in folders for path in folder.glob("*.png"))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("looks", [False, True])
def test_a_folder_of_pictures_is_made_again(tmp_path: Path, whole: bool, moved: bool, looks: bool) -> None:
    folder, said = tmp_path / "out" / "masks", list[str]()
    with pictures(folder, said.append) as sink:
        for number in range(5):
            put(sink, number)
        taken = folder.parent if whole else folder
        if moved:
            taken.rename(tmp_path / "moved")
        else:
            shutil.rmtree(taken)
        if looks:
            sink.look()
            assert is_drawn(folder)
        put(sink, 5)
        assert sink.written_off() == {"gone": 0 if moved else 5, "expired": 0}
        for number in range(6, 60):
            put(sink, number)
        left = numbers(folder)
        assert left == list(range(60 - len(left), 60))
        assert 12_000 < sum(path.stat().st_size for path in folder.iterdir()) <= 20_000  # the quota holds on
        if moved:
            assert numbers(tmp_path / "moved" / "masks" if whole else tmp_path / "moved") == [0, 1, 2, 3, 4]
    what, lost = ("moved", 0) if moved else ("removed", 5)
    assert f"{folder}: somebody has {what} it; it is made again; pictures lost: {lost}" in said[0]
    with pictures(folder, said.append) as sink:  # pictures of this run are edge-ad's in the next one
        for number in range(60, 100):
            put(sink, number)
    assert numbers(*folder.parent.glob("masks*")) == list(range(100 - len(left), 100))


@pytest.mark.parametrize("take", TAKEN.values(), ids=TAKEN)
def test_the_index_of_pictures_is_written_again(tmp_path: Path, take: Callable[[Path], object]) -> None:
    folder, said = tmp_path / "out" / "masks", list[str]()
    with pictures(folder, said.append) as sink:
        for number in range(30):
            put(sink, number)
        index = folder.with_name(".edge-ad-masks.sqlite")
        take(index)
        for number in range(30, 60):
            put(sink, number)
        with closing(sqlite3.connect(index)) as db:
            known = {name for (name,) in db.execute("SELECT name FROM pictures")}
        assert {path.name for path in folder.iterdir()} <= known
        left = numbers(folder)
        assert left == list(range(60 - len(left), 60)) and len(left) < 20
    assert any("it is written again" in line for line in said)


def test_the_ledger_without_which_nothing_is_deleted_is_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "masks"
    with pictures(folder, lambda _: None) as sink:
        put(sink, 0)
        claim(folder.with_name("overlays"))
        (folder.parent / LEDGER).unlink()
        put(sink, 1)
        assert is_drawn(folder)
