"""Records through a real broker: each arrives, whatever is killed; and the status tells who is there."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mqtt_broker import mqtt_settings
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_ad.errors import ConfigError, OutputError
from edge_ad.runtime.sinks.mqtt import MqttRecords
from edge_ad.runtime.sinks.settings import MqttSettings, TlsSettings
from edge_ad.runtime.station.mqtt_triggers import MqttTriggers

Until = Callable[..., None]
Write = Callable[..., None]


class Receiver:
    """Subscribes to everything, in a session that the broker keeps while either of the two is away."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, dict[str, Any], bool]] = []
        self.ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "receiver", clean_session=False, protocol=paho.MQTTv311)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("line/#", 1)
        self._client.on_subscribe = lambda *_: self.ready.set()
        self._client.on_message = lambda _, __, message: self.messages.append(
            (message.topic, json.loads(message.payload), message.retain)
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self.ready.wait(20)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def numbers(self, topic: str = "line/camera:0/verdict") -> list[int]:
        """Frames in order of their first arrival; a repeated delivery has the same key."""
        return list({body["key"]: body["frame_id"] for at, body, _ in self.messages if at == topic}.values())

    def states(self) -> list[str]:
        return [body["state"] for at, body, _ in self.messages if at == "line/status"]


@contextmanager
def receiving(port: int) -> Iterator[Receiver]:
    receiver = Receiver(port)
    try:
        yield receiver
    finally:
        receiver.close()


def _adds_up(sink: MqttRecords, **expected: int) -> None:
    counts = sink.account()
    assert counts.adds_up
    for name, count in expected.items():
        assert getattr(counts, name) == count, counts


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_records_and_events_arrive_in_order(
    make_broker: Any, make_spool: Any, write: Write, until: Until, protocol: Any
) -> None:
    broker = make_broker()
    broker.start()
    with receiving(broker.port) as receiver:
        spool = make_spool()
        sink = MqttRecords(
            mqtt_settings(broker.port, protocol=protocol), spool, "run", ["camera:0", "rtsp://10.0.0.5/a/b"]
        )
        with sink:
            for number in range(100):
                write(sink, number)
            write(sink, 0, source="rtsp://10.0.0.5/a/b")
            sink.event({"event": "no_frame", "source": "camera:0", "monotonic_ns": 5})
            until(lambda: sink.account().waiting == 0)
        until(lambda: receiver.states()[-1:] == ["offline"])
        assert receiver.numbers() == list(range(100))
        status = next(body for topic, body, _ in receiver.messages if topic == "line/status")
        assert status["topics"]["camera:0"] == "line/camera:0"
        other = status["topics"]["rtsp://10.0.0.5/a/b"]
        assert receiver.numbers(f"{other}/verdict") == [0]
        events = [body for topic, body, _ in receiver.messages if topic == "line/camera:0/event"]
        assert [event["key"] for event in events] == ["no_frame/run/camera%3A0/5"]
        assert receiver.states() == ["online", "offline"]
        assert receiver.messages[-1][1]["reason"] == "stopped"
        _adds_up(sink, taken=102, delivered=102, lost=0)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_broker_that_goes_and_comes_back_gets_everything(
    make_broker: Any, make_spool: Any, write: Write, until: Until, how: signal.Signals
) -> None:
    broker = make_broker()
    broker.start()
    said: list[str] = []
    with receiving(broker.port) as receiver:
        sink = MqttRecords(mqtt_settings(broker.port), make_spool(), "run", say=said.append)
        with sink:
            for number in range(300):
                write(sink, number)
                if number == 60:  # with messages under way
                    until(lambda: sink.account().delivered > 0)
                    receiver.ready.clear()
                    broker.stop(how)
                if number == 120:
                    until(lambda: said)
                    assert sink.account().waiting >= 60
                    broker.start()
                    assert receiver.ready.wait(20)
            until(lambda: sink.account().waiting == 0)
            until(lambda: receiver.numbers()[-1:] == [299])
            _adds_up(sink, taken=300, delivered=300, lost=0)
        missing = set(range(300)) - set(receiver.numbers())
        # A broker that is killed takes with it what it had confirmed and not yet saved: of the first 61, never more.
        assert missing <= (set(range(61)) if how == signal.SIGKILL else set())
    assert "is gone" in said[0] and "records wait on disk" in said[0]
    assert "delivers again" in said[1]


def test_records_of_a_run_without_a_broker_go_out_with_the_next_run(
    make_broker: Any, make_spool: Any, write: Write, until: Until
) -> None:
    broker = make_broker()
    said: list[str] = []
    first = MqttRecords(mqtt_settings(broker.port, flush_s=0), make_spool(), "first", say=said.append)
    with first:
        for number in range(50):
            write(first, number)
        until(lambda: said)
    _adds_up(first, taken=50, waiting=50)
    assert "cannot be reached: connection refused; records wait on disk" in said[0]
    assert said[-1].startswith("50 records wait in")
    broker.start()
    with receiving(broker.port) as receiver:
        second = MqttRecords(mqtt_settings(broker.port), make_spool(), "second")
        with second:
            write(second, 0)
            until(lambda: len(receiver.numbers()) == 51)
        assert receiver.numbers() == [*range(50), 0]
        _adds_up(second, taken=51, delivered=51)
    keys = [body["key"] for topic, body, _ in receiver.messages if topic.endswith("verdict")]
    assert [key.split("/")[1] for key in keys] == ["first"] * 50 + ["second"]


KILLED = """
import sys, time
from pathlib import Path
from datetime import datetime, timezone
from edge_ad.runtime.sinks.mqtt import MqttRecords
from edge_ad.runtime.sinks.settings import MqttSettings
from edge_ad.runtime.sinks.spool import Spool
from edge_ad.runtime.sinks.syncing import SyncPolicy
spool = Spool(Path(sys.argv[2]), budget_bytes=1 << 22, sync=SyncPolicy())
settings = MqttSettings("127.0.0.1", int(sys.argv[1]), prefix="line", keepalive_s=5)
with MqttRecords(settings, spool, "killed") as sink:
    for number in range(1 << 40):
        entry = dict(frame_id=number, source="camera:0", bundle="ab" * 32, captured_monotonic_ns=number)
        sink.event(entry)
        print(number, flush=True)
        time.sleep(0.001)
"""


def test_a_killed_run_is_reported_by_the_broker_and_its_records_by_the_next_run(
    make_broker: Any, tmp_path: Path, make_spool: Any, until: Until
) -> None:
    broker = make_broker()
    broker.start()
    with receiving(broker.port) as receiver:
        path = make_spool().path
        path.parent.mkdir()
        command = [sys.executable, "-c", KILLED, str(broker.port), str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        until(lambda: receiver.numbers(), "no record arrives")
        process.send_signal(signal.SIGKILL)
        last = int(process.stdout.read().split()[-1])
        process.stdout.close()
        process.wait(20)
        until(lambda: receiver.states()[-1:] == ["offline"])
        assert receiver.messages[-1][1]["reason"] == "connection lost"
        with MqttRecords(mqtt_settings(broker.port), make_spool(), "next") as sink:
            until(lambda: sink.account().waiting == 0 and last in receiver.numbers())
        assert receiver.numbers() == list(range(len(receiver.numbers())))
        assert len(receiver.numbers()) in (last + 1, last + 2)


# paho leaves a socket to the garbage collector when its handshake fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls_with_a_password_from_the_environment(
    make_broker: Any, tmp_path: Path, make_spool: Any, write: Write, until: Until
) -> None:
    trustme = pytest.importorskip("trustme")
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    (tmp_path / "key.pem").chmod(0o644)
    (tmp_path / "passwords").write_text("station:hunter2 secret\n")
    subprocess.run(["mosquitto_passwd", "-U", str(tmp_path / "passwords")], check=True, timeout=20)
    (tmp_path / "passwords").chmod(0o644)
    lines = f"certfile {tmp_path}/cert.pem\nkeyfile {tmp_path}/key.pem\npassword_file {tmp_path}/passwords"
    broker = make_broker(lines + "\nallow_anonymous false")
    broker.start()
    names = {"username_env": "MQTT_USER", "password_env": "MQTT_PASSWORD"}
    good = mqtt_settings(broker.port, tls=TlsSettings(tmp_path / "ca.pem"), **names)
    environment = {"MQTT_USER": "station", "MQTT_PASSWORD": "hunter2 secret"}

    def outcome(name: str, settings: MqttSettings, environment: dict[str, str]) -> str:
        said: list[str] = []
        sink = MqttRecords(settings, make_spool(name), "run", say=said.append, environment=environment)
        with sink:
            write(sink, 0)
            until(lambda: said or sink.account().delivered)
        assert "hunter2" not in "".join(said)
        _adds_up(sink, taken=1)
        return said[0] if said else "delivered"

    assert outcome("good", good, environment) == "delivered"
    said = outcome("wrong", good, {**environment, "MQTT_PASSWORD": "hunter2"})
    assert "refuses the connection: Not authorized; look at username_env, password_env" in said
    untrusted = mqtt_settings(broker.port, tls=TlsSettings(tmp_path / "other.pem"), **names)
    said = outcome("untrusted", untrusted, environment)
    assert "has a certificate that is not trusted (unable to get local issuer certificate)" in said
    assert "wanted in tls.ca_file" in said
    with pytest.MonkeyPatch.context() as patch:  # this machine under a name that the certificate is not for
        lookup = socket.getaddrinfo
        patch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: lookup("127.0.0.1", *rest, **more))
        said = outcome("name", replace(good, host="broker.plant"), environment)
    assert "is not trusted (Hostname mismatch" in said
    with pytest.raises(ConfigError, match=r"mqtt\.password_env: the environment variable MQTT_PASSWORD is not set"):
        MqttRecords(good, make_spool("none"), "run", environment={"MQTT_USER": "station"})
    with pytest.raises(ConfigError, match=r"mqtt\.tls\.ca_file: cannot be read"):
        MqttRecords(mqtt_settings(1, tls=TlsSettings(tmp_path / "none.pem")), make_spool("none"), "run")


