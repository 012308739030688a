"""What a soak holds against a line: one entry for each invariant, with the first examples of how it was broken."""

from __future__ import annotations

import threading
from collections import Counter

INVARIANTS: dict[str, str] = {
    "account": "captured = ok + late + skipped + stale + unusable + error + in flight, for every camera, at any moment",
    "record": "every frame that was handed over left a record, and left one only",
    "order": "records of a camera leave in the order of capture",
    "scored": "no frame has a score or a verdict that the engine has not looked at",
    "own score": "every score is the one that the engine gave for this very picture, and the verdict follows from it",
    "own picture": "every sink of pictures gets the record's own picture",
    "spoiled": "repeated, black and torn frames are stale, unusable and errors",
    "deadline": "ok is in time and late is not, by the times of the soak itself",
    "outages": "every loss of a camera, every return and every silence leaves one event, in turn",
    "sinks": "taken = delivered + lost + dropped + waiting, and delivered is what can be found",
    "kept": "nothing is deleted for its age before its time, whatever the clock does",
    "engine": "a crash or hang of the engine's process costs the batch in hand; a fresh one takes over, and is counted",
    "goes on": "neither a camera, nor the engine, nor a sink ends the line; it stops in time",
    "fairness": "cameras that want more than there is are served alike",
    "signals": "hangups are heard, however many come at once",
    "memory": "memory does not grow",
    "left over": "threads, open files and processes at the end are those of the start",
}
"""Every invariant by its short name."""

EXAMPLES = 3


class Findings:
    """Breaches by invariant, from all threads; bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, invariant: str, example: str) -> None:
        """Note a breach of one of `INVARIANTS`."""
        assert invariant in INVARIANTS
        with self._lock:
            self._counts[invariant] += 1
            examples = self._examples.setdefault(invariant, [])
            if len(examples) < EXAMPLES:
                examples.append(example)

    @property
    def counts(self) -> Counter[str]:
        with self._lock:
            return self._counts.copy()

    def examples(self, invariant: str) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._examples.get(invariant, ()))

    def __bool__(self) -> bool:
        return bool(self.counts)
