"""The thresholds that the cameras of a line are judged with; they may change between frames."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edge_ad.bundle.specs import Thresholds
from edge_ad.errors import ConfigError

Origin = Literal["bundle", "camera", "http"]


@dataclass(frozen=True)
class InUse:
    """Thresholds of one camera, and who gave them: its bundle, its settings, or a request."""

    thresholds: Thresholds
    origin: Origin = "bundle"


class ThresholdBoard:
    """Thresholds by the number and name of the camera. Thread-safe; whoever judges a frame reads them once.

    Args:
        names: of the cameras.
        configured: what settings and bundle say, for each of them.
    """

    def __init__(self, names: Sequence[str], configured: Sequence[InUse]) -> None:
        self._numbers = {name: number for number, name in enumerate(names)}
        self._lock = threading.Lock()
        self._configured = tuple(configured)
        self._in_use = self._configured

    def of(self, lane: int) -> Thresholds:
        return self._in_use[lane].thresholds

    def snapshot(self) -> dict[str, InUse]:
        in_use = self._in_use
        return {name: in_use[number] for name, number in self._numbers.items()}

    def configure(self, configured: Sequence[InUse]) -> None:
        """Take what settings and bundle say now, for all cameras at once; what requests said is over."""
        with self._lock:
            self._configured = self._in_use = tuple(configured)

    def change(self, scores: Mapping[str, float | None]) -> None:
        """Use other thresholds for some cameras, all at once; None goes back to what settings and bundle say.

        Raises: ConfigError with every fault; then nothing has changed.
        """
        faults = []
        with self._lock:
            changed = list(self._in_use)
            for name, score in scores.items():
                number = self._numbers.get(name)
                if number is None:
                    faults.append(f"{name}: there is no camera of that name, only {', '.join(self._numbers)}")
                elif score is not None:
                    changed[number] = InUse(Thresholds(score), "http")
                elif self._configured[number].thresholds.image is None:
                    faults.append(f"{name}: neither its settings nor the bundle hold a threshold to go back to")
                else:
                    changed[number] = self._configured[number]
            if faults:
                raise ConfigError("thresholds", faults)
            self._in_use = tuple(changed)
