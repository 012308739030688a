"""Connections within limits: Tornado reads requests from them, `Places` says which one gives way to which."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from edge_ad.errors import os_reason
from edge_ad.runtime.http.messages import Request, Response
from edge_ad.runtime.http.places import Places

log = logging.getLogger(__name__)

REST_S = 0.1  # after a connection could not be taken, because the process has no descriptor left


@dataclass(frozen=True)
class HttpLimits:
    """What one client may cost.

    Attributes:
        header_bytes, body_bytes: of one request.
        header_s: from the opening of a connection, or the last answer, until all of the headers are there.
        body_s: for the body after that.
        answer_s: for the other side to take an answer.
        connection_s: for which a connection lasts, whatever happens on it.
        strangers: connections at the same time that have not proven that they may ask; for a further one the oldest
            of those is closed, of the address that has most.
        per_address: of these, from one address.
        reserved: further connections, for those that have proven it.
        requests_per_s: of all that have proven it, together; further ones are answered later.
        strangers_requests_per_s: of all others together.
    """

    header_bytes: int = 8 << 10
    body_bytes: int = 16 << 10
    header_s: float = 5.0
    body_s: float = 5.0
    answer_s: float = 5.0
    connection_s: float = 120.0
    strangers: int = 64
    per_address: int = 16
    reserved: int = 32
    requests_per_s: float = 200.0
    strangers_requests_per_s: float = 50.0


class Connections:
    """The connections of one server; all of it happens in the thread of a running event loop.

    Args:
        proven: whether the start line and the headers of a request prove that it may be asked.
        take: given every whole request: its connection, start line, headers, body, and what `proven` said.
    """

    def __init__(
        self,
        limits: HttpLimits,
        proven: Callable[[Any, Any], bool],
        take: Callable[[Any, Any, Any, bytes, bool], None],
    ) -> None:
        self._limits = limits
        loop = asyncio.get_running_loop()
        self._places = Places(limits.strangers, limits.per_address, limits.reserved, loop.time)
        self._server = _server(limits, self._places, proven, take)

    @asynccontextmanager
    async def accepting(self, sockets: list[socket.socket]) -> AsyncIterator[None]:
        """Take connections from sockets that listen, while the block lasts; then they are closed."""
        tasks = [asyncio.get_running_loop().create_task(self._accept(one)) for one in sockets]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in sockets:
                one.close()

    def send(self, connection: Any, request: Request, response: Response) -> None:
        """Answer a request on its connection, which is closed when the other side does not take the answer."""
        from tornado.httputil import HTTPHeaders, ResponseStartLine
        from tornado.iostream import StreamClosedError

        headers = HTTPHeaders(
            {
                "Content-Type": response.content_type,
                "Content-Length": str(len(response.body)),
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "default-src 'none'",
                **response.headers,
            }
        )
        start = ResponseStartLine("HTTP/1.1", response.status, HTTPStatus(response.status).phrase)
        stream = connection.stream
        self._places.wait(stream)
        try:
            written = connection.write_headers(start, headers, None if request.method == "HEAD" else response.body)
            if not written.done():
                timer = asyncio.get_running_loop().call_later(self._limits.answer_s, stream.close)
                written.add_done_callback(lambda _: timer.cancel())
            connection.finish()
        except StreamClosedError:
            pass  # whoever asked has left

    async def close_all(self) -> None:
        await self._server.close_all_connections()

    async def _accept(self, listening: socket.socket) -> None:
        """One connection after the other, each of which is read from before the next is taken: a flood of them cannot
        close one whose request has come.
        """
        from tornado.ioloop import IOLoop
        from tornado.iostream import IOStream

        size = self._limits.header_bytes + self._limits.body_bytes
        coming, failing = asyncio.Event(), False
        IOLoop.current().add_handler(listening, lambda *_: coming.set(), IOLoop.READ)
        try:
            while True:
                try:
                    taken, address = listening.accept()
                    failing = False
                except BlockingIOError:
                    coming.clear()
                    await coming.wait()
                    continue
                except ConnectionAbortedError:
                    continue
                except OSError as exc:
                    if not failing:
                        log.warning("HTTP connections cannot be taken: %s", os_reason(exc))
                    failing = True
                    _close(self._places.give_way())
                    await asyncio.sleep(REST_S)
                    continue
                stream = IOStream(taken, max_buffer_size=size, read_chunk_size=self._limits.body_bytes)
                victim = self._places.enter(stream, str(address[0]))
                _close(victim)
                if victim is not stream:
                    self._server.handle_stream(stream, address)
                await asyncio.sleep(0)
        finally:
            IOLoop.current().remove_handler(listening)


def _close(stream: Hashable | None) -> None:
    if stream is not None:
        stream.close()  # type: ignore[attr-defined]


def _server(
    limits: HttpLimits,
    places: Places,
    proven: Callable[[Any, Any], bool],
    take: Callable[[Any, Any, Any, bytes, bool], None],
) -> Any:
    """A server that hands whole requests to `take`. The classes stand here because Tornado is loaded late."""
    from tornado.httpserver import HTTPServer
    from tornado.httputil import HTTPMessageDelegate, HTTPServerConnectionDelegate

    ends: dict[Any, asyncio.TimerHandle] = {}  # of the connections that are open

    class Message(HTTPMessageDelegate):
        def __init__(self, connection: Any) -> None:
            self._connection = connection
            self._line: Any = None
            self._headers: Any = None
            self._body = bytearray()
            self._proven = False

        def headers_received(self, start_line: Any, headers: Any) -> None:
            self._line, self._headers = start_line, headers
            self._proven = proven(start_line, headers)
            if self._proven:
                _close(places.prove(self._connection.stream))

        def data_received(self, chunk: bytes) -> None:
            self._body += chunk

        def finish(self) -> None:
            if self._proven:
                places.owe(self._connection.stream)
            take(self._connection, self._line, self._headers, bytes(self._body), self._proven)

    class Messages(HTTPServerConnectionDelegate):
        def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
            places.wait(request_conn.stream)
            return Message(request_conn)

    class LimitedServer(HTTPServer):
        def handle_stream(self, stream: Any, address: Any) -> None:
            ends[stream] = asyncio.get_running_loop().call_later(limits.connection_s, stream.close)
            super().handle_stream(stream, address)

        def on_close(self, server_conn: Any) -> None:
            ends.pop(server_conn.stream).cancel()
            places.leave(server_conn.stream)
            super().on_close(server_conn)

    return LimitedServer(
        Messages(),
        max_header_size=limits.header_bytes,
        max_body_size=limits.body_bytes,
        max_buffer_size=limits.header_bytes + limits.body_bytes,
        chunk_size=limits.body_bytes,
        idle_connection_timeout=limits.header_s,
        body_timeout=limits.body_s,
    )
