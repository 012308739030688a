"""Triggers from a broker that lies, floods or says nothing: what is good fires, and health says what is wrong."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hostile_broker import CONNECT, SUBSCRIBE, Client, HostileBroker, packet, publish
from mqtt_broker import mqtt_settings
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_ad.runtime.line.run_view import RunView
from edge_ad.runtime.sinks import mqtt_guarded
from edge_ad.runtime.station.mqtt_triggers import MqttTriggers

Until = Callable[..., None]
HEAP_MB = 8  # that a message may cost, however long it is


class Station:
    """Triggers of one camera, and the health of the run that they belong to."""

    def __init__(self, port: int, **more: Any) -> None:
        self.parts: list[str | None] = []
        self.said: list[str] = []
        self.run = RunView()
        self.fire: Callable[[str, str | None], None] = lambda source, part: self.parts.append(part)
        settings = mqtt_settings(port, **more)
        self.triggers = MqttTriggers(
            settings, ["cam"], lambda *args: self.fire(*args), run_id="run", say=self.said.append
        )
        self.run.watch(self.triggers.conditions)

    def __enter__(self) -> Station:
        self.triggers.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.triggers.__exit__(None, None, None)
        assert self.run.ill() == self.run.noted() == []


def test_a_topic_that_is_no_utf8_is_refused_and_the_next_message_fires(until: Until) -> None:
    def subscribed(client: Client, topic: bytes) -> None:
        client.send(publish(b"\xff\xfe", b"A-1"))
        client.send(publish(topic + b"\x1b[2J", b"A-1"))
        client.send(publish(topic, b"A-2"))

    with HostileBroker(subscribed=subscribed) as broker, Station(broker.port) as station:
        until(lambda: station.parts == ["A-2"])
        assert station.triggers.refused == 2
        assert "on a topic of other bytes is no trigger: it is no UTF-8 (1 so far)" in station.said[0]
        assert station.run.ill() == station.run.noted() == []


@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_of_any_length_takes_little_memory_and_is_no_trigger(qos: int, until: Until) -> None:
    """A broker that does not heed the largest size that it was told."""
    size, chunk = 64 << 20, bytes(1 << 20)

    def subscribed(client: Client, topic: bytes) -> None:
        client.send(publish(topic, b"", mid=1, qos=qos, length=size))
        for _ in range(size // len(chunk)):
            client.send(chunk)
        client.send(publish(topic, b"A-2", mid=2, qos=qos))

    with HostileBroker(subscribed=subscribed) as broker, Station(broker.port) as station:
        tracemalloc.start()
        try:
            until(lambda: station.parts == ["A-2"])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert station.triggers.refused == 1
        assert station.said == [
            "warning: MQTT message on 'line/cam/trigger' is no trigger: it has more than 4096 bytes (1 so far)"
        ]
        until(lambda: broker.acknowledged == ([1, 2] if qos else []))  # so that it is not delivered again
        assert len(broker.clients) == 1
    assert peak < HEAP_MB << 20


def test_the_broker_is_told_how_long_a_message_may_be(make_broker: Any, until: Until) -> None:
    """Mosquitto keeps what is longer from a client of MQTT 5; to one of 3.1.1 it goes, and is refused there."""
    broker = make_broker()
    broker.start()
    for protocol, refused in (("5", 0), ("3.1.1", 1)):
        with Station(broker.port, protocol=protocol) as station:
            assert station.triggers.wait(20)
            plc = paho.Client(CallbackAPIVersion.VERSION2, "plc")
            plc.connect("127.0.0.1", broker.port)
            plc.loop_start()
            for payload in (b"x" * (1 << 20), b"A-1"):
                plc.publish("line/cam/trigger", payload, 1).wait_for_publish(20)
            plc.disconnect()
            plc.loop_stop()
            until(lambda: station.parts == ["A-1"])
            assert station.triggers.refused == refused


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("how", ["messages half delivered", "what fires asks to end the thread"])
def test_what_breaks_the_client_is_ill_and_it_begins_anew(
    how: str, until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mqtt_guarded, "FIRST_PAUSE_S", 0.3)

    def subscribed(client: Client, topic: bytes) -> None:
        if client.number == 0 and how == "messages half delivered":
            client.send(b"".join(publish(topic, b"X", mid=number, qos=2) for number in range(1, 300)))
        client.send(publish(topic, b"A-2"))

    with HostileBroker(subscribed=subscribed) as broker, Station(broker.port) as station:
        if how != "messages half delivered":

            def end(source: str, part: str | None) -> None:
                station.fire = lambda source, part: station.parts.append(part)
                raise SystemExit

            station.fire = end
        until(station.run.ill)
        (ill,) = station.run.ill()
        assert ill.startswith("the thread of MQTT triggers has ended and begins anew: the broker broke the client")
        assert station.run.unready()
        until(lambda: station.parts[-1:] == ["A-2"] and len(broker.clients) == 2)
        until(lambda: not station.run.ill())
        assert station.said[-1] == "MQTT triggers come in again"
        logged = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
        assert logged == ([] if how == "messages half delivered" else ["MQTT client"])


@pytest.mark.parametrize("silent", [CONNECT, SUBSCRIBE])
def test_a_broker_that_confirms_nothing_is_said_once_and_tried_again(
    silent: int, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_guarded, "ANSWER_S", 0.2)
    with HostileBroker({CONNECT, SUBSCRIBE} - {silent}) as broker, Station(broker.port) as station:
        until(lambda: len(broker.clients) >= 2)
        assert station.said == [
            f"warning: MQTT broker 127.0.0.1:{broker.port} confirms nothing within 0.2 s; no triggers"
        ]
        until(station.run.noted)
        assert station.run.ill() == []
        assert station.run.noted() == ["MQTT triggers: the broker confirms nothing within 0.2 s"]
        broker.confirms.add(silent)
        until(lambda: station.said[-1] == "MQTT triggers come in again")
        assert station.run.noted() == []


def test_a_broker_that_closes_every_connection_is_said_once(until: Until) -> None:
    with HostileBroker(closes=True) as broker, Station(broker.port) as station:
        until(lambda: len(broker.clients) >= 2)
        reason = "closes connections before it confirms them; look at its port, and whether it is one for TLS"
        assert station.said == [f"warning: MQTT broker 127.0.0.1:{broker.port} {reason}; no triggers"]
        assert station.run.noted() == [f"MQTT triggers: the broker {reason}"]
        broker.closes = False
        until(lambda: station.said[-1] == "MQTT triggers come in again")


def test_a_thread_that_is_gone_for_good_is_ill(until: Until) -> None:
    with HostileBroker() as broker, Station(broker.port) as station:
        assert station.triggers.wait(20)
        assert station.run.ill() == []
        station.triggers._client.loop_stop()  # as if it had died past all care
        assert station.run.ill() == ["the thread of MQTT triggers has ended"]


def test_whatever_a_broker_sends_the_next_connection_works(until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of packet with every short body."""
    monkeypatch.setattr(mqtt_guarded, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(mqtt_guarded, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(mqtt_guarded.GuardedClient, "_reconnect_wait", lambda self: time.sleep(0.005))
    bodies = [
        b"",
        b"\0",
        b"\xff",
        b"\0\x01\xff",
        b"\0\0\xff\xff\xff\xff",
        b"\0\x03abc\x05\x26\0\x01\xff\0",
        b"\0\0\x7f\x99",
    ]
    junk = [packet(kind << 4 | flags, body) for kind in range(16) for flags in (0, 2) for body in bodies]
    junk += [b"\x30\xff\xff\xff\xff\xff", packet(0x30, b"", length=3) + b"\0\x09a"]

    def subscribed(client: Client, topic: bytes) -> None:
        part = b"%d" % client.number
        client.send(publish(topic, part) + (junk[client.number] if client.number < len(junk) else b""))
        time.sleep(0.01)
        client.connection.shutdown(2)

    with HostileBroker(subscribed=subscribed) as broker, Station(broker.port) as station:
        until(lambda: station.parts[-1:] and int(station.parts[-1] or 0) > len(junk))
        good = [part for part in station.parts if part is not None and part.isdigit()]
        assert good == sorted(good, key=int)
        assert {int(part) for part in good} >= set(range(len(junk)))
