"""Records to a service that fails in every way: each arrives, or is set aside and counted."""

from __future__ import annotations

import base64
import email.utils
import json
import random
import ssl
import string
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webhook_service import Answer, Service

from edge_ad.errors import ConfigError
from edge_ad.runtime.sinks.settings import WebhookSettings
from edge_ad.runtime.sinks.webhook import WebhookRecords, _judge

Until = Callable[..., None]
Write = Callable[..., None]


def _settings(url: str | None, **more: Any) -> WebhookSettings:
    return WebhookSettings(url, **{"backoff_s": (0.001, 0.01), "timeout_s": 5.0, "attempts": 4, **more})


def _counts(sink: WebhookRecords) -> tuple[int, int, int, int]:
    counts = sink.account()
    assert counts.adds_up
    return counts.taken, counts.delivered, counts.lost, counts.waiting


def test_records_are_posted_once_each_in_order(service: Service, make_spool: Any, write: Write, until: Until) -> None:
    sink = WebhookRecords(_settings(service.url), make_spool(), "run")
    with sink:
        for number in range(50):
            write(sink, number)
    assert service.numbers() == list(range(50))
    assert _counts(sink) == (50, 50, 0, 0)
    assert service.headers[7]["Idempotency-Key"] == service.taken[7]["key"] == f"{'ab' * 8}/run/camera%3A0/7/1007"
    assert service.headers[7]["Content-Type"] == "application/json"


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_service_that_fails_at_random_gets_everything_in_order(
    service: Service, make_spool: Any, write: Write, until: Until, share: float
) -> None:
    rng = random.Random(5)
    kinds: list[Answer] = [500, 503, 429, 408, 404, "drop", (302, {"Location": "file:///etc/passwd"})]
    service.answer = lambda _: rng.choice(kinds) if rng.random() < share else 204
    said: list[str] = []
    sink = WebhookRecords(_settings(service.url, attempts=12), make_spool(), "run", say=said.append)
    with sink:
        for number in range(60):
            write(sink, number)
        until(lambda: sink.account().waiting == 0)
    assert sorted({body["key"] for body in service.taken}) == sorted(body["key"] for body in service.taken)
    assert sorted(service.numbers()) == list(range(60))
    assert _counts(sink) == (60, 60, 0, 0)
    assert sink.account().failures == len(service.tried) - 60
    assert said and "records wait on disk" in said[0]


@pytest.mark.parametrize(("answer", "tries"), [(400, 3), (422, 3), (500, 8), ("drop", 8)])
def test_a_record_that_is_never_taken_does_not_hold_up_the_others(
    service: Service, make_spool: Any, write: Write, until: Until, answer: Answer, tries: int
) -> None:
    service.answer = lambda body: answer if body["frame_id"] == 3 else 204
    said: list[str] = []
    spool = make_spool()
    sink = WebhookRecords(_settings(service.url), spool, "run", say=said.append)
    with sink:
        for number in range(20):
            write(sink, number)
        until(lambda: sink.account().waiting == 0)
        ((line, _),) = spool.aside()
    assert json.loads(line)["frame_id"] == 3
    assert service.numbers() == [number for number in range(20) if number != 3]
    assert _counts(sink) == (20, 19, 1, 0)
    # Four attempts, and three more after each of which a later record was taken; the fourth of these is its last.
    assert service.tried.count(3) in (tries - 1, tries)
    assert any("a record is lost" in line for line in said)


@pytest.mark.parametrize("answer", [500, 401, 404, (307, {"Location": "/elsewhere"}), "drop"])
def test_an_outage_loses_nothing_however_long_it_is(
    service: Service, make_spool: Any, write: Write, until: Until, answer: Answer
) -> None:
    service.answer = lambda _: answer
    said: list[str] = []
    sink = WebhookRecords(_settings(service.url), make_spool(), "run", say=said.append)
    with sink:
        for number in range(5):
            write(sink, number)
        until(lambda: len(service.tried) > 20)
        assert _counts(sink) == (5, 0, 0, 5)
        service.answer = lambda _: 204
        until(lambda: sink.account().waiting == 0)
    assert sorted(service.numbers()) == list(range(5))
    assert len(said) == 2 and "delivers again" in said[1]
    assert set(service.paths) == {"/verdicts"}  # no redirect is followed


