"""Which pictures are written, and which of them stay."""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
from collections.abc import Mapping
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
from edge_ad.runtime.sinks.ages import Clocks
from edge_ad.runtime.sinks.pictures import PictureFiles
from edge_ad.runtime.sinks.retention import Limits
from edge_ad.runtime.sinks.selection import Selection

PROVENANCE = Provenance("0" * 64, "fake", "fp32")
GEOMETRY = place(PreprocessSpec(32, 32, resize=32), (32, 32))
MAPS = Maps(np.zeros((8, 8), np.float32), np.zeros((32, 32), np.float32), GEOMETRY, PostprocessSpec(), 0.5)


CLOCK = itertools.count()


def _noise(frame: Frame, verdict: Verdict) -> Any:
    return np.random.default_rng(frame.frame_id).integers(0, 256, (32, 32), np.uint8)  # about 1.1 KB each as PNG


def _write(sink: PictureFiles, number: int, reject: bool = False, source: str = "camera:0") -> None:
    frame = Frame(number, source, datetime.now(timezone.utc), next(CLOCK), np.zeros((32, 32, 3), np.uint8))
    score = 0.9 if reject else 0.1
    label = "anomalous" if reject else "normal"
    verdict = Verdict("ok", score=score, threshold=0.5, verdict=label, maps=MAPS)  # type: ignore[arg-type]
    sink.write(frame, verdict, record(frame, verdict, PROVENANCE, budget_ms=None))


def _sink(folder: Path, **more: Any) -> PictureFiles:
    return PictureFiles(folder / "masks", ".png", _noise, **more)


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("masks*/*.png"))


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("masks*/*.png"))


def test_rejects_or_a_sample_of_the_others_get_a_picture(tmp_path: Path) -> None:
    for number, (selection, wanted) in enumerate(
        [
            (Selection("all"), 300),
            (Selection("rejects"), 30),
            (Selection("sample", 0.0), 30),
            (Selection("sample", 1.0), 300),
        ]
    ):
        with _sink(tmp_path / str(number), selection=selection) as sink:
            for frame in range(300):
                _write(sink, frame, reject=frame % 10 == 0)
        assert len(_numbers(tmp_path / str(number))) == wanted
        assert set(range(0, 300, 10)) <= set(_numbers(tmp_path / str(number)))


def test_a_sample_is_drawn_evenly_and_the_same_again() -> None:
    def drawn(seed: int, rate: float = 0.1, source: str = "camera:0") -> set[int]:
        selection = Selection("sample", rate, seed)
        entries: list[Mapping[str, Any]] = [{"frame_id": n, "source": source, "verdict": "normal"} for n in range(5000)]
        return {entry["frame_id"] for entry in entries if selection.takes(entry)}

    assert drawn(1) == drawn(1)
    for one, other in itertools.combinations([drawn(1), drawn(2), drawn(1, source="camera:1")], 2):
        assert len(one) == pytest.approx(500, abs=85)  # four standard deviations
        assert len(one & other) == pytest.approx(50, abs=30)
    assert drawn(1, 0.05) < drawn(1)


def test_the_quota_is_kept_and_rejects_outlive_the_rest(tmp_path: Path) -> None:
    with _sink(tmp_path, limits=Limits(quota_bytes=20_000)) as sink:
        for number in range(100):
            _write(sink, number, reject=number % 20 == 0)
            assert _bytes(tmp_path) <= 20_000
    numbers = _numbers(tmp_path)
    rejects, others = [n for n in numbers if n % 20 == 0], [n for n in numbers if n % 20]
    assert rejects == [0, 20, 40, 60, 80]
    assert others == [n for n in range(100) if n % 20][-len(others) :]
    assert _bytes(tmp_path) > 18_000


def test_old_rejects_go_when_there_are_only_rejects(tmp_path: Path) -> None:
    with _sink(tmp_path, limits=Limits(quota_bytes=10_000)) as sink:
        for number in range(40):
            _write(sink, number, reject=True)
    numbers = _numbers(tmp_path)
    assert numbers == list(range(40 - len(numbers), 40)) and 5 < len(numbers) < 12


def test_pictures_of_earlier_runs_count_and_their_empty_folders_go(tmp_path: Path) -> None:
    for run in range(4):
        with _sink(tmp_path, limits=Limits(quota_bytes=8000)) as sink:
            for number in range(run * 5, run * 5 + 5):
                _write(sink, number)
        assert _bytes(tmp_path) <= 8000
    numbers = _numbers(tmp_path)
    assert numbers == list(range(20 - len(numbers), 20))
    assert len(list(tmp_path.glob("masks*"))) == 2  # this run's, and what is left of the one before


def test_pictures_go_by_age(tmp_path: Path) -> None:
    now_s, said = 1e9, list[str]()
    clocks = Clocks(lambda: now_s, lambda: now_s)
    with _sink(tmp_path, limits=Limits(max_age_s=60), say=said.append, clocks=clocks) as sink:
        for number in range(20):
            _write(sink, number, reject=number == 0)
            now_s += 10
        assert sink.written_off() == {"gone": 0, "expired": 14}
    assert _numbers(tmp_path) == [14, 15, 16, 17, 18, 19]
    folder = tmp_path / "masks"
    assert said == [f"{folder}: pictures deleted, older than 60 seconds: {count}" for count in (1, 13)]


