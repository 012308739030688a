"""Triggers through a real broker: good messages fire with their parts, others are counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from mqtt_broker import mqtt_settings
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_ad.errors import SourceError
from edge_ad.runtime.station.mqtt_triggers import MqttTriggers, part_of

Until = Callable[..., None]
Write = Callable[..., None]


class Fired:
    """Takes triggers; `raises` makes the next one fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None]] = []
        self.raises = False

    def __call__(self, source: str, part_id: str | None) -> None:
        if self.raises:
            self.raises = False
            raise RuntimeError("no such camera")
        self.calls.append((source, part_id))


def _publish(port: int, messages: Sequence[tuple[str, bytes, bool]]) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, "plc")
    client.connect("127.0.0.1", port)
    client.loop_start()
    for topic, payload, retain in messages:
        client.publish(topic, payload, 1, retain).wait_for_publish(20)
    client.disconnect()
    client.loop_stop()


def test_triggers_fire_with_their_parts_and_bad_ones_are_counted(make_broker: Any, until: Until) -> None:
    broker = make_broker()
    broker.start()
    topic, other = "line/camera:0/trigger", "line/camera:1/trigger"
    _publish(broker.port, [(other, b"old", True)])
    fired, said = Fired(), []
    sources = ["camera:0", "camera:1"]
    with MqttTriggers(mqtt_settings(broker.port), sources, fired, run_id="run", say=said.append) as triggers:
        assert triggers.wait(20)
        until(lambda: triggers.refused == 1)  # the retained one
        good = [b"A-17", b'{"part_id": "B 18", "more": 1}', b"", '"Prüfling"'.encode(), b'{"part_id": 4711}', b"0042"]
        bad = [b"\xff\xfe", b"{", b"[1]", b'{"part_id": [1]}', b"x" * 5000, b"a\nb", b'{"part_id": true}', b"x" * 300]
        _publish(broker.port, [(topic, payload, False) for payload in (*good[:3], *bad, *good[3:])])
        _publish(broker.port, [("line/camera:7/trigger", b"nobody", False), (other, b"C", False)])
        until(lambda: triggers.fired == len(good) + 1)
        names = ["A-17", "B 18", None, "Prüfling", "4711", "0042"]
        assert fired.calls == [*(("camera:0", name) for name in names), ("camera:1", "C")]
        assert triggers.refused == 1 + len(bad)
        fired.raises = True
        _publish(broker.port, [(topic, b"fails", False), (topic, b"works", False)])
        until(lambda: fired.calls[-1] == ("camera:0", "works"))
        assert "no such camera" in said[-1]
        broker.stop()
        until(lambda: "no triggers" in said[-1])
        broker.start()
        until(lambda: said[-1] == "MQTT triggers come in again")
        _publish(broker.port, [(topic, b"after", False)])
        until(lambda: fired.calls[-1] == ("camera:0", "after"))


@pytest.mark.parametrize(
    ("payload", "part_id"),
    [(b"  42 ", "42"), (b"{}", None), (b'""', None), (b'{"part_id": null}', None), (b"null", "null"), (b"7.5", "7.5")],
)
def test_a_part_is_read_from_plain_text_and_json(payload: bytes, part_id: str | None) -> None:
    assert part_of(payload) == part_id


def test_a_station_that_triggers_the_wrong_camera_does_not_fill_the_log() -> None:
    said: list[str] = []

    def refuse(source: str, part_id: str | None) -> None:
        raise SourceError(f"{source}: is not triggered by software")

    triggers = MqttTriggers(mqtt_settings(1883), ["cam"], refuse, run_id="run", say=said.append)
    for number in range(2000):
        message = SimpleNamespace(topic="line/cam/trigger", retain=False, payload=b"part %d" % number)
        triggers._on_message(None, None, message)  # type: ignore[arg-type]
    assert (triggers.fired, triggers.refused) == (0, 2000)
    assert len(said) == 3 and said[-1].endswith("is not triggered by software (2000 so far)")
