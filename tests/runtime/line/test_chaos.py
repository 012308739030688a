"""Two hundred faults at random, among them restarts of the broker and a service that fails: all is accounted for."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from edge_ad.runtime.instruments.soak import soak as soak_module
from edge_ad.runtime.instruments.soak.faults import FAULTS, Fault
from edge_ad.runtime.instruments.soak.options import SoakOptions
from edge_ad.runtime.instruments.soak.report import closing_lines
from edge_ad.runtime.instruments.soak.soak import Soak
from edge_ad.runtime.line import line as line_module
from edge_ad.runtime.line.scheduling import sink_queue
from edge_ad.runtime.sinks import Sink
from edge_ad.runtime.sinks.factory import SinkContext, make_sinks
from edge_ad.runtime.sinks.settings import MqttSettings, SinkSettings, SqliteSettings, WebhookSettings

BUNDLE = Path(str(resources.files("edge_ad.demo") / "disc.edgead"))
PATIENCE_S = 20


def test_two_hundred_faults_of_every_kind(
    tmp_path: Path,
    broker: Any,
    subscriber: Any,
    service: Any,
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("CRITICAL", "edge_ad.runtime.line.scheduling")
    monkeypatch.setattr(line_module, "STOP_S", 0.5)
    monkeypatch.setattr(sink_queue, "RETRY_S", 0.05)
    monkeypatch.setattr(soak_module, "WATCHDOG_S", 0.5)
    one_at_a_time = threading.Lock()
    rng = random.Random(0)
    service.answer = lambda _: 503 if rng.random() < 0.3 else 204

    def restart(sink: Any, dice: random.Random) -> None:
        with one_at_a_time:
            broker.stop(signal.SIGTERM)
            broker.start()

    monkeypatch.setitem(FAULTS, "broker-restart", Fault("sink", restart, weight=0.3))
    monkeypatch.setitem(FAULTS, "drop", replace(FAULTS["drop"], weight=1.0))
    monkeypatch.setitem(FAULTS, "hang", replace(FAULTS["hang"], weight=0.4))
    for kind in ("black", "engine-error", "engine-defect"):  # a slow machine judges few frames
        monkeypatch.setitem(FAULTS, kind, replace(FAULTS[kind], weight=2.0))

    def sinks(flush_s: float = 0.0) -> Sequence[Sink]:
        settings = SinkSettings(
            sqlite=SqliteSettings(),
            mqtt=MqttSettings("127.0.0.1", broker.port, prefix="line", reconnect_s=(1, 1), flush_s=flush_s),
            webhook=WebhookSettings(service.url, backoff_s=(0.001, 0.01), flush_s=flush_s, attempts=100),
        )
        context = SinkContext(tmp_path / "out", True, [f"camera {lane}" for lane in range(4)], lambda _: None)
        return list(make_sinks(settings, context))[1:]

    said: list[str] = []
    options = SoakOptions(
        BUNDLE,
        seconds=60.0,
        cameras=4,
        fps=40.0,
        fault_rate=0.09,
        max_faults=200,
        seed=37,
        round_s=1.5,
        memory_mib=64.0,
        batch=2,
        every_s=0.5,
        faults=tuple(FAULTS),
    )
    result = Soak(options, said.append, more_sinks=sinks).run()
    told = "\n".join(closing_lines(result))
    assert not result.findings, told
    assert sum(result.faults.values()) == 200
    for kind in ("drop", "hang", "repeat", "corrupt", "disk-full", "broker-restart", "engine-error", "engine-defect"):
        assert result.faults[kind] > 0, told
    assert result.rounds >= 2 and result.totals.adds_up
    assert set(result.totals.statuses) - {"late"} == {"ok", "skipped", "stale", "unusable", "error"}
    assert sum(lane.disconnected for lane in result.totals.lanes) > sum(lane.hung for lane in result.totals.lanes) > 0
    assert "captured" in said[0]

    service.answer = lambda _: 204  # what still waits on disk goes out with the next run
    with ExitStack() as stack:
        for sink in sinks(flush_s=PATIENCE_S):
            stack.enter_context(sink)  # type: ignore[arg-type]
    *_, database, mqtt, webhook = result.totals.sinks
    posted = {body["key"]: body for body in service.taken}
    until(lambda: len(subscriber.bodies) >= mqtt.delivered)
    rows: dict[str, str] = {}
    for path in tmp_path.rglob("verdicts*.sqlite*"):  # those that were moved away, too
        if not path.name.endswith(("-wal", "-shm")):
            with closing(sqlite3.connect(path)) as db:
                rows |= db.execute(
                    "SELECT key, record FROM records UNION ALL SELECT key, record FROM events"
                ).fetchall()
    for counts, keys in ((database, rows), (mqtt, subscriber.bodies), (webhook, posted)):
        assert counts.taken == counts.delivered + counts.lost and counts.taken > result.totals.captured
        assert len(keys) == counts.delivered, counts
    for key, body in subscriber.bodies.items():
        assert posted.get(key, body) == body
        assert {"key": key, **json.loads(rows[key])} == body if key in rows else database.lost
    records = [body for body in subscriber.bodies.values() if "event" not in body]
    assert all(body["score"] is not None for body in records if body["verdict"] is not None)
    if not mqtt.lost:
        assert Counter(body["status"] for body in records) == Counter(result.totals.statuses)
