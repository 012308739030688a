"""What the line itself costs: time from capture to verdict beyond resize and engine, and frames per second.

    python benchmarks/line_overhead.py [--frames 600] [--fps 30]

The engine is the fake one, pictures come from memory, and records go to a file. The first figure is taken on 1080p
frames that arrive by the clock, the second on frames of the model's size that come as fast as the line takes them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from edge_ad.bundle.bundle import Bundle, write_bundle
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, TensorSpec, Thresholds
from edge_ad.image.frame import Frame, ImageArray
from edge_ad.runtime.host.results import RECORDS
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.telemetry import Telemetry
from edge_ad.runtime.sinks.jsonl import JsonLines

SIDE = 288
PICTURES = 16
GOAL_P50_MS, GOAL_P99_MS, GOAL_FPS = 1.5, 5.0, 500.0


class Belt:
    """Pictures from memory: with `fps` a camera, without it a source that waits."""

    length = None

    def __init__(self, frame_hw: tuple[int, int], count: int, fps: float | None) -> None:
        self.name = "belt"
        self.live = fps is not None
        self._fps = fps
        self._count = count
        self._next_id = 0
        self._began_s: float | None = None
        rng = np.random.default_rng(0)
        self._pictures: list[ImageArray] = [
            rng.integers(40, 200, (*frame_hw, 3), dtype=np.uint8) for _ in range(PICTURES)
        ]
        for picture in self._pictures[::4]:  # one in four is anomalous, so that regions are looked for
            picture[100:180, 100:180] = 255

    def __enter__(self) -> Belt:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def read(self) -> Frame | None:
        if self._next_id == self._count:
            return None
        if self._began_s is None:
            self._began_s = time.monotonic()
        if self._fps is not None:
            due_s = self._began_s + self._next_id / self._fps
            time.sleep(max(0.0, due_s - time.monotonic()))
        number, self._next_id = self._next_id, self._next_id + 1
        picture = self._pictures[number % PICTURES]
        return Frame(number, self.name, datetime.now(timezone.utc), time.monotonic_ns(), picture, color_order="bgr")


def fake_bundle(folder: Path) -> Bundle:
    """A bundle of the usual size for the engine that computes nothing but brightness."""
    fields = {
        "model": {"family": "none", "config": {}},
        "preprocess": PreprocessSpec(SIDE, SIDE, resize_mode="stretch"),
        "postprocess": PostprocessSpec(),
        "input": TensorSpec("image", (None, SIDE, SIDE, 3), "uint8"),
        "outputs": (
            TensorSpec("patch_map", (None, 36, 36), "float32"),
            TensorSpec("anomaly_map", (None, SIDE, SIDE), "float32"),
            TensorSpec("pred_score", (None,), "float32"),
        ),
        "opset": 17,
        "models": {"fp32": "model.onnx"},
        "thresholds": Thresholds(0.9),
    }
    return write_bundle(folder / "fake.edgead", fields, {"model.onnx": b"never read by the fake engine"})


def records_of(detector: Detector, belt: Belt, folder: Path) -> tuple[list[dict[str, object]], float]:
    """Run the line. Returns: its records, and the seconds it took."""
    with JsonLines(folder) as sink:
        line = Line(detector, [Lane(belt, belt.name)], [sink], Telemetry())
        began = time.perf_counter()
        line.run(threading.Event())
        seconds = time.perf_counter() - began
    return [json.loads(text) for text in (folder / RECORDS).read_text("utf-8").splitlines()], seconds


def overhead_ms(entry: dict[str, object]) -> float:
    """Capture to verdict, without decoding, resize and engine."""
    stages: dict[str, float] = entry["timings_ms"]  # type: ignore[assignment]
    return stages["total"] - stages["decode"] - stages["preprocess"] - stages["infer"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--fps", type=float, default=30.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open_detector(fake_bundle(Path(folder)), engine="fake") as detector:
        entries, _ = records_of(detector, Belt((1080, 1920), given.frames, given.fps), Path(folder) / "camera")
        judged = [entry for entry in entries if entry["status"] == "ok"][10:]  # the first ones start threads
        overheads = [overhead_ms(entry) for entry in judged]
        p50_ms, p99_ms = np.percentile(overheads, (50, 99))
        print(f"1080p at {given.fps:g} fps: {len(judged)} of {len(entries)} frames judged")
        for stage in ("preprocess", "infer", "postprocess", "wait"):
            print(f"  {stage:<11} p50 {np.median([entry['timings_ms'][stage] for entry in judged]):6.2f} ms")  # type: ignore[index]
        print(f"  overhead    p50 {p50_ms:6.2f} ms (goal {GOAL_P50_MS})   p99 {p99_ms:6.2f} ms (goal {GOAL_P99_MS})")
        belt = Belt((SIDE, SIDE), 4 * given.frames, None)
        entries, seconds = records_of(detector, belt, Path(folder) / "files")
        print(f"model size: {len(entries) / seconds:.0f} frames/s (goal {GOAL_FPS:g})")


if __name__ == "__main__":
    main()
