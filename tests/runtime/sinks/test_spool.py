"""The spool: first in, first out, whatever kills it; and no line goes without being counted."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_ad.errors import OutputError
from edge_ad.runtime.sinks import spool as spool_module
from edge_ad.runtime.sinks.spool import Spool
from edge_ad.runtime.sinks.syncing import SyncPolicy

BUDGET = 1 << 22


def _spool(path: Path, budget_bytes: int = BUDGET, **more: Any) -> Spool:
    return Spool(path, budget_bytes=budget_bytes, **{"sync": SyncPolicy(), **more})


def _all(spool: Spool) -> list[str]:
    return [line for _, line in spool.read(limit=100_000)]


def _check(spool: Spool, **expected: int) -> None:
    counts = spool.counts()
    assert counts.adds_up
    assert min(counts.taken, counts.delivered, counts.lost, counts.waiting) >= 0
    assert counts.waiting == len(_all(spool))
    totals = spool.totals()
    assert totals["taken"] == totals["delivered"] + totals["lost"] + counts.waiting
    for name, count in expected.items():
        assert getattr(counts, name) == count, name


class SpoolMachine(RuleBasedStateMachine):
    """A spool beside a list, with deliveries in any order, refusals, closings and kills at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.life = 0
        self.model: list[str] = []
        self.put_lines = self.gone = self.lost = 0
        self.spool = self._open()

    def _open(self) -> Spool:
        return _spool(self.root / str(self.life) / "spool.sqlite").__enter__()

    @rule(text=st.text(max_size=30), repeat=st.integers(1, 3))
    def put(self, text: str, repeat: int) -> None:
        line = json.dumps([self.put_lines, text * repeat * 40])
        self.spool.put(line)
        self.model.append(line)
        self.put_lines += 1

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        lines = self.spool.read(limit=8)
        chosen = data.draw(st.sets(st.sampled_from(lines)))
        self.spool.delivered([number for number, _ in chosen])
        self.spool.delivered([number for number, _ in chosen])  # an answer that comes twice changes nothing
        self.model = [line for line in self.model if line not in {line for _, line in chosen}]
        self.gone += len(chosen)

    @precondition(lambda self: self.model)
    @rule()
    def refuse(self) -> None:
        number, line = self.spool.read(limit=1)[0]
        self.spool.refuse(number, "not wanted")
        assert self.spool.aside()[-1] == (line, "not wanted")
        self.model.pop(0)
        self.lost += 1

    @rule()
    def close_and_open(self) -> None:
        self.spool.__exit__(None, None, None)
        self.spool = self._open()
        assert self.spool.counts().taken == len(self.model)  # what was left is taken again

    @rule()
    def kill(self) -> None:
        """What a killed process leaves is what its files hold at that moment."""
        before = self.root / str(self.life)
        self.life += 1
        shutil.copytree(before, self.root / str(self.life))
        self.spool.__exit__(None, None, None)
        self.spool = self._open()

    @invariant()
    def it_holds_what_the_list_holds(self) -> None:
        assert _all(self.spool) == self.model
        _check(self.spool)
        expected = {"taken": self.put_lines, "delivered": self.gone, "lost": self.lost}
        assert self.spool.totals() == expected

    def teardown(self) -> None:
        self.spool.__exit__(None, None, None)
        shutil.rmtree(self.root)


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=15, stateful_step_count=15, derandomize=True, deadline=None)


