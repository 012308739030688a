"""A whole run with every sink at once: files, database, a broker that goes away, a service that fails, and drift."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

import edge_ad.demo
from edge_ad.record.verdict import record_schema
from edge_ad.runtime.station.file import run_options
from edge_ad.runtime.station.run import run

BUNDLE = Path(edge_ad.demo.__file__).parent / "disc.edgead"
FRAMES = 120


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Dark parts with noise of their own; a few in the middle have a bright spot, and the last third is brighter."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(FRAMES):
        rng = np.random.default_rng(number)
        level = 60 + int(rng.integers(0, 30)) + (40 if number >= 80 else 0)
        picture = np.clip(rng.normal(level, 8, (64, 64, 3)), 0, 255).astype(np.uint8)
        if number in (5, 50, 100):
            picture[20:50, 20:50] = 250
        Image.fromarray(picture).save(folder / f"{number:03}.png")
    return folder


def test_every_record_is_in_every_sink_or_waits_on_disk(
    tmp_path: Path, pictures: Path, service: Any, make_broker: Any, engine_cache: Path
) -> None:
    rng = random.Random(0)
    service.answer = lambda _: 204 if rng.random() < 0.7 else 503
    broker = make_broker()  # which never starts
    output = tmp_path / "out"
    sinks = {
        "records": {"rotate_mb": 0.02, "fsync": 0.05},
        "pictures": {"save": ["masks", "overlays"], "which": "rejects", "quota_mb": 5},
        "sqlite": {},
        "mqtt": {"host": "127.0.0.1", "port": broker.port, "flush_s": 0},
        "webhook": {"url": service.url, "backoff_s": [0.001, 0.01], "flush_s": 20, "attempts": 50},
        "drift": {"reference": 50, "block": 20, "frames_per_false_alarm": 1e5},
    }
    given = {"bundle": BUNDLE, "source": str(pictures), "engine": "fake", "threshold": 0.75, "output": output}
    options = run_options({**given, "sinks": sinks, "engine_cache": engine_cache}, "run options")
    said: list[str] = []
    result = run(options, said.append)

    counts = result.telemetry.counters.snapshot()
    assert counts.adds_up
    by_name = {sink.name: sink for sink in counts.sinks}
    assert len(by_name) == len(counts.sinks) and {"masks", "overlays"} < by_name.keys()
    drifts = 1
    for name in ("JsonLines", "SqliteRecords", "MqttRecords", "WebhookRecords"):
        assert (by_name[name].taken, by_name[name].delivered) == (FRAMES + drifts, FRAMES + drifts), name
    assert (by_name["mqtt spool"].taken, by_name["mqtt spool"].waiting) == (FRAMES + drifts, FRAMES + drifts)
    assert (by_name["webhook spool"].delivered, by_name["webhook spool"].waiting) == (FRAMES + drifts, 0)
    assert by_name["webhook spool"].failures > 0

    lines = [
        json.loads(line) for path in sorted(output.glob("verdicts*.jsonl")) for line in path.read_text().splitlines()
    ]
    assert len(list(output.glob("verdicts-*.jsonl"))) >= 2
    assert sorted(line["frame_id"] for line in lines if "event" not in line) == list(range(FRAMES))
    (drift,) = (line for line in lines if "event" in line)
    jsonschema.validate(drift, record_schema())
    assert drift["state"] == "alarm" and drift["median"] > drift["reference_median"]
    with closing(sqlite3.connect(output / "verdicts.sqlite")) as db:
        assert db.execute("SELECT count(*), sum(verdict = 'anomalous') FROM records").fetchone() == (FRAMES, 3)
        assert db.execute("SELECT event FROM events").fetchall() == [("drift",)]
    assert sorted(body["frame_id"] for body in service.taken if "event" not in body) == list(range(FRAMES))
    assert max(Counter(body["key"] for body in service.taken).values()) == 1
    for kind in ("masks", "overlays"):
        assert sorted(path.name[:6] for path in (output / kind).iterdir()) == ["000005", "000050", "000100"]
    assert any("cannot be reached: connection refused; records wait on disk" in line for line in said)
    assert any("the scores have drifted" in line for line in said)
    assert any(f"{FRAMES + drifts} records wait in" in line for line in said)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("edge-ad")] == []

    broker.start()  # and the next run, of nothing new but one frame, delivers what the last one left
    sinks["mqtt"]["flush_s"] = 20
    options = run_options(
        {**given, "source": str(pictures / "000.png"), "sinks": sinks, "engine_cache": engine_cache}, "run options"
    )
    counts = run(options, said.append).telemetry.counters.snapshot()
    (spool,) = (sink for sink in counts.sinks if sink.name == "mqtt spool")
    assert (spool.taken, spool.delivered, spool.waiting) == (FRAMES + drifts + 1, FRAMES + drifts + 1, 0)


def test_a_disk_that_hangs_holds_up_neither_the_line_nor_who_asks_for_counts(
    make_spool: Any, until: Callable[..., None]
) -> None:
    from edge_ad.runtime.line.scheduling.counters import Counters
    from edge_ad.runtime.line.scheduling.output import Outputs
    from edge_ad.runtime.sinks.settings import WebhookSettings
    from edge_ad.runtime.sinks.webhook import WebhookRecords

    counters = Counters()
    spool = make_spool()
    sink = WebhookRecords(WebhookSettings("http://127.0.0.1:1/", flush_s=0), spool, "run")
    with sink:
        outputs = Outputs(
            [sink],
            counters,
            forgiving=True,
            failed=lambda _: None,
            say=lambda _: None,
            wrote=lambda _: None,
            wake=lambda: None,
        )
        outputs.start()
        with spool._lock:  # as while a write hangs
            for number in range(100):
                outputs.event({"event": "test", "source": "a", "monotonic_ns": number})
            queue, account = counters.snapshot().sinks
            assert (queue.taken, queue.delivered, account.taken) == (100, 0, 0)
        until(lambda: counters.snapshot().sinks[1].taken == 100)
        assert outputs.close(20) == ()
        assert counters.snapshot().adds_up
