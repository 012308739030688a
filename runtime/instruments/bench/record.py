"""The results of a measurement as strict JSON, and the times of every call as JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edge_ad.runtime.instruments.bench.clock import CLOCKS
from edge_ad.runtime.instruments.bench.measure import STAGES, Measurement
from edge_ad.runtime.instruments.bench.run import BenchResult
from edge_ad.runtime.instruments.bench.statistics import RULE

SCHEMA_VERSION = 1


def latencies(measurement: Measurement, percentiles: Sequence[float]) -> dict[str, dict[str, float]]:
    """Milliseconds of every stage: mean, each percentile (`p99`), and max."""
    table = {}
    for stage in STAGES:
        times = measurement.stage_ms(stage)
        row = {f"p{each:g}": float(np.percentile(times, each)) for each in percentiles}
        table[stage] = {"mean": float(times.mean()), **row, "max": float(times.max())}
    return table


def result_json(result: BenchResult, percentiles: Sequence[float]) -> dict[str, Any]:
    """Plain values of everything; null where something is not known."""
    found, roof, gate = result.measurement, result.roofline, result.gate
    frames = len(found.frames_ms) * found.batch
    return {
        "schema_version": SCHEMA_VERSION,
        "measured_at": result.measured_at,
        "bundle": result.bundle,
        "subject": asdict(result.subject),
        "machine": result.machine,
        "threads": found.threads,
        "run": {
            "rounds": found.rounds,
            "calls": len(found.frames_ms),
            "frames": frames,
            "elapsed_s": found.elapsed_s,
            "ready_s": result.ready_s,
            "from_cache": result.from_cache,
            "others": found.others,
        },
        "verdict": found.verdict.verdict,
        "regions": len(found.verdict.regions),
        "latency_ms": latencies(found, percentiles),
        "frames_per_s": found.frames_per_s,
        "yardstick_ms": {clock: float(np.median(found.yards_ms[:, index])) for index, clock in enumerate(CLOCKS)},
        "roofline": {
            "gmac": None if roof.macs is None else roof.macs.count / 1e9,
            "mac": None if roof.macs is None else roof.macs.count,
            "gmac_per_s": roof.reached,
            "share": roof.share,
            "best_share": roof.best_share,
            "clock": roof.clock,
            "reason": roof.reason,
            "peaks": [
                {
                    "arithmetic": peak.arithmetic,
                    "gmac_per_s": peak.gmacs_per_s(),
                    "best_gmac_per_s": peak.gmacs_per_s(best=True),
                    "calls": len(peak.times_ms),
                    "kernel": peak.kernel,
                    "reason": peak.reason,
                }
                for peak in found.peaks
            ],
        },
        "energy": {
            "sources": [
                {**asdict(each), "joules_per_frame": None if each.joules is None else each.joules / frames}
                for each in result.readings
            ],
            "silent": list(result.silent),
        },
        "layers": {"note": result.layers.note, "layers": [asdict(layer) for layer in result.layers.layers]},
        "gate": None
        if gate is None
        else {
            "rule": RULE,
            "limit": gate.limit,
            "clock": gate.clock,
            "changes": {stage: asdict(change) for stage, change in gate.changes.items()},
            "slower": gate.slower,
            "notes": list(gate.notes),
        },
        "notes": list(result.notes),
    }


def json_text(content: dict[str, Any]) -> str:
    """Strict JSON in ASCII: the name of a bundle may hold bytes that are no text."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def times_bytes(measurement: Measurement, path: Path) -> bytes:
    """One entry for each call, in order: its round, its stages by elapsed time, and the round's yardstick, in ms.

    Args:
        path: `.csv` makes it CSV, any other name a JSON list.
    """
    entries = [
        {
            "round": int(number),
            **{f"{stage}_ms": float(stages[index, 0]) for index, stage in enumerate(STAGES)},
            "yardstick_ms": float(measurement.yards_ms[number, 0]),
        }
        for number, stages in zip(measurement.round_of, measurement.frames_ms, strict=True)
    ]
    if path.suffix.lower() != ".csv":
        return (json.dumps(entries, allow_nan=False, indent=0) + "\n").encode("ascii")
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(entries[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries)
    return buffer.getvalue().encode("ascii")
