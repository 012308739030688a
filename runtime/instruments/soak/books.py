"""What the wrappers of one round saw of every frame, held against its record.

Nothing here is asked of the line: frames are noted where they are handed over, scores where the engine gives them, and
records where a sink takes them. An entry is forgotten with its record, so a long round needs no more memory than a
short one.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_ad.image.frame import Frame
from edge_ad.record.decision import reaches
from edge_ad.runtime.instruments.soak.checks import Findings
from edge_ad.runtime.instruments.soak.fingerprint import Fingerprint
from edge_ad.runtime.line.line import STOPPED

ENDS: dict[str, frozenset[str]] = {
    "good": frozenset({"ok", "late", "skipped", "error"}),
    "repeat": frozenset({"stale"}),
    "black": frozenset({"unusable", "skipped"}),
    "corrupt": frozenset({"error"}),
}
"""Statuses that a frame may end with, by what was done to it."""

SLACK_MS = 0.001  # records round to it


def tag(kind: str, fingerprint: Fingerprint) -> str:
    """What the `path` of a frame says of it."""
    return f"soak/{kind}/{fingerprint}"


def tag_of(path: object) -> tuple[str, Fingerprint]:
    """Kind and fingerprint that `tag` wrote. Raises: ValueError."""
    _, kind, numbers = str(path).split("/")
    lane, number = numbers.split("-")
    return kind, Fingerprint(int(lane), int(number))


@dataclass(frozen=True)
class _Handed:
    path: str | None
    captured_ns: int


@dataclass(frozen=True)
class _Scored:
    score: float
    at_ns: int


class Books:
    """The books of one round, kept from all threads.

    Args:
        threshold: score from which on a frame is anomalous, or None.
    """

    def __init__(self, findings: Findings, threshold: float | None) -> None:
        self._findings = findings
        self._threshold = threshold
        self._lock = threading.Lock()
        self._handed: dict[tuple[str, int], _Handed] = {}
        self._scored: dict[Fingerprint, _Scored] = {}
        self._next: Counter[str] = Counter()
        self._given: Counter[str] = Counter()
        self._records: Counter[str] = Counter()
        self._judged: Counter[str] = Counter()
        self._statuses: dict[str, Counter[str]] = {}
        self._told: dict[str, Counter[str]] = {}
        self._away: set[str] = set()

    def handed(self, camera: str, frame: Frame) -> None:
        """Note a frame that the line gets now."""
        with self._lock:
            self._handed[camera, self._given[camera]] = _Handed(frame.path, frame.captured_ns)
            self._given[camera] += 1
            self._forget_old_scores()

    def scored(self, fingerprint: Fingerprint, score: float) -> None:
        """Note what the engine says of a picture."""
        with self._lock:
            self._scored[fingerprint] = _Scored(score, time.monotonic_ns())

    def _forget_old_scores(self) -> None:
        """Drop the oldest of those to which no record came: the line ended, or never gives it one."""
        while len(self._scored) > 20_000:
            del self._scored[next(iter(self._scored))]

    def given(self, camera: str) -> int:
        with self._lock:
            return self._given[camera]

    def records(self, camera: str) -> int:
        with self._lock:
            return self._records[camera]

    def judged(self, camera: str) -> int:
        with self._lock:
            return self._judged[camera]

    def statuses(self, camera: str) -> Counter[str]:
        with self._lock:
            return Counter(self._statuses.get(camera, ()))

    def told(self, camera: str) -> Counter[str]:
        """Events by kind; `lost` are those of the kind `disconnected` that have this cause."""
        with self._lock:
            return Counter(self._told.get(camera, ()))

    @property
    def events(self) -> int:
        with self._lock:
            return sum(told.total() - told["lost"] for told in self._told.values())

    def event(self, entry: Mapping[str, Any]) -> None:
        """Note an event, and hold it against the one before it."""
        camera, kind = entry["source"], entry["event"]
        with self._lock:
            told = self._told.setdefault(camera, Counter())
            told[kind] += 1
            told["lost"] += kind == "disconnected" and entry["cause"] == "lost"
            was_away = camera in self._away
            if kind == "disconnected":
                self._away.add(camera)
            elif kind == "reconnected":
                self._away.discard(camera)
        if kind in ("disconnected", "reconnected") and was_away != (kind == "reconnected"):
            self._findings.add("outages", f"{camera}: {kind}, though it was {'' if was_away else 'not '}away")

    def record(self, entry: Mapping[str, Any]) -> None:
        """Hold a record against what is known of its frame."""
        camera, frame_id, status = entry["source"], entry["frame_id"], entry["status"]
        which = f"{camera} frame {frame_id}"
        with self._lock:
            self._records[camera] += 1
            self._judged[camera] += entry["score"] is not None
            self._statuses.setdefault(camera, Counter())[status] += 1
            expected = self._next[camera]
            self._next[camera] = max(expected, frame_id + 1)
            handed = self._handed.pop((camera, frame_id), None)
        if handed is None:
            again = frame_id < expected
            self._findings.add("record", f"{which}: {'has a second record' if again else 'was never handed over'}")
            return
        if frame_id < expected:
            self._findings.add("order", f"{which}: its record came after that of frame {expected - 1}")
        if (handed.path, handed.captured_ns) != (entry["path"], entry["captured_monotonic_ns"]):
            self._findings.add("record", f"{which}: record of {entry['path']}, but {handed.path} was handed over")
        kind, fingerprint = tag_of(handed.path)
        with self._lock:
            scored = self._scored.pop(fingerprint, None)
        if status not in ENDS[kind] and not (status == "error" and entry["reason"] == STOPPED):
            self._findings.add("spoiled", f"{which}: {kind}, and its status is {status} ({entry['reason']})")
        if status in ("ok", "late"):
            self._judge(which, entry, scored)
        elif entry["score"] is not None or entry["verdict"] is not None:
            self._findings.add("scored", f"{which}: {status}, with score {entry['score']}, {entry['verdict']}")

    def _judge(self, which: str, entry: Mapping[str, Any], scored: _Scored | None) -> None:
        score, verdict = entry["score"], entry["verdict"]
        if scored is None:
            self._findings.add("scored", f"{which}: {entry['status']}, {verdict}, but the engine never saw it")
            return
        if score != scored.score:
            self._findings.add("own score", f"{which}: score {score}, but the engine said {scored.score}")
        wanted = None
        if self._threshold is not None:
            wanted = "anomalous" if reaches(scored.score, self._threshold) else "normal"
        if verdict != wanted:
            self._findings.add("own score", f"{which}: {verdict} at score {scored.score:g}, wanted {wanted}")
        total_ms, budget_ms = entry["timings_ms"].get("total", math.nan), entry["budget_ms"]
        limit_ms = math.inf if budget_ms is None else budget_ms
        scored_ms = (scored.at_ns - entry["captured_monotonic_ns"]) / 1e6
        if entry["status"] == "ok" and not max(total_ms, scored_ms) <= limit_ms + SLACK_MS:
            self._findings.add(
                "deadline", f"{which}: ok after {total_ms} ms, scored after {scored_ms:.1f} ms, budget {limit_ms:g} ms"
            )
        if entry["status"] == "late" and not total_ms > limit_ms - SLACK_MS:
            self._findings.add("deadline", f"{which}: late after {total_ms} ms, budget {limit_ms:g} ms")
        if not total_ms >= scored_ms - SLACK_MS:
            self._findings.add("deadline", f"{which}: took {total_ms} ms, but was scored after {scored_ms:.1f} ms")

    def close(self, captured: Mapping[str, int]) -> None:
        """The round is over: what was handed over without a record is missing.

        Args:
            captured: frames that the line says it captured, by camera. A frame that it was given while it ended need
                not be among them, nor then have a record.
        """
        with self._lock:
            open_frames, given = sorted(self._handed), self._given.copy()
        for camera, frame_id in open_frames:
            if frame_id < captured[camera] or frame_id < given[camera] - 1:
                self._findings.add("record", f"{camera} frame {frame_id}: was handed over and has no record")
        for camera, count in captured.items():
            if not given[camera] - 1 <= count <= given[camera]:
                self._findings.add("account", f"{camera}: {count} captured, but {given[camera]} were handed over")
