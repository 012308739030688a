"""A post ends in time, however its service answers: nothing that drips holds the sender."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
import urllib3
from dripping_service import DrippingService

from edge_ad.runtime.sinks import webhook
from edge_ad.runtime.sinks.settings import WebhookSettings
from edge_ad.runtime.sinks.time_limit import TimeLimit, limited_pool
from edge_ad.runtime.sinks.webhook import WebhookRecords

Until = Callable[..., None]
Write = Callable[..., None]
LONG_S = 30.0  # where no limit is the subject: a test must hold on a machine that stalls for seconds


@contextmanager
def _dripping(
    at_once: bytes, drop: bytes, context: ssl.SSLContext | None = None, handshake_s: float = 0
) -> Iterator[DrippingService]:
    service = DrippingService(at_once, drop, context, handshake_s)
    try:
        yield service
    finally:
        service.close()


def _settings(url: str, **more: Any) -> WebhookSettings:
    return WebhookSettings(url, **{"backoff_s": (0.001, 0.01), "timeout_s": LONG_S, "flush_s": 0, **more})


def _server_context(tmp_path: Path, name: str) -> ssl.SSLContext:
    """Of a service with that name; `ca.pem` in the folder vouches for it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("at_once", "drop"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 204 No Content\r\nX-Slow: ", b"x"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["status", "header", "answers before the answer"],
)
def test_headers_that_drip_are_no_answer_and_the_record_is_posted_again(
    make_spool: Any, write: Write, until: Until, at_once: bytes, drop: bytes
) -> None:
    said: list[str] = []
    with _dripping(at_once, drop) as service:
        settings = _settings(service.url, timeout_s=0.3, attempts=1000)  # so many that the first record stays the first
        sink = WebhookRecords(settings, make_spool(), "run", say=said.append)
        with sink:
            for number in range(3):
                write(sink, number)
            until(lambda: len(service.keys) > 1, "the sender is held by the first answer")
            assert "no answer within 0.3 s" in said[0] and "records wait on disk" in said[0]
            assert sink.account().waiting == 3 and len(set(service.keys)) == 1
            service.heal()
            until(lambda: sink.account().waiting == 0)
            counts = sink.account()
    assert list(dict.fromkeys(service.taken)) == [0, 1, 2]  # one whose answer came late is posted again
    assert counts.adds_up and (counts.taken, counts.delivered, counts.lost) == (3, 3, 0)


def test_a_connection_with_tls_has_the_same_limit(tmp_path: Path, make_spool: Any, write: Write, until: Until) -> None:
    said: list[str] = []
    with _dripping(b"", b"H", _server_context(tmp_path, "127.0.0.1")) as service:
        settings = _settings(service.url, ca_file=tmp_path / "ca.pem", timeout_s=1.0)
        with WebhookRecords(settings, make_spool(), "run", say=said.append) as sink:
            write(sink, 0)
            until(lambda: said, "the sender is held by the first answer")
            service.heal()
            until(lambda: sink.account().waiting == 0)
    assert "no answer within 1 s" in said[0]
    assert set(service.taken) == {0}


def test_a_handshake_may_take_longer_than_the_share_of_an_address(
    tmp_path: Path, make_spool: Any, write: Write, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeout_s, addresses = 9.0, 8
    context = _server_context(tmp_path, "many.example")
    with _dripping(b"", b"", context, handshake_s=1.3 * timeout_s / (addresses + 1)) as service:
        service.heal()
        url = urllib3.util.parse_url(service.url)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (url.host, url.port))] * addresses
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        settings = _settings(f"https://many.example:{url.port}/", timeout_s=timeout_s, ca_file=tmp_path / "ca.pem")
        with WebhookRecords(settings, make_spool(), "run") as sink:
            write(sink, 0)
            until(lambda: sink.account().delivered == 1, "the handshake is never done")
    assert set(service.taken) == {0}


