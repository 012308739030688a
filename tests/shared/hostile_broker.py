"""An MQTT broker of a few lines on loopback, which does as the test wants."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

CONNECT, PUBLISH, SUBSCRIBE, PINGREQ = 1, 3, 8, 12


def packet(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """Args: kind: the first byte; length: that is said, where it is not that of the body."""
    left, coded = len(body) if length is None else length, bytearray()
    while True:
        left, low = left >> 7, left & 127
        coded.append(low | (128 if left else 0))
        if not left:
            return bytes([kind]) + bytes(coded) + body


def publish(topic: bytes, payload: bytes, *, mid: int = 0, qos: int = 0, length: int | None = None) -> bytes:
    """A message in MQTT 5. Args: length: of the payload that is said."""
    head = struct.pack(">H", len(topic)) + topic + (struct.pack(">H", mid) if qos else b"") + b"\0"
    said = None if length is None else len(head) + length
    return packet(0x30 | qos << 1, head + payload, length=said)


class Client:
    """One connection. Attributes: connection: its socket; number: of the connection, from 0."""

    def __init__(self, connection: socket.socket, number: int) -> None:
        self.connection, self.number = connection, number
        self.connect = b""  # the body of its CONNECT

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.connection.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def next(self) -> tuple[int, bytes]:
        """The first byte of the next packet, and its body."""
        kind, size, shift = self.exactly(1)[0], 0, 0
        while True:
            byte = self.exactly(1)[0]
            size, shift = size | (byte & 127) << shift, shift + 7
            if not byte & 128:
                return kind, self.exactly(size)


class HostileBroker:
    """Speaks MQTT 5, as far as it is told.

    Args:
        confirms: which packets it answers, of `CONNECT`, `PUBLISH`, `SUBSCRIBE`; pings it always does.
        closes: whether it closes every connection at its first word.
        subscribed: called for every subscription with the client and its first topic.

    Attributes:
        port: on loopback.
        clients: one for each connection so far.
        acknowledged: numbers of the messages that were.
    """

    def __init__(
        self,
        confirms: set[int] | None = None,
        subscribed: Callable[[Client, bytes], None] = lambda client, topic: None,
        *,
        closes: bool = False,
    ) -> None:
        self.confirms = {CONNECT, PUBLISH, SUBSCRIBE} if confirms is None else confirms
        self.clients: list[Client] = []
        self.acknowledged: list[int] = []
        self.closes = closes
        self._subscribed = subscribed
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> HostileBroker:
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for client in self.clients:
            with suppress(OSError):  # it has left
                client.connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        for client in self.clients:
            client.connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            client = Client(connection, len(self.clients))
            self.clients.append(client)
            self._threads.append(threading.Thread(target=self._serve, args=(client,)))
            self._threads[-1].start()

    def _serve(self, client: Client) -> None:
        try:
            while True:
                kind, body = client.next()
                if kind >> 4 == CONNECT:
                    client.connect = body
                    if self.closes:
                        client.connection.shutdown(socket.SHUT_RDWR)
                    elif CONNECT in self.confirms:
                        client.send(b"\x20\x03\0\0\0")
                elif kind >> 4 == PUBLISH and PUBLISH in self.confirms:
                    size = struct.unpack(">H", body[:2])[0]
                    client.send(packet(0x40, body[2 + size : 4 + size]))
                elif kind >> 4 == 4:  # PUBACK
                    self.acknowledged.append(struct.unpack(">H", body[:2])[0])
                elif kind >> 4 == SUBSCRIBE and SUBSCRIBE in self.confirms:
                    size = struct.unpack(">H", body[3:5])[0]
                    client.send(packet(0x90, body[:2] + b"\0\x01"))
                    self._subscribed(client, body[5 : 5 + size])
                elif kind >> 4 == PINGREQ:
                    client.send(packet(0xD0, b""))
        except (OSError, EOFError):
            pass