def test_nothing_foreign_is_deleted(tmp_path: Path) -> None:
    """Not a file that took the place of ours, nor one behind a link, nor one that a changed index names."""
    outside = tmp_path / "outside"
    outside.mkdir()
    with _sink(tmp_path / "out", limits=Limits(quota_bytes=5000)) as sink:
        _write(sink, 0)
        _write(sink, 1)
        _write(sink, 2)
    masks = tmp_path / "out" / "masks"
    size = (masks / "000001.png").stat().st_size
    (masks / "000000.png").write_bytes(b"the user's")
    (outside / "victim.png").write_bytes(b"x" * size)
    (masks / "000001.png").unlink()
    (masks / "000001.png").symlink_to(outside / "victim.png")
    (masks / "notes.txt").write_text("the user's")
    index = sqlite3.connect(tmp_path / "out" / ".edge-ad-masks.sqlite")
    with index:
        for folder, name in (("../outside", "victim.png"), ("..", "victim.png"), ("masks", "../../outside/victim.png")):
            index.execute(
                "INSERT INTO pictures(id, folder, name, bytes, at, reject)"
                " VALUES ((SELECT min(id) FROM pictures) - 1, ?, ?, ?, 0, 0)",
                (folder, name, size),
            )
    index.close()
    with _sink(tmp_path / "out", limits=Limits(quota_bytes=3000)) as sink:
        for number in range(10, 20):
            _write(sink, number)
    (old,) = (path for path in (tmp_path / "out").glob("masks-*") if path.is_dir())
    assert sorted(path.name for path in old.iterdir()) == ["000000.png", "000001.png", "notes.txt"]
    assert (old / "000000.png").read_bytes() == b"the user's"
    assert (old / "000001.png").is_symlink()
    assert (outside / "victim.png").exists()
    assert _numbers(tmp_path / "out")[-2:] == [18, 19]


def test_a_picture_that_cannot_be_written_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _sink(tmp_path, limits=Limits(quota_bytes=5000)) as sink:
        _write(sink, 0)
        with monkeypatch.context() as patch:

            def full(*_: object) -> None:
                raise OSError(28, os.strerror(28))

            patch.setattr(Path, "write_bytes", full)
            for number in range(1, 30):
                with pytest.raises(OutputError, match="No space left"):
                    _write(sink, number)
        _write(sink, 30)
    assert _numbers(tmp_path) == [0, 30]
    assert [path.name for path in (tmp_path / "masks").iterdir() if path.name.startswith(".")] == []


def test_a_picture_larger_than_the_quota_is_an_error(tmp_path: Path) -> None:
    with (
        _sink(tmp_path, limits=Limits(quota_bytes=100)) as sink,
        pytest.raises(OutputError, match="more than the quota"),
    ):
        _write(sink, 0)


def test_a_damaged_index_does_not_stop_a_run(tmp_path: Path) -> None:
    with _sink(tmp_path, limits=Limits(quota_bytes=3000)) as sink:
        _write(sink, 0)
    (tmp_path / ".edge-ad-masks.sqlite").write_bytes(b"x" * 9000)
    with _sink(tmp_path, limits=Limits(quota_bytes=3000)) as sink:
        for number in range(1, 9):
            _write(sink, number)
    assert _numbers(tmp_path) == [0, 7, 8]  # nothing says any more whose the first one is


def test_an_index_that_is_damaged_further_in_is_set_aside(tmp_path: Path) -> None:
    """Its first rows are sound, so it opens."""
    index = tmp_path / ".edge-ad-masks.sqlite"
    with _sink(tmp_path, limits=Limits(quota_bytes=1 << 20)) as sink:
        for number in range(300):
            _write(sink, number)
    content = index.read_bytes()
    index.write_bytes(content[:-4096] + b"\xff" * 4096)
    with _sink(tmp_path, limits=Limits(quota_bytes=1 << 20)) as sink:
        _write(sink, 500)
    assert len(_numbers(tmp_path)) == 301
    with closing(sqlite3.connect(index)) as db:
        assert db.execute("SELECT name FROM pictures").fetchall() == [("000500.png",)]
    assert index.with_suffix(".damaged").exists()


def test_an_index_that_breaks_while_it_is_used_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _sink(tmp_path, limits=Limits(quota_bytes=3000)) as sink:
        _write(sink, 0)
    sink = _sink(tmp_path, limits=Limits(quota_bytes=3000))
    assert sink._retention is not None
    original = sink._retention._add_up

    def break_off() -> None:
        original()
        sink._retention._connection.execute("DROP TABLE pictures")  # type: ignore[union-attr]

    monkeypatch.setattr(sink._retention, "_add_up", break_off)
    with pytest.raises(OutputError, match="the index of pictures cannot be written"):
        sink.__enter__()


def test_pictures_of_several_sources_do_not_meet(tmp_path: Path) -> None:
    sources = ["camera:0", "rtsp://10.0.0.5/a", "rtsp://10.0.0.5/b", "line/a", "line_a"]
    with _sink(tmp_path, several=True) as sink:
        for source in sources:
            _write(sink, 7, source=source)
        _write(sink, 7, source="line_a")  # another one, of the same name
    names = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert len(names) == len(sources) + 1
    assert "line_a_000007.png" in names
    assert all(re.fullmatch(r"[A-Za-z0-9._=-]+", name) for name in names)
