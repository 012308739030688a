"""Clients that are many, slow or silent, on real sockets of the loopback: others are answered all the same."""

from __future__ import annotations

import errno
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from edge_ad.runtime.http import server as server_module
from edge_ad.runtime.http.connections import HttpLimits
from edge_ad.runtime.http.messages import Request, Response, answer_json
from edge_ad.runtime.http.server import HttpServer
from edge_ad.runtime.http.settings import HttpSettings

PATIENCE_S = 20
ANY_PORT = HttpSettings(port=0)
HALF = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def echo(request: Request) -> Response:
    return answer_json(200, {"path": request.path, "proven": proven(request)})


def proven(request: Request) -> bool:
    return request.headers.get("authorization") == "Bearer s3cret"


def connect(server: HttpServer) -> socket.socket:
    return socket.create_connection(server.address, PATIENCE_S)


def heard(one: socket.socket) -> bytes:
    """Until the server closes."""
    got = b""
    try:
        while part := one.recv(65536):
            got += part
    except ConnectionResetError:
        pass
    return got


def trigger(server: HttpServer) -> bool:
    with connect(server) as one:
        one.sendall(
            b"POST /trigger/a HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer s3cret\r\nContent-Length: 2\r\n"
            b"Connection: close\r\n\r\n{}"
        )
        return heard(one).startswith(b"HTTP/1.1 200")


@contextmanager
def crowd(server: HttpServer, beginning: bytes, count: int) -> Iterator[list[socket.socket]]:
    """Clients that send no more than the beginning of a request, each anew as soon as it is closed."""
    over = threading.Event()
    clients: list[socket.socket] = []

    def hold() -> None:
        while not over.is_set():
            try:
                with connect(server) as one:
                    clients.append(one)
                    one.sendall(beginning)
                    one.settimeout(0.05)
                    while not over.is_set():
                        try:
                            if not one.recv(1000):
                                break
                        except TimeoutError:
                            continue
            except OSError:
                pass
            time.sleep(0.005)

    threads = [threading.Thread(target=hold) for _ in range(count)]
    for thread in threads:
        thread.start()
    until_s = time.monotonic() + PATIENCE_S
    while len(clients) < count:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    try:
        yield clients
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENCE_S)


@pytest.mark.parametrize(
    "beginning",
    [b"", HALF, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx", HALF + b"\r\n"],
    ids=["silent", "half of the headers", "half of the body", "idle after an answer"],
)
def test_those_who_hold_connections_keep_nobody_out(beginning: bytes) -> None:
    limits = HttpLimits(strangers=8, per_address=8, reserved=4, header_s=60, body_s=60)
    with HttpServer(ANY_PORT, b"s3cret", echo, proven=proven, limits=limits) as server:  # noqa: SIM117
        with crowd(server, beginning, 20) as clients:
            assert [trigger(server) for _ in range(25)] == [True] * 25
            assert len(clients) > 20  # control: they were closed, and came again


def test_a_connection_that_showed_the_token_is_kept_beside_a_crowd() -> None:
    limits = HttpLimits(strangers=4, per_address=4, reserved=2, header_s=60)
    request = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer s3cret\r\n\r\n"
    with HttpServer(ANY_PORT, b"s3cret", echo, proven=proven, limits=limits) as server, connect(server) as plc:
        for _ in range(3):
            plc.sendall(request)
            assert plc.recv(65536).startswith(b"HTTP/1.1 200")
            with crowd(server, HALF, 10):
                pass
        with ExitStack() as stack:  # further ones with the token close the one that has been idle for longest
            for _ in range(2):
                one = stack.enter_context(connect(server))
                one.sendall(request)
                assert one.recv(65536).startswith(b"HTTP/1.1 200")
            assert heard(plc) == b""


def test_requests_without_the_token_take_no_turns_of_those_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "STRANGERS_WAIT_S", 60)
    limits = HttpLimits(strangers_requests_per_s=2)
    with HttpServer(ANY_PORT, b"s3cret", echo, proven=proven, limits=limits) as server, ExitStack() as stack:
        for _ in range(10):  # the last of them is answered after five seconds
            stack.enter_context(connect(server)).sendall(HALF + b"\r\n")
        began_s = time.monotonic()
        waiting = stack.enter_context(connect(server))
        waiting.sendall(HALF + b"Connection: close\r\n\r\n")
        assert trigger(server)
        waiting.settimeout(0.2)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        assert time.monotonic() - began_s < PATIENCE_S


def test_a_stranger_who_would_wait_for_long_is_turned_away() -> None:
    """Else turns would be kept for connections that have long been closed."""
    with HttpServer(ANY_PORT, b"x", echo, proven=proven, limits=HttpLimits(strangers_requests_per_s=1)) as server:
        answers = []
        for _ in range(4):
            with connect(server) as one:
                one.sendall(HALF + b"Connection: close\r\n\r\n")
                answers.append(heard(one)[:12])
        assert answers[0] == answers[1] == b"HTTP/1.1 200"
        assert trigger(server)
        with ExitStack() as stack:
            held = [stack.enter_context(connect(server)) for _ in range(4)]
            for one in held:
                one.sendall(HALF + b"Connection: close\r\n\r\n")
            assert heard(held[-1]) == b""
            assert trigger(server)


def test_who_does_not_take_an_answer_loses_the_connection() -> None:
    def much(request: Request) -> Response:
        return Response(200, b"x" * (16 << 20), "text/plain")

    with HttpServer(ANY_PORT, None, much, limits=HttpLimits(answer_s=0.2)) as server, connect(server) as one:
        one.sendall(HALF + b"\r\n")
        time.sleep(1)
        got = heard(one)
    assert got.startswith(b"HTTP/1.1 200") and len(got) < 16 << 20


def test_slow_requests_that_pile_up_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MOST_SLOW", 1)
    began, release = threading.Event(), threading.Event()

    def answer(request: Request) -> Response:
        began.set()
        assert release.wait(PATIENCE_S)
        return echo(request)

    request = HALF + b"Connection: close\r\n\r\n"
    with HttpServer(ANY_PORT, None, answer, slow=lambda _: True) as server, ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(4)]
        clients[0].sendall(request)
        assert began.wait(PATIENCE_S)
        clients[1].sendall(request)
        until_s = time.monotonic() + PATIENCE_S
        while server._slow_requests.qsize() < 1:
            assert time.monotonic() < until_s
        clients[2].sendall(request)
        answer_now = heard(clients[2])
        release.set()
        assert answer_now.startswith(b"HTTP/1.1 503") and b"come again" in answer_now
        assert heard(clients[0]).startswith(b"HTTP/1.1 200") and heard(clients[1]).startswith(b"HTTP/1.1 200")


def test_without_descriptors_the_server_makes_room_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([OSError(errno.EMFILE, "Too many open files")] * 3)
    original = socket.socket.accept

    def accept(self: socket.socket) -> Any:
        for failure in failures:
            raise failure
        return original(self)

    with HttpServer(ANY_PORT, None, echo) as server, connect(server) as held:
        held.sendall(HALF)
        time.sleep(0.1)
        monkeypatch.setattr(socket.socket, "accept", accept)
        assert trigger(server)
        assert heard(held) == b""
    assert [one.getMessage() for one in caplog.records] == ["HTTP connections cannot be taken: Too many open files"]


def test_a_path_that_is_no_utf8_is_answered() -> None:
    with HttpServer(ANY_PORT, None, echo) as server, connect(server) as one:
        one.sendall(b"GET /trigger/%FF%41 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = heard(one).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and json.loads(body)["path"] == "/trigger/\udcffA"