def test_what_waits_goes_out_with_the_next_run(service: Service, make_spool: Any, write: Write, until: Until) -> None:
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket.connect", _refuse)
        first = WebhookRecords(_settings(service.url, flush_s=0), make_spool(), "first", say=said.append)
        with first:
            write(first, 0)
            until(lambda: said)
    assert "cannot be reached" in said[0] and said[-1].startswith("1 records wait in")
    second = WebhookRecords(_settings(service.url), make_spool(), "second")
    with second:
        write(second, 0)
        until(lambda: sum(_counts(second)[1:3]) == 2)
    assert [body["key"].split("/")[1] for body in service.taken] == ["first", "second"]


def _refuse(*_: object) -> None:
    raise ConnectionRefusedError(111, "refused")


def test_a_service_that_does_not_answer_blocks_nobody(make_spool: Any, write: Write, until: Until) -> None:
    import socket

    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        sink = WebhookRecords(_settings(url, timeout_s=0.05, flush_s=0), make_spool(), "run", say=said.append)
        with sink:
            for number in range(200):
                write(sink, number)  # returns though nobody answers
            until(lambda: said)
    assert "no answer within 0.05 s" in said[0]
    assert _counts(sink) == (200, 0, 0, 200)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_understood(status: int) -> None:
    assert _judge(status, "7").retry_after_s == 7
    moment = email.utils.formatdate(time.time() + 1000, usegmt=True)
    assert _judge(status, moment).retry_after_s == pytest.approx(1000, abs=30)
    for nonsense in ("soon", "", "7 minutes", "-5"):
        assert (_judge(status, nonsense).retry_after_s or 0) <= 0


def test_retry_after_is_told_by_the_clock_of_the_service() -> None:
    """Ours may be years behind: then each answer would be waited on for an hour."""
    date, later = "Wed, 21 Oct 2037 07:28:00 GMT", "Wed, 21 Oct 2037 07:28:30 GMT"
    assert _judge(503, later, date).retry_after_s == 30
    assert _judge(503, date, later).retry_after_s == -30  # has passed
    assert _judge(503, "7", date).retry_after_s == 7
    assert _judge(503, later, "some day").retry_after_s is None


def test_retry_after_is_kept_to(service: Service, make_spool: Any, write: Write, until: Until) -> None:
    waits: list[float] = []
    service.answer = lambda _: 204 if len(service.tried) > 1 else (429, {"Retry-After": "1234"})
    sink = WebhookRecords(_settings(service.url), make_spool(), "run")
    sink._pause = waits.append  # type: ignore[method-assign]
    with sink:
        write(sink, 0)
        until(lambda: sink.account().waiting == 0)
    assert waits == [1234.0]


def test_waits_grow_and_differ(make_spool: Any) -> None:
    sink = WebhookRecords(_settings("http://127.0.0.1:1/", backoff_s=(1, 60)), make_spool(), "run")
    waits = []
    for failures in range(1, 200):
        sink._in_a_row = failures
        waits.append(sink._wait_s(_judge(500, None)))
        assert min(60, 2 ** (failures - 1)) / 2 <= waits[-1] <= min(60, 2 ** (failures - 1))
    assert len(set(waits[20:])) > 100


