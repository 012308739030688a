"""A connection to an MQTT broker as the settings describe it, and the names of topics."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edge_ad.errors import ConfigError, MissingExtraError, OutputError, os_reason
from edge_ad.runtime.host.environment import secret
from edge_ad.runtime.host.loopback import is_loopback
from edge_ad.runtime.sinks.naming import topic_name
from edge_ad.runtime.sinks.settings import MqttSettings, TlsSettings

if TYPE_CHECKING:
    from edge_ad.runtime.sinks.mqtt_guarded import GuardedClient

CONNECT_S = 5.0
QOS = 1  # at least once


def make_client(settings: MqttSettings, client_id: str, environment: Mapping[str, str] = os.environ) -> GuardedClient:
    """A client that is not connected yet; it connects again by itself, with growing waits.

    Raises: MissingExtraError; ConfigError for variables that are not set and certificates that cannot be read.
    """
    try:
        from paho.mqtt import client as mqtt

        from edge_ad.runtime.sinks.mqtt_guarded import GuardedClient
    except ImportError as exc:
        raise MissingExtraError("an MQTT broker", "paho-mqtt", "mqtt") from exc

    protocol = mqtt.MQTTv5 if settings.protocol == "5" else mqtt.MQTTv311
    client = GuardedClient(client_id, protocol)
    if settings.username_env is not None:
        username = secret(settings.username_env, "mqtt.username_env", environment)
        password = None
        if settings.password_env is not None:
            password = secret(settings.password_env, "mqtt.password_env", environment)
        client.username_pw_set(username, password)
    if settings.tls is not None:
        client.tls_set_context(_tls_context(settings.tls))
        client.speaks_tls = True
    client.reconnect_delay_set(*settings.reconnect_s)
    client.max_inflight_messages_set(settings.max_inflight)
    client.connect_timeout = CONNECT_S
    return client


def start(client: GuardedClient, settings: MqttSettings, say: Callable[[str], None]) -> None:
    """Let the client connect in a thread of its own, and say so when others can read its password.

    Raises: OutputError where it may bind no port.
    """
    if settings.password_env is not None and settings.tls is None and not is_loopback(settings.host.strip("[]")):
        say(f"warning: the password for MQTT broker {settings.place} can be read on its way; set tls")
    client.connect_to(settings.host, settings.port_used, settings.keepalive_s)
    try:
        client.loop_start()
    except OSError as exc:  # paho wakes its thread over a TCP connection to itself
        wanted = "needs a TCP port of its own on 127.0.0.1; under systemd, SocketBindAllow=ipv4:tcp lets it"
        raise OutputError(f"MQTT client: {wanted}: {os_reason(exc)}") from exc


def _tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """Certificates and host names are checked, whatever the settings are."""
    key = "ca_file"
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.certificate_file is not None:
            key = "certificate_file"
            context.load_cert_chain(tls.certificate_file, tls.key_file, password=_no_password)
    except (OSError, ValueError) as exc:  # an ssl.SSLError is an OSError
        reason = os_reason(exc) if isinstance(exc, OSError) else str(exc)
        raise ConfigError("sinks", [f"mqtt.tls.{key}: cannot be read: {reason}"]) from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _no_password() -> str:
    """Instead of a question on the terminal. Raises: ValueError."""
    raise ValueError("the key is encrypted; wanted one without a password, readable for edge-ad only")


def topic(prefix: str, source: str, last: str) -> str:
    """`<prefix>/<source>/<last>`."""
    return f"{prefix}/{topic_name(source)}/{last}"