@settings(max_examples=30, derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    damages=st.integers(1, 30),
    how=st.sampled_from(["bytes", "cut", "zeros", "log"]),
)
def test_damaged_bytes_neither_crash_nor_change_a_line(seed: int, damages: int, how: str) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool.sqlite"
        lines = [json.dumps({"n": number, "x": "y" * rng.randrange(800)}) for number in range(60)]
        with _spool(path) as spool:
            for line in lines:
                spool.put(line)
            if how == "log":  # the write-ahead log, which closing removes
                shutil.copy(f"{path}-wal", f"{path}-kept")
                shutil.copy(path, f"{path}.kept")
        if how == "log":
            Path(f"{path}-kept").rename(f"{path}-wal")
            Path(f"{path}.kept").rename(path)
        damaged = Path(f"{path}-wal") if how == "log" else path
        data = bytearray(damaged.read_bytes())
        if how == "cut":
            data = data[: rng.randrange(len(data))]
        else:
            for _ in range(damages):
                start = rng.randrange(len(data))
                data[start : start + rng.choice((1, 16, 600))] = (
                    bytes(16) if how == "zeros" else rng.randbytes(rng.choice((1, 16)))
                )
        damaged.write_bytes(data)
        said: list[str] = []
        with _spool(path, say=said.append) as spool:
            found = _all(spool)
            assert set(found) <= set(lines)  # what is delivered is what was put
            assert found == sorted(found, key=lambda line: json.loads(line)["n"])
            if len(found) < len(lines) and how != "log":
                assert said  # a cut-off log is like a run that ended earlier: nothing in it was flushed
            _check(spool)
            spool.put("[]")
            assert _all(spool) == [*found, "[]"]
            _check(spool, waiting=len(found) + 1)


def test_a_changed_byte_in_a_line_is_found(tmp_path: Path) -> None:
    """SQLite itself does not see it: the file is sound, and the verdict is another one."""
    path = tmp_path / "spool.sqlite"
    with _spool(path) as spool:
        spool.put('{"verdict": "anomalous_"}')
        spool.put('{"verdict": "normal"}')
    path.write_bytes(path.read_bytes().replace(b"anomalous_", b"non-reject"))
    said: list[str] = []
    with _spool(path, say=said.append) as spool:
        assert _all(spool) == ['{"verdict": "normal"}']
        _check(spool, taken=2, lost=1)
    assert "1 waiting records are damaged" in said[0]


def test_the_loss_of_a_damaged_file_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    with _spool(path) as spool:
        for number in range(400):
            spool.put(json.dumps({"n": number, "x": "y" * 500}))
        spool.delivered([number for number, _ in spool.read(limit=100)])
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 8192] = bytes(8192)
    path.write_bytes(data)
    said: list[str] = []
    with _spool(path, say=said.append) as spool:
        found = len(_all(spool))
        assert 250 < found < 300
        assert spool.totals() == {"taken": 400, "delivered": 100, "lost": 300 - found}
    assert f"{found} waiting records were saved, {300 - found} are lost" in said[0]
    assert (tmp_path / "spool.damaged.sqlite").exists()


def test_a_file_that_breaks_during_a_run_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    said: list[str] = []
    with _spool(path, budget_bytes=1 << 18, say=said.append) as spool:
        for number in range(200):
            spool.put(json.dumps({"n": number, "x": "y" * 900}))
        with path.open("r+b") as file:
            file.write(b"\0" * 20_000)
        for number in range(200, 230):
            spool.put(json.dumps({"n": number, "x": "y" * 900}))
        _check(spool, taken=230)
        assert json.loads(_all(spool)[-1])["n"] == 229


def test_the_oldest_lines_go_when_the_budget_is_spent(tmp_path: Path) -> None:
    budget_bytes = 1 << 20
    said: list[str] = []
    sizes = random.Random(0)
    with _spool(tmp_path / "spool.sqlite", budget_bytes, say=said.append) as spool:
        for number in range(700):
            spool.put(json.dumps({"n": number, "x": "y" * sizes.randrange(4000)}))
            if number % 100 == 0:
                assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= budget_bytes
        numbers = [json.loads(line)["n"] for line in _all(spool)]
        assert numbers == list(range(700 - len(numbers), 700))
        assert len(numbers) * 2000 > budget_bytes / 3  # the budget is used
        _check(spool, taken=700, lost=700 - len(numbers), delivered=0)
        assert [line for line in said if "budget is spent" in line] == said[:1] == said
        spool.delivered([spool.read(limit=1)[0][0]])
        for number in range(100):
            spool.put(json.dumps({"n": number, "x": "y" * 4000}))
    assert len(said) == 2  # said again once it had got better meanwhile


def test_a_line_that_is_too_large_is_counted(tmp_path: Path) -> None:
    said: list[str] = []
    with _spool(tmp_path / "spool.sqlite", 1 << 20, say=said.append) as spool:
        spool.put("[]")
        spool.put(json.dumps("y" * (1 << 20)))
        assert _all(spool) == ["[]"]
        _check(spool, taken=2, lost=1)
    assert "too large" in said[0]


