"""A clock that jumps, falls back or is set right deletes nothing that is not too old; what is goes, and is said."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.image.frame import Frame
from edge_ad.image.geometry import place
from edge_ad.record.timestamps import utc_text
from edge_ad.record.verdict import Maps, Provenance, Verdict, record
from edge_ad.runtime.sinks.ages import BELIEVED_S, Clocks, Deletions, in_words
from edge_ad.runtime.sinks.pictures import PictureFiles
from edge_ad.runtime.sinks.retention import Limits
from edge_ad.runtime.sinks.sqlite import SqliteRecords

DAY_S = 86400.0
TODAY_S = datetime(2026, 7, 1, tzinfo=timezone.utc).timestamp()
MAPS = Maps(
    np.zeros((8, 8), np.float32),
    np.zeros((32, 32), np.float32),
    place(PreprocessSpec(32, 32, resize=32), (32, 32)),
    PostprocessSpec(),
    0.5,
)


class Station:
    """A machine whose clock may be wrong. Attributes: true_s: time that has passed. wrong_s: what its clock adds."""

    def __init__(self, path: Path) -> None:
        self.true_s = self.wrong_s = 0.0
        self.said: list[str] = []
        self.clocks = Clocks(lambda: TODAY_S + self.true_s + self.wrong_s, lambda: 1000 + self.true_s)
        self.number = 0
        self.path = path

    def dated(self) -> str:
        return utc_text(datetime.fromtimestamp(self.clocks.now_s(), timezone.utc))


class Rows(Station):
    """With a database that keeps 90 days."""

    def run(self) -> SqliteRecords:
        return SqliteRecords(self.path, f"run {self.true_s}", keep_days=90, say=self.said.append, clocks=self.clocks)

    def put(self, sink: Any, count: int = 1, at: str | None = None) -> None:
        common = {"source": "a", "status": "ok", "bundle": "b" * 64, "captured_at": at or self.dated()}
        numbers = range(self.number, self.number + count)
        sink.write_many([{**common, "frame_id": one, "captured_monotonic_ns": one + 1} for one in numbers])
        self.number += count

    def left(self) -> list[int]:
        with closing(sqlite3.connect(self.path)) as db:
            return [number for (number,) in db.execute("SELECT frame_id FROM records ORDER BY id")]


class Pictures(Station):
    """With pictures that are kept for 90 days."""

    def run(self) -> PictureFiles:
        limits = Limits(max_age_s=90 * DAY_S)
        return PictureFiles(
            self.path, ".png", lambda *_: MAPS.anomaly_map, limits=limits, say=self.said.append, clocks=self.clocks
        )

    def put(self, sink: Any, count: int = 1) -> None:
        for number in range(self.number, self.number + count):
            frame = Frame(number, "a", datetime.now(timezone.utc), number, np.zeros((32, 32, 3), np.uint8))
            verdict = Verdict("ok", score=0.1, threshold=0.5, verdict="normal", maps=MAPS)
            sink.write(frame, verdict, record(frame, verdict, Provenance("0" * 64, "fake", "fp32"), budget_ms=None))
        self.number += count

    def left(self) -> list[int]:
        return sorted(int(path.stem) for path in self.path.parent.glob(f"{self.path.name}*/*.png"))


@pytest.fixture(params=[Rows, Pictures])
def station(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return request.param(tmp_path / "kept")


JUMPS = {
    "ahead by ten years": 3650.0,
    "ahead by half a year": 180.0,
    "behind, as without a battery": -400.0,
    "back to 1970": -TODAY_S / DAY_S,
}


@pytest.mark.parametrize("days", JUMPS.values(), ids=JUMPS)
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_wrong_clock_deletes_nothing(station: Any, days: float, restarts: bool, first: bool) -> None:
    """Right, wrong, right; or wrong from the first record on, and set minutes after. In one run, or one for each."""
    phases = [days, 0.0, 0.0] if first else [0.0, days, 0.0]
    station.wrong_s = phases[0] * DAY_S
    sink = station.run().__enter__()
    for phase in phases:
        station.wrong_s = phase * DAY_S
        if restarts:
            sink.__exit__(None, None, None)
            sink = station.run().__enter__()
        for _ in range(6):
            station.put(sink, 5)
            station.true_s += 30
    sink.__exit__(None, None, None)
    assert station.left() == list(range(90))
    assert all("that makes nothing older, and nothing is deleted for it" in line for line in station.said)
    assert len(station.said) == (1 if first else 2)


def test_a_run_that_keeps_everything_notes_what_the_clock_did(tmp_path: Path) -> None:
    station = Rows(tmp_path / "v.sqlite")
    station.wrong_s = -400 * DAY_S
    with SqliteRecords(station.path, "before", say=station.said.append, clocks=station.clocks) as sink:
        station.put(sink, 5)
        station.wrong_s = 0.0
        station.put(sink, 5)
    assert station.said == []
    with station.run() as sink:
        station.put(sink, 5)
    assert station.left() == list(range(15))


def test_a_frame_that_was_captured_before_the_clock_was_set_and_comes_after_it_stays(tmp_path: Path) -> None:
    station = Rows(tmp_path / "v.sqlite")
    station.wrong_s = -TODAY_S
    with station.run() as sink:
        captured_at = station.dated()
        station.wrong_s = 0.0
        station.put(sink, 3, at=captured_at)
        station.put(sink, 3)
    assert station.left() == list(range(6))


def test_control_what_is_too_old_goes_and_is_said(station: Any) -> None:
    """Time that passes during a run, and in pauses of some days."""
    for _ in range(40):
        with station.run() as sink:
            station.put(sink)
            station.true_s += DAY_S
            station.put(sink)
        station.true_s += 2 * DAY_S
    assert station.left() == list(range(20, 80))  # of 120 days
    assert station.said[0].endswith("deleted, older than 90 days: 1")
    assert sum(int(line.split()[-1]) for line in station.said) == 20


def test_control_time_that_passes_during_a_run_is_not_a_jump(station: Any) -> None:
    with station.run() as sink:
        expired = 0
        for _ in range(120):
            station.put(sink)
            station.true_s += DAY_S
            expired += sink.written_off()["expired"]
    assert station.left() == list(range(30, 120))
    assert expired == 30
    assert sum(int(line.split()[-1]) for line in station.said) == 30  # an hour of the real clock does not pass


def test_a_pause_that_is_not_believed_makes_nothing_older_and_what_follows_does(station: Any) -> None:
    with station.run() as sink:
        station.put(sink, 5)
    station.true_s += BELIEVED_S + DAY_S
    with station.run() as sink:
        station.put(sink, 5)
        station.true_s += 89 * DAY_S
        station.put(sink)
        assert station.left() == list(range(11))
        station.true_s += 2 * DAY_S
        station.put(sink)
    assert station.left() == [10, 11]
    assert "forwards by 8 days since the last record" in station.said[0]


def test_rows_with_dates_of_the_future_do_not_stay_for_ever(tmp_path: Path) -> None:
    """As a release that knew nothing of clocks may have left them."""
    station = Rows(tmp_path / "v.sqlite")
    with station.run() as sink:
        station.put(sink, 300, at="2036-01-01T00:00:00.000Z")
        station.put(sink, 300)
        station.true_s += 91 * DAY_S
        for _ in range(5):
            station.put(sink)
    assert station.left() == list(range(600, 605))


def test_old_rows_go_by_sequence_up_to_the_first_that_may_stay(tmp_path: Path) -> None:
    station = Rows(tmp_path / "v.sqlite")
    dates = ["2020-01-01T00:00:00Z", "garbage", "2020-01-02T00:00:00Z", None, "2020-01-03T00:00:00Z"]
    with station.run() as sink:
        for date in dates[:4]:
            station.put(sink, 1, at=date)
    with station.run() as sink:
        station.put(sink, 1, at=dates[4])
    assert station.left() == [3, 4]


@settings(max_examples=15, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["day", "jump", "restart", "jump and restart"]),
            st.floats(-2e4, 2e4).map(lambda days: days * DAY_S),
        ),
        max_size=25,
    )
)
def test_nothing_younger_than_the_limit_is_ever_deleted(
    steps: list[tuple[str, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """But for pauses that are believed, of which there can be one with every start."""
    station = Rows(tmp_path_factory.mktemp("ages") / "v.sqlite")
    born: list[float] = []
    allowed_s = 0.0
    sink = station.run().__enter__()
    for kind, jump_s in steps:
        if "jump" in kind:
            station.wrong_s = max(min(jump_s, 8e9 - TODAY_S - station.true_s), -TODAY_S - station.true_s + 1)
        if "restart" in kind:
            allowed_s += BELIEVED_S
            sink.__exit__(None, None, None)
            sink = station.run().__enter__()
        if kind == "day":
            station.true_s += 20 * DAY_S
        station.put(sink)
        born.append(station.true_s)
        left = set(station.left())
        deleted = [at_s for number, at_s in enumerate(born) if number not in left]
        assert all(station.true_s - at_s + allowed_s >= 90 * DAY_S for at_s in deleted)
    sink.__exit__(None, None, None)


def test_deletions_are_said_once_an_hour() -> None:
    now_s, said = 0.0, list[str]()
    deletions = Deletions("rows deleted, older than 2 days", said.append, now_s=lambda: now_s)
    deletions.add(200, more=True)
    assert said == []
    deletions.add(50, more=False)
    for now_s in (1.0, 1800.0, 3599.0, 3601.0):  # noqa: B007
        deletions.add(1, more=False)
    deletions.add(7, more=True)
    deletions.tell()
    deletions.tell()
    assert [line.split()[-1] for line in said] == ["250", "4", "7"]
    assert (deletions.read(), deletions.read()) == (261, 0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "0.5 seconds"),
        (119, "119 seconds"),
        (7200, "2 hours"),
        (90 * DAY_S, "90 days"),
        (3650 * DAY_S, "3650 days"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


LIBRARY = "faketime/libfaketimeMT.so.1"


@pytest.fixture(scope="session")
def faketime() -> Callable[..., dict[str, str]]:
    """The environment of a process whose wall clock a file sets. Arguments: that file."""
    found = [path for folder in ("/usr/lib", "/usr/local/lib") for path in Path(folder).glob(f"**/{LIBRARY}")]
    if not found:
        reason = "no libfaketime: install Debian's package faketime"
        if os.environ.get("EDGE_AD_REQUIRE_LADDER"):
            pytest.fail(reason)
        pytest.skip(reason)

    def environment(clock: Path) -> dict[str, str]:
        return {
            **os.environ,
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    return environment


WRITER = """
import sys, time
from datetime import datetime, timezone
from pathlib import Path
from edge_ad.record.timestamps import utc_text
from edge_ad.runtime.sinks.sqlite import SqliteRecords
folder, *days = sys.argv[1:]
number = 0
with SqliteRecords(Path(folder) / "v.sqlite", str(time.monotonic_ns()), keep_days=90, say=print) as sink:
    for one in days:
        (Path(folder) / "clock").write_text(f"{float(one):+f}d")
        for _ in range(30):
            at = utc_text(datetime.now(timezone.utc))
            sink.write_many([dict(captured_at=at, source="a", frame_id=number, status="ok", bundle="b" * 64,
                                  captured_monotonic_ns=time.monotonic_ns())])
            number += 1
"""


@pytest.mark.parametrize(
    ("days", "runs"),
    [
        (["0", "3650", "0"], 1),
        (["-400", "0", "0"], 1),
        (["-20000", "0", "0"], 1),
        (["0", "-20000", "0"], 3),
    ],
)
def test_the_real_clock_of_a_process_may_be_wrong(
    tmp_path: Path, faketime: Callable[..., dict[str, str]], days: list[str], runs: int
) -> None:
    clock = tmp_path / "clock"
    clock.write_text(f"{float(days[0]):+f}d")
    dates = set()
    for run in [days] if runs == 1 else [[one] for one in days]:
        clock.write_text(f"{float(run[0]):+f}d")
        command = [sys.executable, "-c", WRITER, str(tmp_path), *run]
        done = subprocess.run(command, env=faketime(clock), capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert "deleted, older" not in done.stdout
    with closing(sqlite3.connect(tmp_path / "v.sqlite")) as db:
        dates = {text[:4] for (text,) in db.execute("SELECT captured_at FROM records")}
        assert db.execute("SELECT count(*) FROM records").fetchone() == (90,)
    assert len(dates) == 2  # control: the clock was wrong in earnest
    shutil.rmtree(tmp_path)
