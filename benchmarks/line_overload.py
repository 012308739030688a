"""A line with more frames than it can judge: deadlines, age, memory, and whether cameras are served alike.

    python benchmarks/line_overload.py [BUNDLE] [--seconds 60] [--load 3] [--cameras 4] [--engine fake] [--batch 1]

Without a bundle, the one that ships with edge-ad on an engine that takes `--infer-ms` for every call and computes
brightness. With a bundle, its own engine, whose rate is measured first; the cameras together give `--load` times that.
First one camera gives all of it, then `--cameras` share the engine.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edge_ad.engine import BatchArray, Engine, Outputs
from edge_ad.image.frame import Frame, ImageArray
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.instruments.soak.process import Growth, Held
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.telemetry import Telemetry
from edge_ad.runtime.sinks.jsonl import JsonLines

PICTURES = 8
GOAL_MOST_TO_LEAST, GOAL_GROWTH_MIB = 1.1, 8.0
FRAME_HW = (480, 640)


class Camera:
    """Pictures from memory by the clock."""

    live, length = True, None

    def __init__(self, name: str, fps: float, phase: float, seconds: float) -> None:
        self.name = name
        self._fps = fps
        self._phase_s = phase / fps
        self._count = int(seconds * fps)
        self._next_id = 0
        self._began_s = 0.0
        rng = np.random.default_rng(0)
        self._pictures: list[ImageArray] = [
            rng.integers(40, 200, (*FRAME_HW, 3), dtype=np.uint8) for _ in range(PICTURES)
        ]

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def read(self) -> Frame | None:
        if self._next_id == self._count:
            return None
        if self._next_id == 0:
            self._began_s = time.monotonic() + self._phase_s
        time.sleep(max(0.0, self._began_s + self._next_id / self._fps - time.monotonic()))
        number, self._next_id = self._next_id, self._next_id + 1
        picture = self._pictures[number % PICTURES]
        return Frame(number, self.name, datetime.now(timezone.utc), time.monotonic_ns(), picture)


class Steady(Engine):
    """Another engine that takes its time."""

    def __init__(self, inner: Engine, infer_ms: float) -> None:
        super().__init__(lambda: b"", inner.spec)
        self.name = inner.name
        self._inner = inner
        self._infer_s = infer_ms / 1e3

    def load_impl(self) -> None:
        self._inner.__enter__()

    def infer_impl(self, batch_nhwc: BatchArray) -> Outputs:
        until_s = time.monotonic() + self._infer_s
        outputs = self._inner.infer(batch_nhwc)
        time.sleep(max(0.0, until_s - time.monotonic()))
        return outputs

    def close_impl(self) -> None:
        self._inner.__exit__(None, None, None)


class Watch:
    """Counts what the records say, and looks at memory."""

    keeps_records = True

    def __init__(self) -> None:
        self.growth = Growth()
        self.ages_ms: list[float] = []
        self.hidden = 0
        self.judged: Counter[str] = Counter()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        held = Held.now()
        if held.memory_mib is not None:
            self.growth.add(held.memory_mib)
        if verdict.score is None:
            return
        self.judged[entry["source"]] += 1
        total_ms = entry["timings_ms"]["total"]
        self.ages_ms.append(total_ms)
        self.hidden += entry["status"] == "ok" and total_ms > (entry["budget_ms"] or np.inf)


def rate_of(detector: Detector) -> float:
    """Frames that engine and detector judge in a second, one after the other, in the batches of the line."""
    image = np.random.default_rng(0).integers(40, 200, (*FRAME_HW, 3), dtype=np.uint8)
    prepared = [detector.prepare(image)] * detector.max_batch
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < 1.0 or calls < 5:
        detector.infer(prepared)
        calls += 1
    return calls * detector.max_batch / (time.perf_counter() - began)


def overload(detector: Detector, cameras: int, fps: float, budget_ms: float, seconds: float) -> None:
    """Run the line and print what came of it."""
    watch, telemetry = Watch(), Telemetry()
    sources = [Camera(f"camera {number}", fps / cameras, number / cameras, seconds) for number in range(cameras)]
    with tempfile.TemporaryDirectory() as folder, JsonLines(Path(folder)) as file:
        lanes = [Lane(source, source.name, budget_ms=budget_ms) for source in sources]
        Line(detector, lanes, [watch, file], telemetry).run(threading.Event())
    counts = telemetry.counters.snapshot()
    statuses, ages_ms = counts.statuses, np.array(watch.ages_ms or [np.nan])
    print(f"{cameras} camera(s), {fps:.0f} frames/s in all, budget {budget_ms:.0f} ms, {seconds:g} s:")
    print(f"  captured {counts.captured}: {dict(statuses)}; adds up: {counts.adds_up}")
    print(f"  judged {sum(watch.judged.values()) / seconds:.1f} frames/s; marked late {statuses['late']}")
    print(f"  over budget and not marked: {watch.hidden} (goal 0)")
    p50_ms, p99_ms = np.percentile(ages_ms, (50, 99))
    print(f"  age at the verdict: p50 {p50_ms:.1f}, p99 {p99_ms:.1f}, max {ages_ms.max():.1f} ms")
    grown = "not known" if watch.growth.mib is None else f"{watch.growth.mib:+.2f} MiB"
    print(f"  memory, last quarter less second: {grown} (goal {GOAL_GROWTH_MIB:g} at most)")
    if cameras > 1:
        served = [watch.judged[source.name] for source in sources]
        most_to_least = max(served) / min(served) if min(served) else np.inf
        print(f"  served {served}, most to least {most_to_least:.3f} (goal {GOAL_MOST_TO_LEAST} at most)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--load", type=float, default=3.0)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--engine", default=None)
    parser.add_argument("--precision", default=None)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--infer-ms", type=float, default=20.0)
    parser.add_argument("--budget-ms", type=float, default=None, help="default: three calls of the engine and 10 ms")
    given = parser.parse_args()
    is_fake = given.engine == "fake" or (given.engine is None and given.bundle is None)
    detector = open_detector(
        given.bundle or str(resources.files("edge_ad.demo") / "disc.edgead"),
        engine="fake" if is_fake else given.engine or "openvino",
        precision=given.precision,
        batch=given.batch,
        around_engine=(lambda engine: Steady(engine, given.infer_ms)) if is_fake else lambda engine: engine,
    )
    with detector:
        rate = rate_of(detector)
        budget_ms = given.budget_ms or 3e3 * given.batch / rate + 10
        print(f"engine {detector.provenance.engine}: {rate:.1f} frames/s in batches of {detector.max_batch}")
        for cameras in dict.fromkeys((1, given.cameras)):
            overload(detector, cameras, given.load * rate, budget_ms, given.seconds)


if __name__ == "__main__":
    main()