def test_secrets_come_from_the_environment_and_are_never_said(
    service: Service, make_spool: Any, write: Write, until: Until
) -> None:
    url = f"http://user:pa%40ss@127.0.0.1:{service.port}/in/key=sesame?token=sesame"
    environment = {"HOOK_URL": url, "HOOK_TOKEN": "tok-sesame", "HOOK_KEY": "key-sesame"}
    said: list[str] = []
    service.answer = lambda _: 204 if len(service.tried) > 3 else "drop" if len(service.tried) > 1 else 403
    basic = WebhookRecords(
        _settings(None, url_env="HOOK_URL"), make_spool(), "run", say=said.append, environment=environment
    )
    with basic:
        write(basic, 0)
        until(lambda: basic.account().waiting == 0)
    assert service.paths[-1] == "/in/key=sesame?token=sesame"
    assert service.headers[-1]["Authorization"] == "Basic " + base64.b64encode(b"user:pa@ss").decode()
    bearer = _settings(service.url, token_env="HOOK_TOKEN", headers_env={"X-Key": "HOOK_KEY"})
    with WebhookRecords(bearer, make_spool("b"), "run", say=said.append, environment=environment) as sink:
        write(sink, 0)
        until(lambda: len(service.taken) == 2)
    assert (service.headers[-1]["Authorization"], service.headers[-1]["X-Key"]) == ("Bearer tok-sesame", "key-sesame")
    assert said and "sesame" not in "".join(said) and "pa%40ss" not in "".join(said)
    for changed, fault in (
        ({"HOOK_TOKEN": ""}, r"webhook\.token_env: the environment variable HOOK_TOKEN is not set"),
        ({"HOOK_KEY": "a\r\nb"}, "the value of the header X-Key is no printable ASCII"),
    ):
        with pytest.raises(ConfigError, match=fault):
            WebhookRecords(bearer, make_spool("c"), "run", environment={**environment, **changed})
    with pytest.raises(ConfigError, match="wanted an address that begins with") as refused:
        WebhookRecords(_settings(None, url_env="U"), make_spool("c"), "run", environment={"U": "file:///sesame"})
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("address", ["http://sesame_%zz/verdicts", "http://[v1.sesame]/", "https://u:p@sesame%-/"])
@pytest.mark.parametrize("key", ["webhook.url", "webhook.url_env"])
def test_an_address_that_cannot_be_read_is_a_fault_of_the_settings(make_spool: Any, address: str, key: str) -> None:
    chosen = _settings(None, url_env="U") if key.endswith("env") else _settings(address)
    with pytest.raises(ConfigError, match="wanted an address with a host") as refused:
        WebhookRecords(chosen, make_spool(), "run", environment={"U": address})
    assert str(refused.value).startswith(f"sinks: {key}: ") and "\n" not in str(refused.value)
    assert "sesame" not in str(refused.value) and refused.value.__cause__ is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rest=st.text(string.ascii_lowercase + string.punctuation, max_size=12))
def test_every_address_is_taken_or_is_a_fault_of_the_settings(make_spool: Any, rest: str) -> None:
    with suppress(ConfigError):
        WebhookRecords(_settings(None, url_env="U"), make_spool(), "run", environment={"U": f"http://a{rest}"})


def test_only_a_certificate_that_is_vouched_for_is_trusted(
    service: Service, tmp_path: Path, make_spool: Any, write: Write, until: Until
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    service.speak_tls(context)
    url = service.url.replace("http:", "https:")
    said: list[str] = []
    sink = WebhookRecords(_settings(url, flush_s=0), make_spool(), "run", say=said.append)
    with sink:
        write(sink, 0)
        until(lambda: said)
    assert "no trusted connection" in said[0]
    assert _counts(sink) == (1, 0, 0, 1)
    sink = WebhookRecords(_settings(url, ca_file=tmp_path / "ca.pem"), make_spool(), "run")
    with sink:
        until(lambda: service.numbers() == [0])
    with pytest.raises(ConfigError, match=r"webhook\.ca_file: cannot be read"):
        WebhookRecords(_settings(url, ca_file=tmp_path / "none.pem"), make_spool("b"), "run")
