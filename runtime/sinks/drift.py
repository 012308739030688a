"""An alarm when the scores of a camera are no longer distributed as they were: lens, lighting, material, model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from edge_ad.disk.storage import write_atomically
from edge_ad.errors import OutputError, os_reason
from edge_ad.image.frame import Frame
from edge_ad.record.events import drift_event
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.sinks import output_folder
from edge_ad.runtime.sinks.drift_test import Scores, critical_distance, ks_distance

CLEAR_RATE = 0.05  # of blocks without drift that are too far from the reference to end an alarm
CLEAR_BLOCKS = 2  # in a row that end it
MAX_FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class DriftRule:
    """The test: blocks of scores, one behind the other, each against the reference of its source.

    Attributes:
        reference: scores that a reference is made of.
        block: scores that are compared with it at once.
        frames_per_false_alarm: judged frames of one source from one false alarm to the next, on average and at least,
            if the scores are independent of each other; correlated ones give more.
        every: take only every so many-th judged frame, where neighbours show the same part.
    """

    reference: int = 1000
    block: int = 200
    frames_per_false_alarm: float = 1e6
    every: int = 1

    @property
    def alarm_distance(self) -> float:
        """From which on a block differs from the reference; above 1 when it never can."""
        return critical_distance(self.reference, self.block, self.block * self.every / self.frames_per_false_alarm)

    @property
    def clear_distance(self) -> float:
        """Below which a block agrees with it again."""
        return min(critical_distance(self.reference, self.block, CLEAR_RATE), self.alarm_distance)


@dataclass
class _Lane:
    """Scores of one source. Attributes: calm: blocks in a row that agree with the reference."""

    reference: Scores | None = None
    scores: list[float] = field(default_factory=list)
    judged: int = 0
    alarmed: bool = False
    calm: int = 0


class DriftAlarm:
    """Compares the scores of each source with those of its beginning, and raises an event when they differ.

    Every judged frame counts, anomalous ones too, in reference and blocks alike: leaving them out would hide a drift
    towards more of them.

    Args:
        rule: the test.
        path: where references are kept from run to run; they hold for one model in one arithmetic. None keeps none.
        say: receives what the user should know.
    """

    keeps_records = True  # it needs no pictures, and can wait

    def __init__(self, rule: DriftRule, path: Path | None, say: Callable[[str], None] = lambda _: None) -> None:
        self._rule = rule
        self._path = path
        self._say = say
        self._emit: Callable[[Mapping[str, Any]], None] = lambda _: None
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._kept: dict[str, dict[str, Scores]] = {}

    def raise_events(self, emit: Callable[[Mapping[str, Any]], None]) -> None:
        self._emit = emit

    def __enter__(self) -> DriftAlarm:
        """Raises: OutputError when the file of references cannot be read."""
        if self._path is not None:
            output_folder(self._path.parent)
            self._kept = _read(self._path, self._say)
        return self

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        score = verdict.score
        if score is None or not math.isfinite(score):
            return
        model = f"{entry.get('bundle')} {entry.get('precision')}"
        lane = self._lanes.get((model, frame.source))
        if lane is None:
            kept = self._kept.get(model, {}).get(frame.source)
            usable = kept is not None and len(kept) == self._rule.reference
            lane = self._lanes[model, frame.source] = _Lane(kept if usable else None)
        lane.judged += 1
        if (lane.judged - 1) % self._rule.every:
            return
        lane.scores.append(score)
        if lane.reference is None:
            if len(lane.scores) >= self._rule.reference:
                lane.reference = np.sort(np.array(lane.scores))
                lane.scores = []
                self._store(model, frame.source, lane.reference)
        elif len(lane.scores) >= self._rule.block:
            scores = np.array(lane.scores)
            lane.scores = []
            self._compare(lane, lane.reference, scores, frame)

    def _compare(self, lane: _Lane, reference: Scores, scores: Scores, frame: Frame) -> None:
        distance = ks_distance(reference, scores)
        rule = self._rule
        if not lane.alarmed:
            if distance >= rule.alarm_distance - 1e-9:
                lane.alarmed, lane.calm = True, 0
                self._raise("alarm", rule.alarm_distance, distance, reference, scores, frame)
            return
        lane.calm = lane.calm + 1 if distance < rule.clear_distance - 1e-9 else 0
        if lane.calm >= CLEAR_BLOCKS:
            lane.alarmed = False
            self._raise("cleared", rule.clear_distance, distance, reference, scores, frame)

    def _raise(
        self,
        state: Literal["alarm", "cleared"],
        critical: float,
        distance: float,
        reference: Scores,
        scores: Scores,
        frame: Frame,
    ) -> None:
        (median, p95), (old_median, old_p95) = np.quantile(scores, (0.5, 0.95)), np.quantile(reference, (0.5, 0.95))
        comparison = {
            "distance": round(distance, 6),
            "critical_distance": round(critical, 6),
            "frames": len(scores),
            "reference_frames": len(reference),
            "median": float(median),
            "reference_median": float(old_median),
            "p95": float(p95),
            "reference_p95": float(old_p95),
        }
        if state == "alarm":
            self._say(
                f"warning: {frame.source}: the scores have drifted: median {median:.4g}, was {old_median:.4g};"
                f" 95th percentile {p95:.4g}, was {old_p95:.4g}; check lens, lighting and material, or train anew"
            )
        else:
            self._say(f"{frame.source}: the scores are again as they were")
        entry = drift_event(
            frame.source, at=frame.captured_at, monotonic_ns=frame.captured_ns, state=state, comparison=comparison
        )
        self._emit(entry)

    def _store(self, model: str, source: str, reference: Scores) -> None:
        if self._path is None:
            return
        self._kept = {model: {**self._kept.get(model, {}), source: reference}}  # of other models none is needed
        lists = {name: {key: [float(x) for x in xs] for key, xs in part.items()} for name, part in self._kept.items()}
        try:
            write_atomically(self._path, json.dumps(lists).encode())
        except OSError as exc:
            self._say(f"warning: {self._path}: cannot be written: {os_reason(exc)}; the next run learns anew")

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


def _read(path: Path, say: Callable[[str], None]) -> dict[str, dict[str, Scores]]:
    """References by model and source; none where the file is absent or damaged, which is said."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError("too large")
        data = json.loads(path.read_bytes())
        found = {
            str(model): {str(source): np.sort(np.array(scores, np.float64)) for source, scores in part.items()}
            for model, part in data.items()
        }
        if not all(one.ndim == 1 and np.isfinite(one).all() for part in found.values() for one in part.values()):
            raise ValueError("no lists of numbers")
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise OutputError(f"{path}: cannot be read: {os_reason(exc)}") from exc
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        say(f"warning: {path}: holds no references for the drift alarm; they are learned anew")
        return {}
    return found