def test_a_connection_that_is_not_made_in_time_is_not_said_to_be_without_an_answer(
    make_spool: Any, write: Write, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr("socket.socket.connect", late)
    said: list[str] = []
    with WebhookRecords(_settings("http://127.0.0.1:1/"), make_spool(), "run", say=said.append) as sink:
        write(sink, 0)
        until(lambda: said)
    assert "webhook http://127.0.0.1:1/: cannot be reached" in said[0]


@pytest.mark.parametrize("length", [b"Content-Length: 999999999", b"Transfer-Encoding: chunked", b"Connection: close"])
@pytest.mark.parametrize("drop", [b"1\r\nx\r\n", b"fff0\r\n" + b"x" * 0xFFF0 + b"\r\n"], ids=["drips", "pours"])
def test_a_body_without_an_end_does_not_change_the_answer(
    make_spool: Any, write: Write, until: Until, monkeypatch: pytest.MonkeyPatch, length: bytes, drop: bytes
) -> None:
    monkeypatch.setattr(webhook, "REST_S", 0.05)
    said: list[str] = []
    with _dripping(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n", drop) as service:
        sink = WebhookRecords(_settings(service.url), make_spool(), "run", say=said.append)
        with sink:
            for number in range(3):
                write(sink, number)
            until(lambda: sink.account().waiting == 0, "the sender is held by the body")
            counts = sink.account()
    assert len(service.keys) == len(set(service.keys)) == 3  # posted once each
    assert (counts.taken, counts.delivered, counts.lost, counts.failures) == (3, 3, 0, 0)
    assert not said


def test_a_refusal_with_a_body_without_an_end_is_still_a_refusal(
    make_spool: Any, write: Write, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "REST_S", 0.05)
    said: list[str] = []
    with _dripping(b"HTTP/1.1 422 No\r\nContent-Length: 999999\r\n\r\n", b"x") as service:
        sink = WebhookRecords(_settings(service.url), make_spool(), "run", say=said.append)
        with sink:
            write(sink, 0)
            until(lambda: sink.account().lost == 1)
    assert len(service.keys) == 3
    assert "it answers 422" in said[-1] or "it answers 422" in said[-2]


def test_all_addresses_of_a_host_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:  # bound, so that nobody else listens there
        closed.bind(("127.0.0.1", 0))
        host, port = closed.getsockname()
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))] * 7
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        waits: list[float | None] = []
        settimeout = socket.socket.settimeout
        monkeypatch.setattr(
            socket.socket, "settimeout", lambda self, wait: (waits.append(wait), settimeout(self, wait))[1]
        )
        limit = TimeLimit(clock_s=lambda: 100.0)
        limit.start(4.0)
        pool = limited_pool(f"http://many.example:{port}/", limit, ssl.create_default_context())
        with pytest.raises(urllib3.exceptions.NewConnectionError):
            pool.request("POST", "/", timeout=4.0, retries=False)
    assert waits == [pytest.approx(0.5)] * 7


@pytest.mark.parametrize("name", ["nobody.invalid", "a" * 70 + ".invalid"])
def test_a_name_that_leads_nowhere_is_a_failure_like_others(
    make_spool: Any, write: Write, until: Until, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    look_up = socket.getaddrinfo

    def nowhere(host: str, *rest: Any, **more: Any) -> Any:
        if host == "nobody.invalid":  # without asking a network
            raise socket.gaierror(-2, "Name or service not known")
        return look_up(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    said: list[str] = []
    with WebhookRecords(_settings(f"http://{name}/"), make_spool(), "run", say=said.append) as sink:
        write(sink, 0)
        until(lambda: sink.account().failures > 2)
    assert f"webhook http://{name}/: " in said[0]
    assert (sink.account().waiting, sink.account().lost) == (1, 0)


def test_a_time_limit_is_over_until_it_is_started_and_never_gets_longer() -> None:
    now_s = 10.0
    limit = TimeLimit(clock_s=lambda: now_s)
    assert limit.is_over
    limit.start(4.0)
    limit.shorten(9.0)
    assert limit.left_s() == pytest.approx(4.0)
    limit.shorten(1.0)
    assert limit.left_s() == pytest.approx(1.0)
    now_s = 11.0
    assert limit.is_over
    with pytest.raises(TimeoutError):
        limit.left_s()
