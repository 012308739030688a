"""Triggers from an MQTT broker: a message takes a frame, and may name the part in it."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edge_ad.errors import one_line
from edge_ad.runtime.host.health import Condition
from edge_ad.runtime.line.scheduling.trigger import MAX_PART_ID
from edge_ad.runtime.sinks.mqtt_client import QOS, make_client, start, topic
from edge_ad.runtime.sinks.settings import MqttSettings

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from edge_ad.runtime.sinks.mqtt_guarded import GuardedClient

MAX_BYTES = 4096  # of a message


class MqttTriggers:
    """Subscribes `<prefix>/<source>/trigger` and calls `fire(source, part_id)` for each good message.

    A message is a JSON object with the key `part_id`, a JSON text, or plain text; an empty one, or `{}`, fires without
    a part. Retained messages do not fire: the broker would repeat them with every connection.

    Args:
        settings: of the broker.
        sources: names of the sources that can be triggered.
        fire: called from a thread of the client; must not block. What it raises is said.
        run_id: of this run.
        say: receives what the user should know.
        environment: where the secrets are.

    Attributes:
        fired, refused: how many messages fired, and how many were no triggers.

    Raises: MissingExtraError; ConfigError for variables that are not set and certificates that cannot be read.
    """

    def __init__(
        self,
        settings: MqttSettings,
        sources: Sequence[str],
        fire: Callable[[str, str | None], None],
        *,
        run_id: str,
        say: Callable[[str], None] = lambda _: None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.fired = 0
        self.refused = 0
        self._settings = settings
        self._sources = {topic(settings.prefix, source, "trigger"): source for source in sources}
        self._fire = fire
        self._say = say
        self._failed: Counter[str] = Counter()
        self._down = self._over = False
        self._subscribed = threading.Event()
        name = f"{settings.client_id or f'edge-ad-{run_id}'}-triggers"
        self._client: GuardedClient = make_client(settings, name, environment)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_down = self._on_down
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def __enter__(self) -> MqttTriggers:
        start(self._client, self._settings, self._say)
        return self

    def wait(self, timeout_s: float) -> bool:
        """Wait until messages come in. Returns: False when they do not yet."""
        return self._subscribed.wait(timeout_s)

    def _on_connect(
        self, client: Client, userdata: Any, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if code.is_failure:
            self._client.refused("connection", code)
        elif self._sources:
            client.subscribe([(name, QOS) for name in self._sources])

    def _on_subscribe(
        self, client: Client, userdata: Any, number: int, codes: list[ReasonCode], properties: Properties | None
    ) -> None:
        failed = next((code for code in codes if code.is_failure), None)
        self._client.works(but=None if failed is None else "refuses the subscription")
        if failed is not None:
            self._client.refused("subscription", failed)
            return
        self._subscribed.set()
        if self._down:
            self._down = False
            self._say("MQTT triggers come in again")

    def _on_disconnect(
        self, client: Client, userdata: Any, flags: DisconnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._subscribed.clear()
        if code.is_failure and not self._over:
            self._client.lost(code)

    def _on_down(self, reason: str) -> None:
        self._subscribed.clear()
        if not self._down and not self._over:
            self._down = True
            self._say(f"warning: MQTT broker {self._settings.place} {reason}; no triggers")

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        try:
            source = self._source_of(message)
            part_id = part_of(bytes(message.payload))
        except (ValueError, RecursionError) as exc:
            self.refused += 1
            if self.refused == 1 or self.refused % 1000 == 0:
                why = "it is no UTF-8" if isinstance(exc, UnicodeDecodeError) else one_line(exc)
                self._say(f"warning: MQTT message {_place(message)} is no trigger: {why} ({self.refused} so far)")
            return
        try:
            self._fire(source, part_id)
            self.fired += 1
        except Exception as exc:  # a client whose callback raises ends
            self.refused += 1
            self._failed[source] += 1
            count = self._failed[source]
            if count == 1 or count % 1000 == 0:
                self._say(f"warning: the trigger of {source} failed: {one_line(exc)} ({count} so far)")

    def _source_of(self, message: MQTTMessage) -> str:
        """Raises: ValueError where none is to be triggered."""
        source = self._sources.get(message.topic)  # raises UnicodeDecodeError
        if source is None:
            raise ValueError("no camera is triggered there")
        if message.retain:
            raise ValueError("it is retained")
        return source

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        self._subscribed.clear()
        self._client.disconnect()
        self._client.loop_stop()

    def conditions(self) -> Iterator[Condition]:
        """See `edge_ad.runtime.host.health`."""
        if self._over:
            return
        known = list(self._client.conditions("MQTT triggers", "unready"))
        yield from known
        if not known and not self._subscribed.is_set():
            yield Condition("MQTT triggers: the broker has not confirmed the subscription yet", "unready")


def _place(message: MQTTMessage) -> str:
    try:
        return f"on {message.topic[:200]!r}"
    except UnicodeDecodeError:
        return "on a topic of other bytes"


def part_of(payload: bytes) -> str | None:
    """The part that a message names; None when it names none.

    Raises: ValueError when it cannot be a trigger.
    """
    if len(payload) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    text = payload.decode("utf-8").strip()
    value: Any = text
    if text.startswith(("{", "[", '"')):
        value = json.loads(text)
        if isinstance(value, dict):
            value = value.get("part_id")
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.isprintable() or len(value) > MAX_PART_ID:
        raise ValueError(f"wanted a part_id of at most {MAX_PART_ID} printable characters")
    return value
