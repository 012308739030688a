"""Who is let in, and what is answered, without a socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import ConfigError
from edge_ad.runtime.host.health import Condition
from edge_ad.runtime.host.loopback import is_loopback
from edge_ad.runtime.http.access import Access
from edge_ad.runtime.http.messages import Request
from edge_ad.runtime.http.routes import Routes
from edge_ad.runtime.http.settings import HttpSettings
from edge_ad.runtime.line.run_view import ENDED, STARTING, RunView

JSON = {"content-type": "application/json"}
PATHS = ("/healthz", "/readyz", "/metrics", "/thresholds", "/thresholds/reload", "/trigger/door")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("localhost", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("127.1", False),
        ("2130706433", False),
        ("", False),
    ],
)
def test_what_is_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local
    if host:
        assert bool(list(HttpSettings(host).contradictions())) is not local
        assert list(HttpSettings(host, token_env="LINE_TOKEN").contradictions()) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "holds no variable LINE_TOKEN"), ("", "holds no variable"), ("two words", "no token"), ("ü", "no token")],
)
def test_a_token_that_is_none(value: str | None, words: str) -> None:
    environment = {} if value is None else {"LINE_TOKEN": value}
    with pytest.raises(ConfigError, match=words) as caught:
        HttpSettings(token_env="LINE_TOKEN").token(environment)
    assert not value or value not in str(caught.value)


def test_the_token_comes_from_the_environment() -> None:
    assert HttpSettings(token_env="LINE_TOKEN").token({"LINE_TOKEN": "s3cret"}) == b"s3cret"
    assert HttpSettings().token({"LINE_TOKEN": "s3cret"}) is None


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "s3cret"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer s3cre"},
        {"authorization": "Bearer s3cret2"},
        {"authorization": "Basic s3cret"},
        {"authorization": "Bearer s3cret,Bearer s3cret"},
        {"authorization": "Bearer \udcff"},
    ],
)
def test_without_the_token_nothing_but_the_health_is_told(path: str, headers: dict[str, str]) -> None:
    access = Access(HttpSettings("0.0.0.0", token_env="T"), b"s3cret")
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        refusal = access.refusal(Request(method, path, headers))
        if path == "/healthz":
            assert refusal is None
        else:
            assert refusal is not None and refusal.status == 401
            assert refusal.headers["WWW-Authenticate"] == "Bearer"
            assert b"s3cret" not in refusal.body


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_with_the_token_all_is_open(scheme: str) -> None:
    for settings_ in (HttpSettings("0.0.0.0", token_env="T"), HttpSettings("127.0.0.1", token_env="T")):
        headers = {"authorization": f"{scheme} s3cret", "host": "localhost"}
        assert all(Access(settings_, b"s3cret").refusal(Request("GET", path, headers)) is None for path in PATHS)


@pytest.mark.parametrize(
    ("host", "let_in"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:9464", True),
        ("localhost:80", True),
        ("[::1]:9464", True),
        ("[::1]", True),
        ("evil.example", False),
        ("evil.example:9464", False),
        ("127.0.0.1.evil.example", False),
        ("localhost,evil.example", False),
        ("evil@localhost", False),
        ("0.0.0.0", False),
        ("", False),
        (None, False),
        ("127.0.0.1:port", False),
    ],
)
def test_a_name_that_a_web_page_points_here_is_refused(host: str | None, let_in: bool) -> None:
    access = Access(HttpSettings("127.0.0.1"), None)
    headers = {} if host is None else {"host": host}
    for path in PATHS:
        refusal = access.refusal(Request("GET", path, headers))
        assert (refusal is None) is let_in
        assert let_in or (refusal is not None and refusal.status == 421)


def routes() -> tuple[Routes, RunView]:
    run_view = RunView()
    return Routes(run_view, lambda: (b"figures 1\n", "text/plain; version=0.0.4")), run_view


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/", 404, None),
        ("GET", "/healthz/", 404, None),
        ("GET", "/../etc/passwd", 404, None),
        ("POST", "/trigger/", 404, None),
        ("POST", "/healthz", 405, "GET, HEAD"),
        ("GET", "/trigger/door", 405, "POST"),
        ("OPTIONS", "/trigger/door", 405, "POST"),
        ("TRACE", "/metrics", 405, "GET, HEAD"),
        ("DELETE", "/thresholds", 405, "GET, PUT, HEAD"),
        ("BREW", "/readyz", 405, "GET, HEAD"),
        ("HEAD", "/healthz", 200, None),
        ("GET", "/metrics", 200, None),
    ],
)
def test_paths_and_methods(method: str, path: str, status: int, allow: str | None) -> None:
    answer = routes()[0].answer(Request(method, path, JSON))
    assert (answer.status, answer.headers.get("Allow")) == (status, allow)
    assert not any(name.lower().startswith("access-control") for name in answer.headers)


def test_a_thread_that_has_ended_is_ill_and_not_ready() -> None:
    fault = "the thread edge-ad-infer has ended"

    class Ill(RunView):
        def ill(self) -> list[str]:
            return [fault]

        def unready(self) -> list[str]:
            return [fault]

    for path in ("/healthz", "/readyz"):
        answer = Routes(Ill(), lambda: (b"", "text/plain")).answer(Request("GET", path))
        assert (answer.status, json.loads(answer.body)["reasons"]) == (503, [fault])


def test_a_sink_in_trouble_is_a_warning_and_what_it_is_needs_a_token() -> None:
    class Troubled(RunView):
        def troubles(self) -> dict[str, str]:
            return {"SqliteRecords": "/data/line1/verdicts.sqlite: database is locked"}

        def unready(self) -> list[str]:
            return []

    door = Routes(Troubled(), lambda: (b"", "text/plain"))
    health, ready = (json.loads(door.answer(Request("GET", path)).body) for path in ("/healthz", "/readyz"))
    assert health == {"status": "ok", "reasons": [], "warnings": ["sink SqliteRecords is in trouble"]}
    assert ready["warnings"] == ["sink SqliteRecords: /data/line1/verdicts.sqlite: database is locked"]


def test_what_a_new_start_would_not_mend_is_noted_and_no_reason_for_one() -> None:
    door, run_view = routes()
    run_view.watch(lambda: [Condition("MQTT records: the broker has a certificate that is not trusted", "noted")])
    answer = door.answer(Request("GET", "/healthz"))
    notes = ["MQTT records: the broker has a certificate that is not trusted"]
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok", "reasons": [], "warnings": notes})


def test_before_and_after_the_line() -> None:
    door, run_view = routes()
    for reason in (STARTING, ENDED):
        assert door.answer(Request("GET", "/healthz")).status == 200
        ready = door.answer(Request("GET", "/readyz"))
        assert (ready.status, json.loads(ready.body)["reasons"]) == (503, [reason])
        for request in (
            Request("POST", "/trigger/door", JSON, b'{"part_id": "1"}'),
            Request("GET", "/thresholds"),
            Request("PUT", "/thresholds", JSON, b'{"door": 1}'),
            Request("POST", "/thresholds/reload", JSON),
        ):
            answer = door.answer(request)
            assert (answer.status, json.loads(answer.body)) == (503, {"error": reason})
        run_view.close()


@pytest.mark.parametrize(
    "ask", [RunView.ill, RunView.unready, RunView.thresholds, lambda run_view: run_view.fire("door", "1")]
)
def test_a_line_that_ends_while_it_is_asked(ask: Callable[[RunView], object]) -> None:
    """It is gone between two looks at it, which must not be an internal error."""

    class Ending(RunView):
        looks = 0

        @property
        def work(self) -> Any:
            self.looks += 1
            return MagicMock() if self.looks == 1 else None

        @work.setter
        def work(self, work: object) -> None: ...

    ask(Ending())


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_what_a_web_page_may_send_without_leave_changes_nothing(content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    for method, path in (("POST", "/trigger/door"), ("PUT", "/thresholds"), ("POST", "/thresholds/reload")):
        assert routes()[0].answer(Request(method, path, headers, b'{"part_id": "1"}')).status == 415
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert routes()[0].answer(Request("POST", "/trigger/door", headers)).status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"{}",
        b'{"part_id": 1}{',
        b'{"part": "1"}',
        b"\xff",
        b"[" * 16000,
        b"NaN",
        b'{"part_id": "1", "x": 2}',
        b'{"part_id": "1", "part_id": "2"}',
    ],
)
def test_a_body_that_is_no_trigger(body: bytes) -> None:
    answer = routes()[0].answer(Request("POST", "/trigger/door", JSON, body))
    assert answer.status == 400
    assert "error" in json.loads(answer.body)


BODIES = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda kids: st.lists(kids, max_size=3) | st.dictionaries(st.text(max_size=5), kids, max_size=3),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", ""]) | st.text(max_size=6),
    path=st.sampled_from(PATHS) | st.text(max_size=20).map("/trigger/".__add__) | st.text(max_size=12),
    headers=st.dictionaries(
        st.sampled_from(["host", "authorization", "content-type", "x"]),
        st.sampled_from(["localhost", "Bearer s3cret", "application/json"]) | st.text(max_size=12),
    ),
    body=BODIES,
    token=st.booleans(),
)
def test_whatever_is_asked_there_is_an_answer(
    method: str, path: str, headers: dict[str, str], body: bytes, token: bool
) -> None:
    request = Request(method, path, headers, body)
    access = Access(HttpSettings("127.0.0.1", token_env="T"), b"s3cret" if token else None)
    answer: Any = access.refusal(request) or routes()[0].answer(request)
    assert 200 <= answer.status < 600 and answer.status != 500
    if path != "/metrics" or answer.status != 200:
        json.loads(answer.body)
