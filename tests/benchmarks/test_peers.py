"""`benchmarks/peers/`: the protocol with a stand-in for a peer, in a process of its own, and the table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
STAND_IN = """
import pathlib, sys
sys.path.insert(0, {peers!r})
from protocol import serve

class StandIn:
    computes_in = "fp32"
    def __init__(self, factor, fails):
        self.factor, self.fails = factor, fails
    def score(self, image_hwc):
        if self.fails:
            raise TypeError("wrong names")
        print("libraries chatter on standard output")
        if image_hwc.max() == 13:
            raise RuntimeError("thirteen\\nis unlucky")
        if image_hwc.max() == 99:
            raise SystemExit("dies")
        self.anomaly_map = image_hwc[:, :, 0] * self.factor
        return float(image_hwc.mean()) * self.factor

def open_stand_in(given):
    if given["factor"] == 0:
        raise ValueError("no factor")
    cache = pathlib.Path(given.get("graph", "graph"))
    compiles = not cache.exists()
    with cache.open("a") as starts:
        starts.write("started\\n")
    return StandIn(given["factor"], given.get("fails") == "always" or compiles and given.get("fails") == "compiling")

serve(open_stand_in)
"""


@pytest.fixture(scope="module")
def peers() -> Any:
    """The modules of the driver."""
    before = list(sys.path)
    sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "peers")]
    try:
        import measure
        import process
        import table
    finally:
        sys.path[:] = before
    return SimpleNamespace(measure=measure, process=process, table=table)


@pytest.fixture
def contender(peers: Any, tmp_path: Path) -> Callable[..., Any]:
    """(name, factor) → a stand-in that scores a picture by its mean, and may fail where its graph has no cache yet."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN.format(peers=str(BENCHMARKS / "peers")))

    def made(name: str, factor: float, **more: Any) -> Any:
        folder = tmp_path / name
        folder.mkdir()
        given = {"factor": factor, **more}
        for_pictures = {**given, "graph": "graph-for-pictures"}
        return peers.measure.Contender([sys.executable, str(script)], folder, given, for_pictures)

    return made


@pytest.fixture
def frame(tmp_path: Path) -> Callable[[int], str]:
    def stored(level: int) -> str:
        path = tmp_path / f"{level}.npy"
        np.save(path, np.full((4, 6, 3), level, np.uint8))
        return str(path)

    return stored


def test_a_peer_answers_line_by_line_and_goes_on_after_a_fault(
    peers: Any, contender: Callable[..., Any], frame: Callable[[int], str]
) -> None:
    stand_in = contender("one", 2.0)
    fault = peers.process.PeerError
    with peers.process.PeerProcess(stand_in.command, stand_in.folder) as process:
        with pytest.raises(fault, match="nothing is open"):
            process.ask("judge", frames=1)
        with pytest.raises(fault, match="ValueError: no factor"):
            process.ask("open", **{"with": {"factor": 0}})
        assert process.ask("open", **{"with": {"factor": 2.0}}) == {"computes_in": "fp32"}
        with pytest.raises(fault, match="no frame was given"):
            process.ask("judge", frames=1)
        process.ask("frame", path=frame(13))
        with pytest.raises(fault, match=r"^RuntimeError: thirteen is unlucky$"):
            process.ask("judge", frames=1)
        process.ask("frame", path=frame(50))
        answer = process.ask("judge", frames=3)
        assert answer["score"] == 100.0 and len(answer["took_s"]) == 3 and min(answer["took_s"]) > 0
        assert 1 < process.ask("memory")["peak_rss_mib"] < 2000
        with pytest.raises(fault, match="unknown request"):
            process.ask("pickle")
        assert process.ask("close") == {}


def test_a_peer_that_dies_or_does_not_start_is_one_line(
    peers: Any, contender: Callable[..., Any], frame: Callable[[int], str], tmp_path: Path
) -> None:
    stand_in = contender("one", 2.0)
    with peers.process.PeerProcess(stand_in.command, stand_in.folder) as process:
        process.ask("open", **{"with": {"factor": 2.0}})
        process.ask("frame", path=frame(99))
        with pytest.raises(peers.process.PeerError, match=r"ended at 'judge': .*dies"):
            process.ask("judge", frames=1)
    absent = peers.process.PeerProcess([str(tmp_path / "absent")], tmp_path)
    with pytest.raises(peers.process.PeerError, match="cannot be started"), absent:
        pass
    silent = peers.process.PeerProcess([sys.executable, "-c", "input(); input()"], tmp_path, longest_s=0.2)
    with silent, pytest.raises(peers.process.PeerError, match=r"no answer to 'memory' within 0\.2 s"):
        silent.ask("memory")


