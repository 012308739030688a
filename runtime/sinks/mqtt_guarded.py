"""paho's client, which no broker can end, fill or keep waiting. Imported late: it needs paho."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_ad.errors import one_line, os_reason
from edge_ad.runtime.host.health import Condition, Grade

log = logging.getLogger(__name__)

LARGEST_BYTES = 64 << 10
"""Of a packet that is asked for; an MQTT 5 broker drops larger ones itself."""
KEPT_BYTES = 8 << 10  # of the head of a larger one, which comes all the same; the rest is read and dropped
UNRELEASED = 100  # messages that a broker may leave half delivered (QoS 2, which nobody asked for)
ANSWER_S = 10.0  # for the broker to confirm a connection and what was asked for first on it
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # after the loop broke
GOOD_S = 60.0  # of a loop that works, after which the next pause is a short one again


class HoardError(Exception):
    """The broker leaves messages half delivered, each of which has to be kept."""


class GuardedClient(mqtt.Client):
    """Connects, and connects again, in the thread that `loop_start` makes.

    * What is raised in that thread breaks the connection, is logged, and the loop begins anew after a pause.
    * A packet takes a few kilobytes of memory, however long it is.
    * A connection on which the broker says nothing, or that the owner breaks, is made anew.

    Attributes:
        running: whether the loop does.
        trouble: why the owner cannot use the connection, in words that follow the broker's name; None while it can.
        defect: the same, where the loop broke and the connection has not worked since.
        speaks_tls: whether it is to.
        on_down: given every trouble.
    """

    def __init__(self, client_id: str, protocol: MQTTProtocolVersion) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id, protocol=protocol)
        self.running = False
        self.trouble: str | None = None
        self.defect: str | None = None
        self.speaks_tls = False
        self.on_down: Callable[[str], None] = lambda _: None
        self._aim: tuple[str, int, int] | None = None
        self._over = threading.Event()
        self._works = self._refused = False
        self._worked_s = 0.0  # when that was found out
        self._opened_s = time.monotonic()

    def connect_to(self, host: str, port: int, keepalive_s: int) -> None:
        """Where `loop_start` connects to."""
        self._aim = host, port, keepalive_s
        self._connect_anew()

    def works(self, *, but: str | None = None) -> None:
        """To be called when the broker has confirmed what the owner asked for first. Args: but: what is wrong still."""
        self.trouble, self.defect = but, None
        self._works, self._worked_s = True, time.monotonic()

    def down(self, reason: str) -> None:
        self.trouble, self._works = reason, False
        self.on_down(reason)

    def refused(self, what: str, code: ReasonCode) -> None:
        """The broker does not take a connection, or what was asked for on it."""
        hint = ""
        if str(code) in ("Not authorized", "Bad user name or password"):
            hint = "; look at username_env, password_env, and what the broker lets that user do"
        self._refused = True
        self.down(f"refuses the {what}: {code}{hint}")

    def lost(self, code: ReasonCode) -> None:
        """The connection is gone, which nobody here wanted."""
        if self._works:
            self.down(f"is gone: {code}")
        elif not self._refused:
            self.down("closes connections before it confirms them; look at its port, and whether it is one for TLS")

    def break_connection(self) -> None:
        """Have the connection made anew; from any thread."""
        connection = self.socket()
        if isinstance(connection, socket.socket):
            with suppress(OSError):  # it is gone already
                connection.shutdown(socket.SHUT_RDWR)

    def conditions(self, what: str, grade: Grade) -> Iterator[Condition]:
        """While it is meant to run. Args: what: it is for; grade: of a connection that cannot be used."""
        if not self.running:
            yield Condition(f"the thread of {what} has ended", "ill")
        elif self.defect is not None:
            yield Condition(f"the thread of {what} has ended and begins anew: the broker {self.defect}", "ill")
        elif self.trouble is not None:
            yield Condition(f"{what}: the broker {self.trouble}", grade)

    def loop_start(self) -> MQTTErrorCode:
        self.running = True
        return super().loop_start()

    def reconnect(self) -> MQTTErrorCode:
        self._works = self._refused = False
        self._opened_s = time.monotonic()
        try:
            return super().reconnect()
        except OSError as exc:
            self.down(reason_of(exc, tls=self.speaks_tls))  # the exception itself would keep the socket
            raise

    def loop_misc(self) -> MQTTErrorCode:
        done = super().loop_misc()
        waits = done == MQTTErrorCode.MQTT_ERR_SUCCESS and not self._works and not self._over.is_set()
        if not waits or time.monotonic() - self._opened_s < ANSWER_S:
            return done
        self.down(f"confirms nothing within {ANSWER_S:g} s")
        return MQTTErrorCode.MQTT_ERR_CONN_LOST

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        pause_s = FIRST_PAUSE_S
        try:
            while True:
                began_s = time.monotonic()
                try:
                    ended = super().loop_forever(timeout, retry_first_connection)
                    if self._over.is_set():
                        return ended
                    self.down("has ended the connection")
                except BaseException as exc:  # whatever it is, nobody else would begin anew
                    if not isinstance(exc, HoardError):
                        log.error("MQTT client", exc_info=exc)
                    self.defect = f"broke the client: {type(exc).__name__}: {one_line(exc)}"
                    self.down(self.defect)
                if began_s < self._worked_s < time.monotonic() - GOOD_S:
                    pause_s = FIRST_PAUSE_S
                if self._over.wait(pause_s):
                    return MQTTErrorCode.MQTT_ERR_CONN_LOST
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                self._connect_anew()
        finally:
            self.running = False

    def loop_stop(self) -> MQTTErrorCode:
        self._over.set()
        return super().loop_stop()

    def disconnect(self, *args: Any, **more: Any) -> MQTTErrorCode:
        self._over.set()
        return super().disconnect(*args, **more)

    def _connect_anew(self) -> None:
        assert self._aim is not None
        host, port, keepalive_s = self._aim
        if self._protocol == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = LARGEST_BYTES
            self.connect_async(host, port, keepalive_s, clean_start=True, properties=properties)
        else:
            self.connect_async(host, port, keepalive_s)

    def _sock_recv(self, bufsize: int) -> bytes:
        """paho asks for all that is missing of a packet. Of a long one it gets the head and the end."""
        if len(self._in_messages) > UNRELEASED:
            raise HoardError(f"more than {UNRELEASED} messages are left half delivered")
        room = KEPT_BYTES - len(self._in_packet["packet"])
        if bufsize <= KEPT_BYTES:
            return super()._sock_recv(bufsize)
        if room > 0:
            return super()._sock_recv(min(bufsize, room))
        dropped = super()._sock_recv(min(bufsize - KEPT_BYTES, LARGEST_BYTES))
        if not dropped:
            return dropped  # the connection is closed
        self._in_packet["to_process"] -= len(dropped)
        raise BlockingIOError  # paho comes again when there is more


def reason_of(exc: OSError, *, tls: bool) -> str:
    """Why no connection came about, and what to do, in words that follow the broker's name."""
    not_for_tls = "does not speak TLS at this port; wanted its port for TLS, or no tls section"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return (
            f"has a certificate that is not trusted ({exc.verify_message.strip('.')}); wanted in tls.ca_file the"
            " authority that signed it, and in host a name that it is for"
        )
    if isinstance(exc, ssl.SSLError):
        if exc.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
            return not_for_tls
        return f"cannot be reached over TLS ({exc.reason or one_line(exc)})"
    if tls and isinstance(exc, (ConnectionResetError, BrokenPipeError)):
        return f"closes the connection at the first word of TLS; probably it {not_for_tls}"
    if isinstance(exc, socket.gaierror):
        return "cannot be reached: no address is known for its name"
    if isinstance(exc, TimeoutError):
        return "cannot be reached: no answer"
    return f"cannot be reached: {os_reason(exc).lower()}"
