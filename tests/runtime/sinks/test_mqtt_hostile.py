"""Records to a broker that says nothing, or not what it should: they wait, it is said once, and health tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hostile_broker import CONNECT, PUBLISH, HostileBroker
from mqtt_broker import mqtt_settings

from edge_ad.errors import OutputError
from edge_ad.runtime.host.health import Condition
from edge_ad.runtime.sinks import mqtt, mqtt_guarded
from edge_ad.runtime.sinks.mqtt import MqttRecords
from edge_ad.runtime.sinks.settings import TlsSettings

Until = Callable[..., None]
Write = Callable[..., None]


def test_a_broker_that_confirms_no_record_is_tried_on_another_connection(
    make_spool: Any, write: Write, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "UNCONFIRMED_S", 0.3)
    said: list[str] = []
    with HostileBroker({CONNECT}) as broker:
        with MqttRecords(mqtt_settings(broker.port), make_spool(), "run", say=said.append) as sink:
            write(sink, 0)
            until(lambda: len(broker.clients) == 3)
            assert len(said) == 1 and "takes records and confirms none, for 0.3 s now; records wait on disk" in said[0]
            text = "MQTT records: the broker takes records and confirms none, for 0.3 s now"
            assert list(sink.conditions()) == [Condition(text, "noted")]
            broker.confirms.add(PUBLISH)
            until(lambda: sink.account().delivered == 1)
            until(lambda: "delivers again" in said[-1])
            assert list(sink.conditions()) == []
        assert len(said) == 2


def test_a_broker_that_never_answers_is_said_once(
    make_spool: Any, write: Write, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_guarded, "ANSWER_S", 0.2)
    said: list[str] = []
    with HostileBroker(set()) as broker:
        with MqttRecords(mqtt_settings(broker.port, flush_s=0), make_spool(), "run", say=said.append) as sink:
            write(sink, 0)
            until(lambda: len(broker.clients) == 2)
            assert len(said) == 1 and "confirms nothing within 0.2 s" in said[0]
            assert [trouble.grade for trouble in sink.conditions()] == ["noted"]
        assert sink.account().waiting == 1


def test_a_broker_that_closes_every_connection_is_said_once(make_spool: Any, write: Write, until: Until) -> None:
    said: list[str] = []
    with HostileBroker(closes=True) as broker:  # noqa: SIM117
        with MqttRecords(mqtt_settings(broker.port), make_spool(), "run", say=said.append) as sink:
            write(sink, 0)
            until(lambda: len(broker.clients) >= 2)
            assert len(said) == 1 and "closes connections before it confirms them; look at its port" in said[0]
            broker.closes = False
            until(lambda: sink.account().delivered == 1)
            assert list(sink.conditions()) == []


# paho leaves a socket to the garbage collector when its handshake fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_without_tls_at_the_port_is_called_that(make_broker: Any, make_spool: Any, until: Until) -> None:
    broker = make_broker()
    broker.start()
    said: list[str] = []
    settings = mqtt_settings(broker.port, tls=TlsSettings(), flush_s=0)
    with MqttRecords(settings, make_spool(), "run", say=said.append) as sink:
        until(lambda: list(sink.conditions()))
        (trouble,) = sink.conditions()
    assert trouble.text.startswith("MQTT records: the broker ") and trouble.grade == "noted"
    assert "TLS" in trouble.text and str(broker.port) not in trouble.text
    assert said[0].startswith(f"warning: MQTT broker 127.0.0.1:{broker.port} ")


def test_what_the_sender_cannot_foresee_does_not_end_it(
    make_spool: Any, write: Write, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HostileBroker() as broker:
        sink = MqttRecords(mqtt_settings(broker.port), make_spool(), "run")
        failures = iter([ValueError("a defect"), OutputError("the spool's disk")])
        original = sink._state.remind

        def remind() -> None:
            for failure in failures:
                raise failure
            original()

        monkeypatch.setattr(sink._state, "remind", remind)
        with sink:
            write(sink, 0)
            until(lambda: sink.account().delivered == 1)
            assert list(sink.conditions()) == []
            monkeypatch.setattr(sink._thread, "is_alive", lambda: False)
            assert list(sink.conditions()) == [Condition(f"the thread {sink._thread.name} has ended", "ill")]
            monkeypatch.undo()
