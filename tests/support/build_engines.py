"""Builds engines through edge-ad's own builder and says on stdout, as JSON, what came of each.

    echo '[{"bundle": "tiny.edgead", "flavour": "rtx", "sm": "86"}]' | python build_engines.py

A process of its own: a builder that crashes takes nothing but itself down.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from edge_ad.bundle.bundle import Bundle
from edge_ad.errors import EdgeAdError
from edge_ad.runtime.engines.tensorrt.builder.build import build_job, graph_of, plan_job
from edge_ad.runtime.engines.tensorrt.builder.options import build_options


class Watched:
    """Counts what the builder reports."""

    def __init__(self) -> None:
        self.phases = self.open = self.steps = 0

    def begin(self, phase: str, parent: str | None, steps: int) -> None:
        self.phases += 1
        self.open += 1

    def step(self, phase: str, step: int) -> None:
        self.steps += 1

    def end(self, phase: str) -> None:
        self.open -= 1


def built(values: dict[str, Any]) -> dict[str, Any]:
    watched = Watched()
    try:
        options = build_options(values, "test")
        job = plan_job(graph_of(Bundle.read(options.bundle), options.precision), options)
        result = build_job(job, force=options.force, progress=watched)
    except EdgeAdError as exc:
        return {"error": str(exc), "kind": type(exc).__name__}
    return {
        "path": str(result.path),
        "payload": result.payload,
        "size_bytes": result.size_bytes,
        "from_cache": result.from_cache,
        "notes": result.notes,
        "phases": watched.phases,
        "open_phases": watched.open,
        "steps": watched.steps,
    }


if __name__ == "__main__":
    print(json.dumps([built(values) for values in json.load(sys.stdin)]))
