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
from queue import SimpleQueue
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from edge_ad.errors import ConfigError, EdgeAdError, MissingExtraError, UnavailableError, may_pass, os_reason
from edge_ad.runtime.host.health import Condition
from edge_ad.runtime.host.loopback import is_loopback
from edge_ad.runtime.http.connections import Connections, HttpLimits
from edge_ad.runtime.http.messages import Request, Response, refuse
from edge_ad.runtime.http.settings import HttpSettings

log = logging.getLogger(__name__)

STOP_S = 2.0  # how long a server that stops waits for answers that are under way
START_S = 10.0
BACKLOG = 1024  # connections that the system keeps until they are taken; one that finds no room tries again after 1 s
STRANGERS_WAIT_S = 1.0  # for a turn; a stranger who would wait for longer is turned away
MOST_SLOW = 4  # slow requests that wait; further ones are told to come again


class Turns:
    """When requests are answered: at once, as long as no more come than a rate allows, else one after the other."""

    def __init__(self, per_s: float) -> None:
        self._every_s = 1 / per_s
        self._next_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long a request that comes now would wait."""
        return max(0.0, self._next_s - now_s)

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
        proven: whether whoever sent a request, of which the body may still be missing, is one of those whom a place and
            an answer are kept for; called in that thread.
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
        proven: Callable[[Request], bool] = lambda _: True,
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
        self._proven = proven
        self._slow = slow
        self._limits = limits or HttpLimits()
        self._slow_requests: SimpleQueue[tuple[Any, Request] | None] = SimpleQueue()
        # Daemons: what reads from a disk that hangs must not keep the process from its end.
        self._slow_thread = threading.Thread(target=self._answer_slowly, name="edge-ad-http-slow", daemon=True)
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections: Connections | None = None
        self._stop: asyncio.Event | None = None
        self._turns = Turns(self._limits.requests_per_s)
        self._strangers_turns = Turns(self._limits.strangers_requests_per_s)

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

    def conditions(self) -> list[Condition]:
        """See `edge_ad.runtime.host.health`. That its other thread is alive shows in any answer."""
        if self._thread is None or self._ended or self._slow_thread.is_alive():
            return []
        return [Condition(f"the thread {self._slow_thread.name} has ended", "ill")]

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
        self._connections = connections = Connections(self._limits, self._proven_by, self._take)
        async with connections.accepting(sockets):
            self._started.set()
            await self._stop.wait()
        try:
            await asyncio.wait_for(connections.close_all(), STOP_S)
        except (TimeoutError, asyncio.TimeoutError):
            log.warning("HTTP connections still open at the end")

    def _proven_by(self, line: Any, headers: Any) -> bool:
        try:
            return self._proven(_request(line, headers))
        except Exception:
            log.exception("%s %r", line.method, line.path)
            return False

    def _take(self, connection: Any, line: Any, headers: Any, body: bytes, proven: bool) -> None:
        """Answer a request, now or when its turn comes."""
        assert self._loop is not None
        turns, now_s = self._turns if proven else self._strangers_turns, self._loop.time()
        if not proven and turns.wait_s(now_s) > STRANGERS_WAIT_S:
            connection.stream.close()  # those before it may have left, and their turns would be waited for
            return
        self._loop.call_at(turns.take(now_s), self._respond, connection, _request(line, headers, body))

    def _respond(self, connection: Any, request: Request) -> None:
        if not self._slow(request):
            self._send(connection, request, self._answered(request))
        elif self._slow_requests.qsize() >= MOST_SLOW:
            self._send(connection, request, refuse(503, "others have asked for the same; come again"))
        else:
            self._slow_requests.put((connection, request))

    def _send(self, connection: Any, request: Request, response: Response) -> None:
        assert self._connections is not None
        self._connections.send(connection, request, response)

    def _answer_slowly(self) -> None:
        while (asked := self._slow_requests.get()) is not None and not self._ended:
            response = self._answered(asked[1])
            assert self._loop is not None
            with suppress(RuntimeError):  # the server has ended meanwhile
                self._loop.call_soon_threadsafe(self._send, *asked, response)

    def _answered(self, request: Request) -> Response:
        try:
            return self._answer(request)
        except Exception:
            log.exception("%s %r", request.method, request.path)
            return refuse(500, "internal error, a defect in edge-ad")


def _request(line: Any, headers: Any, body: bytes = b"") -> Request:
    """A path may hold bytes that are no UTF-8, as the name of a camera may."""
    return Request(
        method=line.method,
        path=unquote(line.path.partition("?")[0], errors="surrogateescape"),
        headers={name.lower(): value for name, value in headers.items()},
        body=body,
    )


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
