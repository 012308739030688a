"""A password that others can read on its way is warned of, whether records go out or triggers come in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from edge_ad.runtime.sinks.mqtt import MqttRecords
from edge_ad.runtime.sinks.settings import MqttSettings, TlsSettings
from edge_ad.runtime.station.mqtt_triggers import MqttTriggers

SECRETS = {"A": "a", "B": "sesame"}


class Quiet:
    """A client that does nothing, for an address that must not be tried."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def records(settings: MqttSettings, said: list[str], make_spool: Any) -> AbstractContextManager[Any]:
    return MqttRecords(settings, make_spool(), "run", say=said.append, environment=SECRETS)


def triggers(settings: MqttSettings, said: list[str], make_spool: Any) -> AbstractContextManager[Any]:
    return MqttTriggers(settings, ["cam"], _fire, run_id="run", say=said.append, environment=SECRETS)


def _fire(source: str, part_id: str | None) -> None: ...


@pytest.mark.parametrize("client", [records, triggers])
@pytest.mark.parametrize(
    ("host", "more", "warned"),
    [
        ("192.0.2.1", {"password_env": "B"}, True),
        ("192.0.2.1", {"password_env": "B", "tls": TlsSettings()}, False),
        ("192.0.2.1", {}, False),
        ("localhost", {"password_env": "B"}, False),
        ("127.8.0.1", {"password_env": "B"}, False),
        ("[::1]", {"password_env": "B"}, False),
    ],
)
def test_a_password_that_can_be_read_on_its_way_is_warned_of(
    make_spool: Any, client: Callable[..., Any], host: str, more: dict[str, Any], warned: bool
) -> None:
    said: list[str] = []
    connected = client(MqttSettings(host, username_env="A", **more), said, make_spool)
    connected._client = Quiet()
    with connected:
        pass
    wanted = f"warning: the password for MQTT broker {host}:1883 can be read on its way; set tls"
    assert said == [wanted] * warned
