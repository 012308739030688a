"""The server on a real socket of the loopback: limits, hostile clients, a clean start and a clean end."""

from __future__ import annotations

import errno
import http.client
import json
import random
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edge_ad.errors import ConfigError, EdgeAdError, UnavailableError
from edge_ad.runtime.http import server as server_module
from edge_ad.runtime.http.connections import HttpLimits
from edge_ad.runtime.http.listen import listening
from edge_ad.runtime.http.messages import Request, Response, answer_json
from edge_ad.runtime.http.server import HttpServer, Turns
from edge_ad.runtime.http.settings import HttpSettings
from edge_ad.runtime.line.run_view import RunView

PATIENCE_S = 10
ANY_PORT = HttpSettings(port=0)


def echo(request: Request) -> Response:
    if request.path == "/defect":
        raise RuntimeError("a defect")
    return answer_json(200, {"method": request.method, "path": request.path, "body": len(request.body)})


def ask(server: HttpServer, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*server.address, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def send(server: HttpServer, data: bytes, *, leave: bool = False) -> bytes:
    """Send bytes, perhaps say that one leaves, and return all that comes back until the server closes or is quiet."""
    with socket.create_connection(server.address, PATIENCE_S) as client:
        got = b""
        try:
            client.sendall(data)
            if leave:
                client.shutdown(socket.SHUT_WR)
            while part := client.recv(65536):
                got += part
                client.settimeout(0.3)
        except (ConnectionResetError, BrokenPipeError, TimeoutError):
            pass  # it has heard enough
        return got


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer(ANY_PORT, None, echo) as server:
        yield server


def test_answers_on_loopback_alone(server: HttpServer) -> None:
    assert server.address[0] == "127.0.0.1"
    status, body = ask(server, "GET", "/a%20b/%C3%A9?query=1")
    assert (status, json.loads(body)["path"]) == (200, "/a b/é")
    assert ask(server, "HEAD", "/x") == (200, b"")
    assert ask(server, "GET", "/defect")[0] == 500
    assert ask(server, "GET", "/x")[0] == 200


def test_several_requests_on_one_connection(server: HttpServer) -> None:
    one = b"GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    got = send(server, one + one + one)
    assert got.count(b"HTTP/1.1 200 OK") == 3


def test_a_port_that_is_taken_is_one_clear_error(server: HttpServer) -> None:
    host, port = server.address
    with pytest.raises(UnavailableError, match=f"port: {host}:{port} cannot be listened on .* another program has it"):
        HttpServer(HttpSettings(port=port), None, echo).__enter__()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_a_token_no_other_machine_is_listened_to(host: str) -> None:
    """Settings refuse it before; this is the last line of defence."""
    with pytest.raises(ConfigError, match="wanted token_env"):
        HttpServer(HttpSettings(host, 0), None, echo).__enter__()


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EADDRNOTAVAIL, UnavailableError, "is the network up"),
        (errno.ENETDOWN, UnavailableError, "is the network up"),
        (socket.EAI_AGAIN, UnavailableError, "is the network up"),
        (errno.EACCES, ConfigError, "correct host or port"),
        (socket.EAI_NONAME, ConfigError, "correct host or port"),
    ],
)
def test_what_may_pass_is_told_apart_from_what_is_wrong(
    number: int, kind: type[EdgeAdError], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> list[socket.socket]:
        raise OSError(number, "simulated")

    monkeypatch.setattr(server_module, "_listening", refuse)
    with pytest.raises(kind, match=words) as raised:
        HttpServer(ANY_PORT, None, echo).__enter__()
    assert type(raised.value) is kind


def test_an_address_that_is_not_this_machines() -> None:
    with pytest.raises(UnavailableError, match="cannot be listened on"):
        HttpServer(HttpSettings("203.0.113.7", 0, "T"), b"x", echo).__enter__()


def test_sizes_have_limits() -> None:
    limits = HttpLimits(header_bytes=2000, body_bytes=1000)
    with HttpServer(ANY_PORT, None, echo, limits=limits) as server:
        head = b"POST / HTTP/1.1\r\nHost: x\r\n"
        assert b"200 OK" in send(server, head + b"Content-Length: 1000\r\n\r\n" + b"x" * 1000)
        for data in (
            head + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001,
            head + b"Content-Length: 99999999999999999999\r\n\r\n",
            head + b"Content-Length: -1\r\n\r\n",
            head
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + b"200\r\n"
            + b"x" * 512
            + b"\r\n200\r\n"
            + b"x" * 512
            + b"\r\n",
            head + b"X: " + b"y" * 3000 + b"\r\n\r\n",
            b"GET /" + b"z" * 5000,
            head + b"".join(b"X%d: y\r\n" % number for number in range(1000)) + b"\r\n",
        ):
            got = send(server, data)
            assert b"200" not in got.partition(b"\r\n")[0], data[:60]
        assert ask(server, "GET", "/")[0] == 200


def test_a_client_that_is_slow_on_purpose_loses_its_connection() -> None:
    limits = HttpLimits(header_s=0.2, body_s=0.2, connection_s=30)
    with HttpServer(ANY_PORT, None, echo, limits=limits) as server:
        for start in (b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx"):
            with socket.create_connection(server.address, PATIENCE_S) as client:
                client.sendall(start)
                got = b""
                try:
                    for _ in range(200):  # a byte now and then, for ever
                        client.sendall(b"x")
                        client.settimeout(0.05)
                        try:
                            got = client.recv(100)
                        except TimeoutError:
                            continue
                        break
                    else:
                        pytest.fail("the connection was kept")
                except (ConnectionResetError, BrokenPipeError):
                    pass
                assert b"200" not in got


def test_a_connection_does_not_last_for_ever() -> None:
    limits = HttpLimits(connection_s=0.2)
    with (
        HttpServer(ANY_PORT, None, echo, limits=limits) as server,
        socket.create_connection(server.address, PATIENCE_S) as client,
    ):
        assert client.recv(1) == b""  # it would have had ten seconds for its headers


def test_requests_are_answered_at_no_more_than_a_rate() -> None:
    turns = Turns(10)
    assert [turns.take(now_s) for now_s in (5.0, 5.0, 5.0, 5.25, 9.0, 9.5)] == pytest.approx(
        [5.0, 5.1, 5.2, 5.3, 9.0, 9.5]
    )
    with HttpServer(ANY_PORT, None, echo, limits=HttpLimits(requests_per_s=100)) as server:
        got = send(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
    assert got.count(b"200 OK") == 5  # later, but all


def test_a_slow_answer_holds_up_no_other() -> None:
    release, began = threading.Event(), threading.Event()

    def answer(request: Request) -> Response:
        if request.path == "/slow":
            began.set()
            assert release.wait(PATIENCE_S)
        return echo(request)

    with HttpServer(ANY_PORT, None, answer, slow=lambda request: request.path == "/slow") as server:
        waiting = threading.Thread(target=lambda: ask(server, "GET", "/slow"))
        waiting.start()
        assert began.wait(PATIENCE_S)
        assert ask(server, "GET", "/quick")[0] == 200
        release.set()
        waiting.join(PATIENCE_S)


def garbage(rng: random.Random) -> bytes:
    """A request that is right, wrong or no request at all."""
    if rng.random() < 0.2:
        return rng.randbytes(rng.randint(0, 300))
    methods = [b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"\x00", b"G\xc3\x89T", b"get", b"X" * 90]
    paths = [b"/healthz", b"/trigger/%00%ff", b"/trigger/a", b"http://x/metrics", b"*", b"/../..", b"/%", b"\xff", b""]
    versions = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b"", b"HTTP/1.1 x"]
    headers = [
        b"Host: localhost",
        b"Host: evil.example",
        b"Content-Type: application/json",
        b"Content-Type: multipart/form-data; boundary=x",
        b"Content-Length: %d" % rng.choice([0, 2, 5, 10**9]),
        b"Content-Length: x",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Expect: 100-continue",
        b"Connection: " + rng.choice([b"close", b"keep-alive", b"upgrade"]),
        b"Authorization: Bearer \xff",
        b": no name",
        b" folded: line",
        b"No colon",
        b"X: \x00\x01",
    ]
    chosen = rng.sample(headers, rng.randint(0, 5))
    end = rng.choice([b"\r\n", b"\r\n", b"\n", b"\r"])
    body = rng.choice([b"", b"{}", b'{"part_id": "1"}', b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", rng.randbytes(20)])
    line = rng.choice(methods) + b" " + rng.choice(paths) + b" " + rng.choice(versions)
    return line + end + end.join(chosen) + end + end + body


def test_whatever_is_sent_the_server_goes_on(caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    rng = random.Random(5)
    with listening(HttpSettings(port=0), RunView()) as server:
        for _ in range(400):
            got = send(server, b"".join(garbage(rng) for _ in range(rng.choice([1, 1, 3]))), leave=True)
            for answer in got.split(b"HTTP/1.1 ")[1:]:
                assert answer[:3].isdigit() and answer[:3] != b"500", got
        bad_hosts = send(server, b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert bad_hosts.startswith(b"HTTP/1.1 421 ")
        status, body = ask(server, "GET", "/healthz")
        assert (status, json.loads(body)["status"]) == (200, "ok")
    assert not [one for one in caplog.records if one.levelname in ("ERROR", "CRITICAL")]
    assert capfd.readouterr() == ("", "")


def test_a_slow_answer_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds are read again from a disk that does not answer, and the line is stopped."""
    monkeypatch.setattr(server_module, "STOP_S", 0.1)
    asked, release, left = threading.Event(), threading.Event(), threading.Event()

    def answer(request: Request) -> Response:
        asked.set()
        release.wait(PATIENCE_S)
        return echo(request)

    server = HttpServer(ANY_PORT, None, answer, slow=lambda _: True)
    client = threading.Thread(target=lambda: send(server, b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"))

    def leave() -> None:
        server.__exit__(None, None, None)
        left.set()

    with server:
        client.start()
        assert asked.wait(PATIENCE_S)
        threading.Thread(target=leave).start()
        has_left = left.wait(PATIENCE_S / 2)
        release.set()
    client.join(PATIENCE_S)
    server._slow_thread.join(PATIENCE_S)
    assert has_left and not server._slow_thread.is_alive()


def test_a_thread_of_the_server_that_has_ended_is_a_trouble() -> None:
    server = HttpServer(ANY_PORT, None, echo)
    with server:
        assert server.conditions() == []
        server._slow_requests.put(None)
        server._slow_thread.join(PATIENCE_S)
        assert [one.text for one in server.conditions()] == ["the thread edge-ad-http-slow has ended"]
    assert server.conditions() == []


def test_the_token_is_wanted_on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINE_TOKEN", "s3cret")
    with listening(HttpSettings("0.0.0.0", 0, "LINE_TOKEN"), RunView()) as server:
        assert ask(server, "GET", "/healthz")[0] == 200
        assert ask(server, "GET", "/metrics")[0] == 401
        assert ask(server, "GET", "/metrics", Authorization="Bearer s3cret", Host="station7")[0] == 200
        assert ask(server, "PUT", "/thresholds", b"{}", Authorization="Bearer wrong")[0] == 401


def test_a_missing_token_is_found_before_anything_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LINE_TOKEN", raising=False)
    with (
        pytest.raises(ConfigError, match="holds no variable LINE_TOKEN"),
        listening(HttpSettings("0.0.0.0", 0, "LINE_TOKEN"), RunView()),
    ):
        pass


def test_nothing_is_left_behind(server: HttpServer) -> None:
    held = socket.create_connection(server.address, PATIENCE_S)
    server.__exit__(None, None, None)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("edge-ad-http")]
    held.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address, PATIENCE_S)