def test_a_record_that_the_broker_refuses_is_set_aside(
    make_broker: Any, tmp_path: Path, make_spool: Any, write: Write, until: Until
) -> None:
    (tmp_path / "acl").write_text("topic write line/camera:0/verdict\ntopic write line/status\n")
    (tmp_path / "acl").chmod(0o644)
    broker = make_broker(f"allow_anonymous true\nacl_file {tmp_path}/acl")
    broker.start()
    spool = make_spool()
    with MqttRecords(mqtt_settings(broker.port), spool, "run") as sink:
        write(sink, 0)
        write(sink, 1, source="camera:1")
        write(sink, 2)
        until(lambda: sink.account().waiting == 0)
        _adds_up(sink, taken=3, delivered=2, lost=1)
        ((line, reason),) = spool.aside()
        assert json.loads(line)["source"] == "camera:1"
        assert "Not authorized" in reason


def test_only_rejects_are_sent_where_that_is_wanted(
    make_broker: Any, make_spool: Any, write: Write, until: Until
) -> None:
    broker = make_broker()
    broker.start()
    with receiving(broker.port) as receiver:
        with MqttRecords(mqtt_settings(broker.port, which="rejects"), make_spool(), "run") as sink:
            for number in range(10):
                write(sink, number, score=number / 10)
            until(lambda: len(receiver.numbers()) == 5)
        assert receiver.numbers() == [5, 6, 7, 8, 9]


def test_a_broker_that_takes_connections_and_never_answers_blocks_nobody(
    make_spool: Any, write: Write, until: Until
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        sink = MqttRecords(mqtt_settings(deaf.getsockname()[1], flush_s=0), make_spool(), "run")
        with sink:
            for number in range(100):
                write(sink, number)
            deaf.accept()[0].close()
        _adds_up(sink, taken=100, waiting=100)


def test_where_no_port_may_be_bound_the_way_out_is_said(make_spool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bound(socket.socket):
        def bind(self, address: Any) -> None:
            self.close()
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", Bound)
    sinks = (
        MqttRecords(mqtt_settings(1883), make_spool(), "run", ["cam"]),
        MqttTriggers(mqtt_settings(1883), ["cam"], lambda *_: None, run_id="run"),
    )
    for sink in sinks:
        with pytest.raises(OutputError, match="SocketBindAllow=ipv4:tcp"), sink:  # type: ignore[attr-defined]
            pass
