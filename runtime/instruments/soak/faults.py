"""Kinds of faults. A new one is a function of its seam and one line of `FAULTS`.

Whether and when a fault strikes is drawn from the seed by the number of the call, never by the clock: a run with the
same seed meets the same faults in the same calls of the same parts.
"""

from __future__ import annotations

import errno
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edge_ad.engine import BatchArray, Outputs
from edge_ad.errors import EngineError, OutputError
from edge_ad.image.frame import Frame

if TYPE_CHECKING:
    from edge_ad.runtime.instruments.soak.engine import WatchedEngine
    from edge_ad.runtime.instruments.soak.sinks import FaultySink
    from edge_ad.runtime.instruments.soak.sources import FaultySource

Seam = Literal["source", "engine", "sink"]
UNTIL_CLOSED_S = 3600.0


@dataclass(frozen=True)
class Fault:
    """One kind of misfortune.

    Attributes:
        seam: what it strikes.
        strike: what happens in place of a call of that part, or before it.
        weight: how often, against the others of its seam.
    """

    seam: Seam
    strike: Callable[..., Any]
    weight: float = 1.0


class Dice:
    """Draws the faults of one part from the seed and the part's name.

    Attributes:
        struck: how many it has drawn.
    """

    def __init__(self, name: str, seam: Seam, plan: Plan) -> None:
        self.random = random.Random(f"{plan.seed} {name}")
        self.struck = 0
        self._plan = plan
        self._kinds = [kind for kind in plan.kinds if FAULTS[kind].seam == seam]
        self._weights = [FAULTS[kind].weight for kind in self._kinds]

    def draw(self) -> Fault | None:
        """The fault that strikes this call, if one does; it is counted."""
        if not self._kinds or self.random.random() >= self._plan.rate:
            return None
        (kind,) = self.random.choices(self._kinds, self._weights)
        if not self._plan.count(kind):
            return None
        self.struck += 1
        return FAULTS[kind]


class Plan:
    """Which faults there are to be, and how many there were.

    Args:
        kinds: names of `FAULTS`.
        rate: share of the calls of every part that meet a fault, 0 to 1.
        limit: number of faults after which none strikes any more; None for no limit.

    Attributes:
        spent: set when the limit is reached.
    """

    def __init__(self, kinds: Sequence[str], *, seed: int = 0, rate: float = 0.01, limit: int | None = None) -> None:
        self.kinds = tuple(kinds)
        self.seed = seed
        self.rate = rate
        self.spent = threading.Event()
        self._limit = limit
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, kind: str) -> bool:
        """Note a fault. Returns: False when there were enough before."""
        with self._lock:
            if self.spent.is_set():
                return False
            self._counts[kind] += 1
            if self._limit is not None and self._counts.total() >= self._limit:
                self.spent.set()
            return True

    @property
    def counts(self) -> Counter[str]:
        with self._lock:
            return self._counts.copy()


def drop(camera: FaultySource, dice: random.Random) -> Frame | None:
    """The camera is unplugged, and plugged in again after some attempts to open it."""
    camera.pull_out(dice.randrange(3))
    return None


def freeze(camera: FaultySource, dice: random.Random) -> Frame | None:
    """The read takes long."""
    camera.closed.wait(0.02 * 50 ** dice.random())
    return camera.next()


def hang(camera: FaultySource, dice: random.Random) -> Frame | None:
    """The read does not come back, as long as the line runs."""
    camera.closed.wait(UNTIL_CLOSED_S)
    return camera.next()


def repeat(camera: FaultySource, dice: random.Random) -> Frame | None:
    """The driver delivers its last buffer again."""
    camera.then(*[camera.again] * dice.randrange(5))
    return camera.again()


def corrupt(camera: FaultySource, dice: random.Random) -> Frame | None:
    """The frame is torn, or no picture at all."""
    frame = camera.next()
    if frame is None:
        return None
    garbage: list[dict[str, Any]] = [
        {"image_hwc": None, "error": "simulated: torn"},
        {"image_hwc": None},
        {"image_hwc": np.zeros(dice.randrange(1, 99), np.uint8)},
        {"image_hwc": np.zeros((0, 0, 3), np.uint8)},
        {"image_hwc": np.zeros((8, 8, dice.choice([1, 4])), np.uint8)},
        {"image_hwc": np.full((8, 8, 3), np.nan, np.float32)},
        {"image_hwc": b"no array"},
    ]
    return camera.spoiled("corrupt", replace(frame, **dice.choice(garbage)))


