"""What a process of its own costs an engine: each picture goes to the engine here and to the same one in a process.

    python benchmarks/engine_process.py [BUNDLE] [--engine openvino] [--pictures 1000]

The two take turns, and the difference is that of each pair, so what slows the machine down for a while slows both. The
bundle is by default one of the usual size, 288×288, for the fake engine, whose few milliseconds hide nothing. A process
that has waited for a frame wakes up slower than one that has not: --pause-ms makes both wait, as a camera does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from line_overhead import fake_bundle

from edge_ad.bundle.bundle import Bundle
from edge_ad.engine import Engine
from edge_ad.runtime.engines import make_engine
from edge_ad.runtime.engines.process.engine import ProcessEngine
from edge_ad.runtime.judge.loader import engine_spec

GOAL_P50_MS = 0.3
WARM_UP = 30


def engines_of(bundle: Bundle, name: str, cache_dir: Path) -> tuple[Engine, Engine]:
    """The engine in this process, and in one of its own."""
    precision = bundle.precision(None)
    file = bundle.model_file(precision)
    spec = engine_spec(bundle, precision, bundle.manifest.files[file], cache_dir)
    return make_engine(name, lambda: bundle.read_file(file), spec), ProcessEngine(
        name, lambda: bundle.read_file(file), spec
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--engine", default=None, help="fake without a bundle, openvino with one")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--pause-ms", type=float, default=0.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Bundle.read(given.bundle) if given.bundle else fake_bundle(Path(folder))
        name = given.engine or ("openvino" if given.bundle else "fake")
        height, width = bundle.manifest.preprocess.size_hw
        pictures = np.random.default_rng(0).integers(0, 256, (16, 1, height, width, 3), np.uint8)
        here, there = engines_of(bundle, name, Path(folder) / "engines")
        taken_ms: list[tuple[float, float]] = []
        with here, there:
            for number in range(WARM_UP + given.pictures):
                picture = pictures[number % len(pictures)]
                pair = {}
                for engine in (here, there) if number % 2 else (there, here):
                    time.sleep(given.pause_ms / 1e3)
                    began_s = time.perf_counter()
                    pair[engine] = engine.infer(picture), (time.perf_counter() - began_s) * 1e3
                assert np.array_equal(pair[here][0].anomaly_map, pair[there][0].anomaly_map)
                taken_ms.append((pair[here][1], pair[there][1]))
        times_ms = np.array(taken_ms[WARM_UP:])
    difference_ms = times_ms[:, 1] - times_ms[:, 0]
    print(f"{name}, {height}x{width}, {len(times_ms)} pairs, {given.pause_ms:g} ms between calls")
    for title, values in (("here", times_ms[:, 0]), ("in a process", times_ms[:, 1]), ("difference", difference_ms)):
        p50, p95 = np.percentile(values, (50, 95))
        print(f"  {title:<13} p50 {p50:7.3f} ms   p95 {p95:7.3f} ms")
    print(f"  goal: difference p50 <= {GOAL_P50_MS} ms")


if __name__ == "__main__":
    main()
