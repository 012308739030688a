"""The thread with the sockets: Tornado reads requests within limits, `Access` and `Routes` answer them."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http import HTTPStatus
from queue import SimpleQueue
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from edge_ad.errors import ConfigError, EdgeAdError, MissingExtraError, UnavailableError, may_pass, os_reason
from edge_ad.runtime.host.loopback import is_loopback
from edge_ad.runtime.http.messages import Request, Response, refuse
from edge_ad.runtime.http.settings import HttpSettings

log = logging.getLogger(__name__)

STOP_S = 2.0  # how long a server that stops waits for answers that are under way
START_S = 10.0
BACKLOG = 64  # connections that the system keeps until they are taken


@dataclass(frozen=True)
class HttpLimits:
    """What one client may cost.

    Attributes:
        header_bytes, body_bytes: of one request.
        header_s: from the opening of a connection, or the last answer, until all of the headers are there.
        body_s: for the body after that.
        connection_s: for which a connection lasts, whatever happens on it.
        connections: at the same time; further ones are closed.
        requests_per_s: of all clients together; further ones are answered later.
    """

    header_bytes: int = 8 << 10
    body_bytes: int = 16 << 10
    header_s: float = 10.0
    body_s: float = 5.0
    connection_s: float = 120.0
    connections: int = 32
    requests_per_s: float = 200.0


class Turns:
    """When requests are answered: at once, as long as no more come than a rate allows, else one after the other."""

    def __init__(self, per_s: float) -> None:
        self._every_s = 1 / per_s
        self._next_s = 0.0

    def take(self, now_s: float) -> float:
        """The time for a request that comes now, not before it."""
        turn_s = max(now_s, self._next_s)
        self._next_s = turn_s + self._every_s
        return turn_s


class HttpServer:
    """Listens from `__enter__` to `__exit__`, in a thread of its own.

    Args:
        settings: where.
        token: whether one is wanted; without it nothing but loopback is bound.
        answer: called in that thread; must be quick.
        slow: requests that are answered in another thread, one at a time.

    Attributes:
        address: host and port that it listens on, known after `__enter__`.

    Raises: MissingExtraError.
    """

    def __init__(
        self,
        settings: HttpSettings,
        token: bytes | None,
        answer: Callable[[Request], Response],
        *,
        slow: Callable[[Request], bool] = lambda _: False,
        limits: HttpLimits | None = None,
    ) -> None:
        try:
            import tornado.httpserver  # noqa: F401
        except ImportError as exc:
            raise MissingExtraError("the http section", "tornado", "http") from exc
        self.address: tuple[str, int] = (settings.address, settings.port)
        self._settings = settings
        self._has_token = token is not None
        self._answer = answer
        self._slow = slow
        self._limits = limits or HttpLimits()
        self._slow_requests: SimpleQueue[tuple[Any, Request] | None] = SimpleQueue()
        # Daemons: what reads from a disk that hangs must not keep the process from its end.
        self._slow_thread = threading.Thread(target=self._answer_slowly, name="edge-ad-http-slow", daemon=True)
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._turns = Turns(self._limits.requests_per_s)

    def __enter__(self) -> HttpServer:
        """Raises: ConfigError when the address cannot be listened on."""
        sockets = self._bind()
        host, port = sockets[0].getsockname()[:2]
        self.address = str(host), int(port)
        self._slow_thread.start()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(sockets)), name="edge-ad-http", daemon=True
        )
        self._thread.start()
        if not self._started.wait(START_S):
            self.__exit__(None, None, None)
            raise EdgeAdError("http: the server does not start")
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # the thread has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join(2 * STOP_S)
        self._ended = True
        self._slow_requests.put(None)
        if self._slow_thread.ident is not None:
            self._slow_thread.join(STOP_S)

    def _bind(self) -> list[socket.socket]:
        settings = self._settings
        try:
            with ExitStack() as stack:
                sockets = [stack.enter_context(one) for one in _listening(settings.address, settings.port)]
                strange = [one.getsockname()[0] for one in sockets if not is_loopback(str(one.getsockname()[0]))]
                if strange and not self._has_token:
                    fault = f"host: {strange[0]} is no loopback address; wanted token_env, or 127.0.0.1"
                    raise ConfigError("http", [fault])
                stack.pop_all()
                return sockets
        except OSError as exc:
            where = f"{settings.host}:{settings.port}"
            what = f"port: {where} cannot be listened on ({os_reason(exc)})"
            if exc.errno in _IN_USE:
                raise UnavailableError(f"http: {what}: another program has it; choose another port") from exc
            if exc.errno in _NOT_YET or may_pass(exc):
                raise UnavailableError(f"http: {what}: not now; is the network up?") from exc
            raise ConfigError("http", [f"{what}: correct host or port"]) from exc

    async def _serve(self, sockets: list[socket.socket]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = _limited_server(self._limits, self._take)
        server.add_sockets(sockets)
        self._started.set()
        await self._stop.wait()
        server.stop()
        try:
            await asyncio.wait_for(server.close_all_connections(), STOP_S)
        except (TimeoutError, asyncio.TimeoutError):
            log.warning("HTTP connections still open at the end")

    def _take(self, connection: Any, line: Any, headers: Any, body: bytes) -> None:
        """Answer a request, now or when its turn comes."""
        assert self._loop is not None
        request = Request(
            method=line.method,
            path=unquote(line.path.partition("?")[0], errors="replace"),
            headers={name.lower(): value for name, value in headers.items()},
            body=body,
        )
        self._loop.call_at(self._turns.take(self._loop.time()), self._respond, connection, request)

    def _respond(self, connection: Any, request: Request) -> None:
        if self._slow(request):
            self._slow_requests.put((connection, request))
        else:
            _send(connection, request, self._answered(request))

    def _answer_slowly(self) -> None:
        while (asked := self._slow_requests.get()) is not None and not self._ended:
            response = self._answered(asked[1])
            assert self._loop is not None
            with suppress(RuntimeError):  # the server has ended meanwhile
                self._loop.call_soon_threadsafe(_send, *asked, response)

    def _answered(self, request: Request) -> Response:
        try:
            return self._answer(request)
        except Exception:
            log.exception("%s %r", request.method, request.path)
            return refuse(500, "internal error, a defect in edge-ad")


_IN_USE = frozenset({errno.EADDRINUSE, 10048})  # the second is what Windows says
_NOT_YET = frozenset({errno.EADDRNOTAVAIL, 10049, socket.EAI_AGAIN})  # before the network is up


def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Sockets that listen on all addresses of a name. Raises: OSError; then none of the last one is left open."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in dict.fromkeys(found):
        with ExitStack() as stack:
            one = stack.enter_context(socket.socket(family, kind, protocol))
            if os.name == "posix":  # elsewhere it would let two programs share the port
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setblocking(False)
            one.bind(address)
            one.listen(BACKLOG)
            stack.pop_all()
        yield one


def _send(connection: Any, request: Request, response: Response) -> None:
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
    try:
        connection.write_headers(start, headers, None if request.method == "HEAD" else response.body)
        connection.finish()
    except StreamClosedError:
        pass  # whoever asked has left


def _limited_server(limits: HttpLimits, take: Callable[[Any, Any, Any, bytes], None]) -> Any:
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

        def headers_received(self, start_line: Any, headers: Any) -> None:
            self._line, self._headers = start_line, headers

        def data_received(self, chunk: bytes) -> None:
            self._body += chunk

        def finish(self) -> None:
            take(self._connection, self._line, self._headers, bytes(self._body))

    class Messages(HTTPServerConnectionDelegate):
        def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
            return Message(request_conn)

    class LimitedServer(HTTPServer):
        def handle_stream(self, stream: Any, address: Any) -> None:
            if len(ends) >= limits.connections:
                stream.close()
                return
            ends[stream] = asyncio.get_running_loop().call_later(limits.connection_s, stream.close)
            super().handle_stream(stream, address)

        def on_close(self, server_conn: Any) -> None:
            ends.pop(server_conn.stream).cancel()
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