def black(camera: FaultySource, dice: random.Random) -> Frame | None:
    """The lights are out for some frames."""

    def dark() -> Frame | None:
        frame = camera.next()
        if frame is None or frame.image_hwc is None:
            return frame
        image = np.zeros_like(frame.image_hwc)
        image[0, 0] = 1 + camera.number_of(frame) % 7  # noise: no two pictures are the same
        return camera.spoiled("black", replace(frame, image_hwc=image))

    camera.then(*[dark] * dice.randrange(8))
    return dark()


def burst(camera: FaultySource, dice: random.Random) -> Frame | None:
    """Many frames at once, as after a stall of the network."""
    camera.then(*[camera.at_once] * dice.randrange(5, 30))
    return camera.at_once()


def engine_error(engine: WatchedEngine, dice: random.Random, batch_nhwc: BatchArray) -> Outputs:
    """The engine refuses a batch."""
    raise EngineError("simulated: device lost")


def engine_defect(engine: WatchedEngine, dice: random.Random, batch_nhwc: BatchArray) -> Outputs:
    """The engine fails as no engine should."""
    raise dice.choice([RuntimeError("simulated defect"), SystemError("simulated"), MemoryError()])


def engine_slow(engine: WatchedEngine, dice: random.Random, batch_nhwc: BatchArray) -> Outputs:
    """The engine takes long: a hot processor, a greedy neighbour."""
    engine.closed.wait(0.01 * 40 ** dice.random())
    return engine.compute(batch_nhwc)


def engine_nan(engine: WatchedEngine, dice: random.Random, batch_nhwc: BatchArray) -> Outputs:
    """The engine computes no number."""
    outputs = engine.compute(batch_nhwc)
    return replace(outputs, pred_score=np.full_like(outputs.pred_score, np.nan))


def sink_down(sink: FaultySink, dice: random.Random) -> None:
    """The broker is away for some writes."""

    def refuse() -> None:
        raise OutputError("simulated: no connection")

    sink.then(*[refuse] * dice.randrange(3))
    refuse()


def disk_full(sink: FaultySink, dice: random.Random) -> None:
    """The disk takes nothing."""
    raise OSError(errno.ENOSPC, "simulated: no space left on device")


def sink_slow(sink: FaultySink, dice: random.Random) -> None:
    """Every write takes its time for a while."""

    def dawdle() -> None:
        sink.closed.wait(0.02)

    sink.then(*[dawdle] * dice.randrange(1, 20))
    dawdle()


def sink_hung(sink: FaultySink, dice: random.Random) -> None:
    """One write hangs."""
    sink.closed.wait(0.1 * 15 ** dice.random())


def sink_defect(sink: FaultySink, dice: random.Random) -> None:
    """The sink fails as no sink should."""
    raise dice.choice([TypeError("simulated defect"), MemoryError()])


FAULTS: dict[str, Fault] = {
    "drop": Fault("source", drop, weight=0.2),
    "freeze": Fault("source", freeze),
    "hang": Fault("source", hang, weight=0.1),
    "repeat": Fault("source", repeat),
    "corrupt": Fault("source", corrupt),
    "black": Fault("source", black),
    "burst": Fault("source", burst),
    "engine-error": Fault("engine", engine_error),
    "engine-defect": Fault("engine", engine_defect),
    "engine-slow": Fault("engine", engine_slow),
    "engine-nan": Fault("engine", engine_nan),
    "sink-down": Fault("sink", sink_down),
    "disk-full": Fault("sink", disk_full),
    "sink-slow": Fault("sink", sink_slow),
    "sink-hung": Fault("sink", sink_hung, weight=0.3),
    "sink-defect": Fault("sink", sink_defect),
}
"""Every kind by the name that the user gives it."""
