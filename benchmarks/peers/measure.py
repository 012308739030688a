"""What is measured of peers: starts, memory, latency in turns, throughput in turns, and scores of pictures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from process import PeerError, PeerProcess

PAUSE_S = 0.1
"""Rest before each turn, so that threads which one peer leaves spinning do not disturb the next."""
STRETCH = 5
"""Frames that follow on each other without a rest, for the throughput."""
JUDGED_BEFORE_MEMORY = 5

Say = Callable[[str], None]


@dataclass(frozen=True)
class Contender:
    """How a peer is run.

    Attributes:
        command: that starts it.
        folder: for its caches, its own.
        given: what to open for the speed, and for the accuracy (None where there are no pictures).
    """

    command: list[str]
    folder: Path
    given: Mapping[str, Any]
    given_for_pictures: Mapping[str, Any] | None = None


@dataclass
class Found:
    """Figures of one peer, as measured.

    Attributes:
        computes_in: arithmetic, in the words of its engine.
        start_s: process start to first score, with its caches warm.
        peak_rss_mib: most memory of a process after some frames.
        latency_ms: a frame each, in turns with the other peers.
        stretch_ms: a frame's part of `STRETCH` frames without a rest, in turns.
        scores: of the pictures.
        maps: file of their anomaly maps, (n, h, w) float32.
        compiling_faults: what starts said that compiled and failed, where the next one, from its cache, did not.
        reason: why something is missing.
    """

    computes_in: str = ""
    start_s: list[float] = field(default_factory=list)
    peak_rss_mib: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    stretch_ms: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    maps: str = ""
    compiling_faults: list[str] = field(default_factory=list)
    reason: str | None = None

    def plain(self) -> dict[str, Any]:
        """All figures for JSON; maps are none."""
        return {name: value for name, value in vars(self).items() if name != "maps"}


def measure(
    contenders: Mapping[str, Contender], frame: Path, pictures: list[str], *, starts: int, rounds: int, say: Say
) -> dict[str, Found]:
    """Everything of all peers. One that fails keeps what was found before, and the reason.

    All figures are of processes that find their caches warm. One that fails while it makes them is started once more.
    """
    found = {name: Found() for name in contenders}
    say("first starts, which compile")
    _each_compiling(found, lambda name: _first_start(contenders[name], frame, found[name]), say)
    for number in range(starts):
        say(f"starts {number + 1}/{starts}")
        _each(found, lambda name: _start(contenders[name], frame, found[name]), say)
    if rounds:
        _turns(contenders, frame, found, rounds, say)
    if pictures:
        score_pictures(contenders, pictures, found, say)
    return found


def score_pictures(
    contenders: Mapping[str, Contender], pictures: list[str], found: Mapping[str, Found], say: Say
) -> None:
    """Scores and maps of pictures, into `found`."""
    say(f"scores of {len(pictures)} pictures")
    _each_compiling(found, lambda name: _score(contenders[name], pictures, found[name]), say)


def _each(found: Mapping[str, Found], job: Callable[[str], None], say: Say) -> None:
    for name, result in found.items():
        if result.reason is None:
            try:
                job(name)
            except PeerError as exc:
                result.reason = str(exc)
                say(f"warning: {name}: {exc}")


def _each_compiling(found: Mapping[str, Found], job: Callable[[str], None], say: Say) -> None:
    """As `_each`; what fails is done once more, for it may only fail where it has to compile."""

    def twice(name: str) -> None:
        try:
            job(name)
        except PeerError as exc:
            say(f"warning: {name}: {exc}; once more, from its cache")
            job(name)
            found[name].compiling_faults.append(str(exc))

    _each(found, twice, say)


def _turns(contenders: Mapping[str, Contender], frame: Path, found: Mapping[str, Found], rounds: int, say: Say) -> None:
    with ExitStack() as stack:
        running: dict[str, PeerProcess] = {}

        def open_one(name: str) -> None:
            process = stack.enter_context(PeerProcess(contenders[name].command, contenders[name].folder))
            process.ask("open", **{"with": dict(contenders[name].given)})
            process.ask("frame", path=str(frame))
            process.ask("judge", frames=3)
            running[name] = process

        say("opening all of them")
        _each(found, open_one, say)
        for number in range(rounds):
            say(f"round {number + 1}/{rounds}")
            _each(found, lambda name: _turn(running[name], found[name]), say)


def _first_start(contender: Contender, frame: Path, found: Found) -> None:
    with PeerProcess(contender.command, contender.folder) as process:
        found.computes_in = str(process.ask("open", **{"with": dict(contender.given)})["computes_in"])
        process.ask("frame", path=str(frame))
        process.ask("judge", frames=1)
        process.ask("close")


def _start(contender: Contender, frame: Path, found: Found) -> None:
    with PeerProcess(contender.command, contender.folder) as process:
        process.ask("open", **{"with": dict(contender.given)})
        process.ask("frame", path=str(frame))
        process.ask("judge", frames=1)
        found.start_s.append(time.perf_counter() - process.started_s)
        process.ask("judge", frames=JUDGED_BEFORE_MEMORY)
        found.peak_rss_mib.append(float(process.ask("memory")["peak_rss_mib"]))
        process.ask("close")


def _turn(process: PeerProcess, found: Found) -> None:
    time.sleep(PAUSE_S)
    found.latency_ms.append(process.ask("judge", frames=1)["took_s"][0] * 1e3)
    took_s = process.ask("judge", frames=STRETCH)["took_s"]
    found.stretch_ms.append(statistics.fmean(took_s) * 1e3)


def _score(contender: Contender, pictures: list[str], found: Found) -> None:
    if contender.given_for_pictures is None:
        return
    with PeerProcess(contender.command, contender.folder) as process:
        process.ask("open", **{"with": dict(contender.given_for_pictures)})
        maps = contender.folder / "maps.npy"
        found.scores = [float(score) for score in process.ask("score", pictures=pictures, maps=str(maps))["scores"]]
        found.maps = str(maps)
        process.ask("close")
