"""Records to an MQTT broker, with QoS 1, from a spool on disk."""

from __future__ import annotations

import json
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edge_ad.runtime.host.health import Condition
from edge_ad.runtime.sinks.mqtt_client import QOS, make_client, start, topic
from edge_ad.runtime.sinks.naming import topic_name
from edge_ad.runtime.sinks.settings import MqttSettings
from edge_ad.runtime.sinks.spool import Spool
from edge_ad.runtime.sinks.spooled import SpooledSink

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from edge_ad.runtime.sinks.mqtt_guarded import GuardedClient

GOODBYE_S = 1.0
UNCONFIRMED_S = 30.0  # after which a broker that confirms nothing is tried on another connection


class MqttRecords(SpooledSink):
    """Publishes `<prefix>/<source>/verdict` and `<prefix>/<source>/event`; a record leaves the spool on its PUBACK.

    `<prefix>/status` is retained: `online` from each connection on, `offline` with the end of the run, or from the
    broker itself when the connection breaks (last will).

    Args:
        settings: of the broker.
        spool: for this sink alone.
        run_id: of this run.
        sources: names of the sources, for the status, which lists their topics.
        say: receives what the user should know.
        environment: where the secrets are.

    Raises: MissingExtraError; ConfigError for variables that are not set and certificates that cannot be read.
    """

    def __init__(
        self,
        settings: MqttSettings,
        spool: Spool,
        run_id: str,
        sources: Sequence[str] = (),
        *,
        say: Callable[[str], None] = lambda _: None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__(spool, run_id, which=settings.which, flush_s=settings.flush_s, say=say)
        self._settings = settings
        self._sources = sources
        self._connected = False
        # From paho's thread, which holds a lock of paho's meanwhile that publishing needs too: no lock of ours then.
        self._answers: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()
        self._sent: dict[int, int] = {}  # number in the spool by paho's number
        self._last = 0
        self._confirmed: list[int] = []
        self._refused: dict[int, str] = {}
        self._confirms = True
        self._answered_s = 0.0  # when a record was last answered for, or none was under way
        self._client: GuardedClient = make_client(settings, settings.client_id or f"edge-ad-{run_id}", environment)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_down = self._on_down
        self._client.on_publish = self._on_publish
        self._client.will_set(self._status_topic, self._status("offline", "connection lost"), QOS, retain=True)

    @property
    def _status_topic(self) -> str:
        return f"{self._settings.prefix}/status"

    def _status(self, state: str, reason: str | None = None) -> str:
        names = {source: f"{self._settings.prefix}/{topic_name(source)}" for source in self._sources}
        return json.dumps({"state": state, "reason": reason, "run": self._run_id, "topics": names})

    def _begin(self) -> None:
        start(self._client, self._settings, self._tell)

    def _send(self) -> None:
        with suppress(queue.Empty):
            while True:
                number, refusal = self._answers.get_nowait()
                self._answered_s = self._now_s()
                if not self._confirms:
                    self._confirms = True
                    self._client.works()
                    self._is_up()
                if number not in self._sent:
                    continue  # the status
                if refusal is None:
                    self._confirmed.append(self._sent.pop(number))
                else:
                    self._refused[self._sent.pop(number)] = refusal
        if self._confirmed:
            self._spool.delivered(self._confirmed)
            self._confirmed = []
        for number, refusal in list(self._refused.items()):
            self._spool.refuse(number, refusal)
            del self._refused[number]
        if not self._sent:
            self._answered_s = self._now_s()
        elif self._connected and self._now_s() - self._answered_s > UNCONFIRMED_S:
            self._confirms = False
            self._client.down(f"takes records and confirms none, for {UNCONFIRMED_S:g} s now")
            self._client.break_connection()  # they are sent again on the next one
        room = self._settings.max_inflight - len(self._sent)
        if not self._connected or room <= 0:
            return
        lines = self._spool.read(self._last, room)
        if not lines and not self._sent and self._spool.waiting:
            self._last = 0  # a spool that was made anew counts from 1
            self._wake.set()
        for number, line in lines:
            self._publish(number, line)
            self._last = number

    def _publish(self, number: int, line: str) -> None:
        try:
            entry = json.loads(line)
            kind = "event" if "event" in entry else "verdict"
            answer = self._client.publish(topic(self._settings.prefix, str(entry["source"]), kind), line, QOS)
        except (ValueError, KeyError, TypeError) as exc:
            self._spool.refuse(number, f"no record: {exc}")
            return
        # Without a connection paho keeps it and sends it with the next one.
        self._sent[answer.mid] = number

    def _on_connect(
        self, client: Client, userdata: Any, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if code.is_failure:
            self._client.refused("connection", code)
            return
        self._connected = True
        self._answered_s = self._now_s()
        self._client.works(but=None if self._confirms else self._client.trouble)
        client.publish(self._status_topic, self._status("online"), QOS, retain=True)
        if self._confirms:
            self._is_up()
        self._wake.set()

    def _on_disconnect(
        self, client: Client, userdata: Any, flags: DisconnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._connected = False
        if self._confirms and code.is_failure and not self._end.is_set():
            self._client.lost(code)

    def _on_down(self, reason: str) -> None:
        if not self._end.is_set():
            self._spool.failed()
            self._is_down(f"MQTT broker {self._settings.place} {reason}")

    def conditions(self) -> Iterator[Condition]:
        yield from super().conditions()
        if self.is_in_use:
            yield from self._client.conditions("MQTT records", "noted")

    def _on_publish(
        self, client: Client, userdata: Any, number: int, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._answers.put((number, f"the broker refuses it: {code}" if code.is_failure else None))
        self._wake.set()

    def _finish(self) -> None:
        if self._connected:
            with suppress(ValueError, RuntimeError):
                status = self._client.publish(self._status_topic, self._status("offline", "stopped"), QOS, retain=True)
                status.wait_for_publish(GOODBYE_S)
        self._client.disconnect()
        self._client.loop_stop()