def test_refused_lines_are_kept_up_to_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MAX_ASIDE", 3)
    with _spool(tmp_path / "spool.sqlite") as spool:
        for number in range(5):
            spool.put(str(number))
        for number, line in spool.read():
            spool.refuse(number, f"no {line}")
        assert spool.aside() == [("2", "no 2"), ("3", "no 3"), ("4", "no 4")]
        _check(spool, lost=5)


def test_two_runs_cannot_share_a_spool(tmp_path: Path) -> None:
    with _spool(tmp_path / "spool.sqlite") as spool:
        spool.put("1")
        with pytest.raises(OutputError, match="another run is using it"):
            _spool(tmp_path / "spool.sqlite").__enter__()
        spool.put("2")
        _check(spool, waiting=2)


def test_threads_share_a_spool(tmp_path: Path) -> None:
    with _spool(tmp_path / "spool.sqlite", sync=SyncPolicy(0.02)) as spool:
        writers = [
            threading.Thread(target=lambda part=part: [spool.put(f"{part}/{n}") for n in range(100)])  # type: ignore[misc]
            for part in range(4)
        ]
        for writer in writers:
            writer.start()
        got: list[str] = []
        while len(got) < 400:
            lines = spool.read(limit=7)
            spool.delivered([number for number, _ in lines])
            got += [line for _, line in lines]
        for writer in writers:
            writer.join()
        _check(spool, taken=400, delivered=400)
    for part in range(4):
        assert [line for line in got if line.startswith(f"{part}/")] == [f"{part}/{n}" for n in range(100)]


WRITER = """
import sys
from pathlib import Path
from edge_ad.runtime.sinks.spool import Spool
from edge_ad.runtime.sinks.syncing import SyncPolicy
with Spool(Path(sys.argv[1]), budget_bytes=1 << 22, sync=SyncPolicy(None)) as spool:
    for number in range(int(sys.argv[2]), 1 << 40):
        spool.put(f'{{"n": {number}, "x": "{"y" * (number % 900)}"}}')
        sys.stdout.write(f"{number}\\n"); sys.stdout.flush()
        if number % 3 == 0:
            spool.delivered([spool.read(limit=1)[0][0]])
"""


def test_a_kill_at_any_moment_loses_no_line_that_was_put(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    rng = random.Random(1)
    first, put = 0, 0
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(first)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(rng.randrange(1, 400)):
            put = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        put = max([put, *(int(line) for line in writer.stdout.read().split("\n")[:-1])])
        writer.stdout.close()
        writer.wait(10)
        with _spool(path) as spool:
            numbers = [json.loads(line)["n"] for line in _all(spool)]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            assert put <= numbers[-1] <= put + 1  # one may have been stored and not yet reported
            totals = spool.totals()
            assert totals["taken"] == numbers[-1] + 1
            assert totals["delivered"] == numbers[0]
            _check(spool)
        first = numbers[-1] + 1


DISK_FULL = """
import resource, sys
from pathlib import Path
from edge_ad.errors import OutputError
from edge_ad.runtime.sinks.spool import Spool
from edge_ad.runtime.sinks.syncing import SyncPolicy
with Spool(Path(sys.argv[1]), budget_bytes=1 << 24, sync=SyncPolicy(0.0)) as spool:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    put = refused = 0
    for number in range(200):
        try:
            spool.put("y" * 1000)
            put += 1
        except OutputError as exc:
            assert "cannot be written" in str(exc), exc
            refused += 1
            if refused == 20:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert spool.counts().taken == spool.counts().waiting == len(spool.read(limit=10_000)) == put, spool.counts()
    print(put, refused)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of file sizes are POSIX")
def test_a_full_disk_is_an_error_and_no_loss(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(tmp_path / "spool.sqlite")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    put, refused = map(int, done.stdout.split())
    assert (put, refused) == (180, 20)
    with _spool(tmp_path / "spool.sqlite") as spool:
        _check(spool, waiting=180)