def test_all_peers_are_measured_in_turns_and_stand_in_one_table(
    peers: Any, contender: Callable[..., Any], frame: Callable[[int], str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(peers.measure, "PAUSE_S", 0.0)
    levels, truth = (10, 20, 30, 40), [False, True, False, True]
    pictures = []
    for level in levels:
        pictures.append(str(tmp_path / f"{level}.png"))
        Image.fromarray(np.full((4, 6, 3), level, np.uint8)).save(pictures[-1])
    contenders = {"right": contender("right", 1.0), "wrong": contender("wrong", -1.0), "broken": contender("no", 0)}
    said: list[str] = []
    found = peers.measure.measure(contenders, Path(frame(50)), pictures, starts=2, rounds=3, say=said.append)
    for name, sign in (("right", 1.0), ("wrong", -1.0)):
        assert (len(found[name].start_s), len(found[name].latency_ms), len(found[name].stretch_ms)) == (2, 3, 3)
        assert found[name].scores == [sign * level for level in levels] and found[name].reason is None
        maps = np.load(found[name].maps)
        assert maps.shape == (4, 4, 6) and maps[:, 0, 0].tolist() == found[name].scores
        assert min(found[name].start_s) * 1e3 > max(found[name].latency_ms)
    assert "warning: broken: ValueError: no factor" in said
    found["missing"] = peers.measure.Found(reason="left out")
    rows = peers.table.rows(found, {"right": 12.3}, truth, "right")
    assert rows["right"]["image_auroc"] == 0.75 and rows["wrong"]["image_auroc"] == 0.25
    assert rows["right"]["times_as_fast"] == 1.0 and rows["wrong"]["times_as_fast"] > 0
    found["right"].latency_ms, found["wrong"].latency_ms = [4.0, 40.0, 4.0], [2.0, 20.0, 40.0]  # one turn was disturbed
    assert peers.table.rows(found, {}, truth, "right")["wrong"]["times_as_fast"] == 2.0
    lines = peers.table.table(rows).splitlines()
    assert lines[2].startswith("| right |") and "| 12 | 0.7500 | – | fp32 |" in lines[2]
    assert lines[4].startswith("| broken | not available: ValueError: no factor |")
    assert lines[5].startswith("| missing | not available: left out |")
    assert len({line.count("|") for line in lines}) == 1


def test_a_peer_that_fails_where_it_compiles_is_measured_from_its_cache_and_the_table_tells_of_both(
    peers: Any, contender: Callable[..., Any], frame: Callable[[int], str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(peers.measure, "PAUSE_S", 0.0)
    pictures = []
    for level in (10, 20):
        pictures.append(str(tmp_path / f"{level}.png"))
        Image.fromarray(np.full((4, 6, 3), level, np.uint8)).save(pictures[-1])
    contenders = {
        "sound": contender("sound", 1.0),
        "frail": contender("frail", 1.0, fails="compiling"),
        "broken": contender("broken", 1.0, fails="always"),
    }
    said: list[str] = []
    found = peers.measure.measure(contenders, Path(frame(50)), pictures, starts=1, rounds=2, say=said.append)
    for name, faults in (("sound", []), ("frail", ["TypeError: wrong names"] * 2)):  # of both graphs
        assert found[name].compiling_faults == faults and found[name].reason is None
        assert (len(found[name].start_s), len(found[name].latency_ms), found[name].scores) == (1, 2, [10.0, 20.0])
    starts = {name: len((tmp_path / name / "graph").read_text().split()) for name in contenders}
    assert starts == {"sound": 3, "frail": 4, "broken": 2}
    assert said.count("warning: frail: TypeError: wrong names; once more, from its cache") == 2
    rows = peers.table.rows(found, {}, [False, True], "sound")
    assert [rows[name]["compiling_fault"] for name in contenders] == [None, "TypeError: wrong names", None]
    lines = peers.table.table(rows).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == ["sound", "frail", "frail, start that compiles", "broken"]
    assert "| failed, not from its cache: TypeError: wrong names |" in lines[2]
    assert "| not available: TypeError: wrong names |" in lines[3]
    assert len({line.count("|") for line in lines}) == 1
