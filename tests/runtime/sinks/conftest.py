"""Records to write, and spools to write them to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Provenance, Verdict, record
from edge_ad.runtime.sinks.spool import Spool
from edge_ad.runtime.sinks.syncing import SyncPolicy

PROVENANCE = Provenance("ab" * 32, "fake", "fp32")


@pytest.fixture
def write() -> Callable[..., None]:
    return write_frame


def write_frame(sink: Any, number: int, source: str = "camera:0", score: float = 0.25, threshold: float = 0.5) -> None:
    """Give a sink one judged frame without its picture, as it gets those that it keeps."""
    frame = Frame(number, source, datetime.now(timezone.utc), 1000 + number, None)
    label = "anomalous" if score >= threshold else "normal"
    verdict = Verdict("ok", score=score, threshold=threshold, verdict=label)  # type: ignore[arg-type]
    sink.write(frame, verdict, record(frame, verdict, PROVENANCE, budget_ms=None))


@pytest.fixture
def make_spool(tmp_path: Path) -> Callable[..., Spool]:
    def make(name: str = "spool", **more: Any) -> Spool:
        settings = {"budget_bytes": 1 << 22, "sync": SyncPolicy(), **more}
        return Spool(tmp_path / "spool" / f"{name}.sqlite", **settings)

    return make
