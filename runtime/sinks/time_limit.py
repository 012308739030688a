"""Connections of urllib3 with one time for all of a request; its own timeouts are for each read, and each address."""

from __future__ import annotations

import io
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urllib3 import HTTPConnectionPool


class TimeLimit:
    """The time that is left, for one caller at a time. Over until it is started."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._end_s = clock_s()

    def start(self, seconds: float) -> None:
        self._end_s = self._clock_s() + seconds

    def shorten(self, seconds: float) -> None:
        """Leave no more than so much."""
        self._end_s = min(self._end_s, self._clock_s() + seconds)

    @property
    def is_over(self) -> bool:
        return self._clock_s() >= self._end_s

    def left_s(self) -> float:
        """More than 0. Raises: TimeoutError when nothing is left."""
        left_s = self._end_s - self._clock_s()
        if left_s <= 0:
            raise TimeoutError("the time for all of it is over")
        return left_s


class _LimitedReader(io.RawIOBase):
    """What comes over a connection: each read may take what is left, so that bytes that drip do not add to it."""

    def __init__(self, connection: socket.socket, limit: TimeLimit) -> None:
        self._connection = connection
        self._bytes = connection.makefile("rb", buffering=0)  # keeps the connection open until it is closed itself
        self._limit = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(self._limit.left_s())
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        self._bytes.close()
        super().close()


class _ToBeRead:
    """What `http.client` wants of a connection in order to read an answer from it."""

    def __init__(self, connection: socket.socket, limit: TimeLimit) -> None:
        self._reader = io.BufferedReader(_LimitedReader(connection, limit))

    def makefile(self, mode: str) -> io.BufferedIOBase:
        return self._reader


def limited_pool(url: str, limit: TimeLimit, context: ssl.SSLContext) -> HTTPConnectionPool:
    """One connection to a service, on which nothing outlasts `limit`: no connecting, sending, or reading of an answer.

    What the system takes to look up a name comes on top. The caller starts the limit before each request.

    Raises: ImportError; ValueError for an address that urllib3 cannot read, which may repeat it.
    """
    from http.client import HTTPResponse  # the classes stand here because urllib3 is loaded late

    import urllib3
    from urllib3.connection import HTTPConnection, HTTPSConnection

    parts = urllib3.util.parse_url(url)
    if not parts.host:
        raise urllib3.exceptions.LocationParseError(url)
    name = parts.host

    class LimitedResponse(HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
            super().__init__(_ToBeRead(sock, limit), *args, **more)  # type: ignore[arg-type]

    class Limited(HTTPConnection):
        response_class = LimitedResponse

        def connect(self) -> None:
            """Give every address of the host a share of what is left, and one to what follows."""
            try:
                addresses = socket.getaddrinfo(name.strip("[]"), self.port, type=socket.SOCK_STREAM)
            except socket.gaierror as exc:
                raise urllib3.exceptions.NameResolutionError(name, self, exc) from exc
            except UnicodeError as exc:
                raise urllib3.exceptions.LocationParseError(name) from exc
            self.timeout = limit.left_s() / (len(addresses) + 1)
            super().connect()

        def _new_conn(self) -> socket.socket:
            """Connect; the handshake that follows may take all that is left."""
            connected = super()._new_conn()
            try:
                connected.settimeout(limit.left_s())
            except TimeoutError:
                connected.close()
                raise
            return connected

        def send(self, data: Any) -> None:
            if self.sock is None:
                self.connect()
            self.sock.settimeout(limit.left_s())
            super().send(data)

    class LimitedTls(Limited, HTTPSConnection):
        pass

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Limited

    class TlsPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = LimitedTls

    if parts.scheme == "https":
        return TlsPool(name, parts.port, maxsize=1, ssl_context=context)
    return Pool(name, parts.port, maxsize=1)
