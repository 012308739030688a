"""Text of others: nothing of it steers a terminal, no address in it holds a secret, and all else is as it was."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.text import visible, visible_lines, without_credentials, without_secrets

# The whole range, with what matters in the foreground.
ODD = st.sampled_from("\x00\x07\b\t\n\v\f\r\x1b\x7f\x85\x9b\xad\u061c\u200b\u200e\u200f\u2028\u2029\u202e\u2066\ufeff")
LONE = st.integers(0xD800, 0xDFFF).map(chr)
TEXT = st.lists(st.one_of(st.characters(), ODD, LONE, st.sampled_from(["\\u001b", "[0m", "é", "検査"]))).map("".join)


def steers(character: str) -> bool:
    """By Unicode's own account: controls, lone surrogates, separators of lines, marks of direction."""
    directed = unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or directed or character in "\u200e\u200f\u061c"


def same(one: str, other: str) -> bool:
    """JSON takes two surrogates that fit for one character."""
    return one.encode("utf-16", "surrogatepass") == other.encode("utf-16", "surrogatepass")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(TEXT)
def test_nothing_that_steers_is_left_and_all_else_is_as_it_was(text: str) -> None:
    shown = visible(text)
    assert not any(map(steers, shown))
    shown.encode("utf-8")
    assert visible(shown) == shown
    if '"' not in text and "\\" not in text:
        assert same(json.loads(f'"{shown}"'), text)
    assert visible_lines(text).replace("\n", "\\u000a").replace("\t", "\\u0009") == shown
    if not any(map(steers, text)) and text.isprintable():
        assert shown == text


@settings(max_examples=100, deadline=None, derandomize=True)
@given(TEXT)
def test_json_stays_json(text: str) -> None:
    for ascii_only in (False, True):
        assert same(json.loads(visible(json.dumps([text], ensure_ascii=ascii_only)))[0], text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;SEEN\x07", "\\u001b]0;SEEN\\u0007"),
        ("a\nb", "a\\u000ab"),
        ("\x9b31m", "\\u009b31m"),
        ("\udcff.png", "\\udcff.png"),
        ("exe\u202egnp.", "exe\\u202egnp."),
        ("\U000e0041", "\\udb40\\udc41"),
        ("Prüfling 検査 ✓ 👍", "Prüfling 検査 ✓ 👍"),
    ],
)
def test_what_is_seen(text: str, shown: str) -> None:
    assert visible(text) == shown


SECRET = st.text(st.characters(codec="ascii", exclude_characters=" \"'<>/?#\\", categories=("L", "N", "P")), min_size=1)
PLAIN = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
BEFORE = st.sampled_from(["", "cannot open ", "GET ", "[rtsp @ 0x55] ", "('", '"'])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(BEFORE, st.sampled_from(["rtsp", "HTTPS", "mqtt", "udp"]), PLAIN, SECRET, PLAIN)
def test_a_message_about_an_address_shows_no_password(
    before: str, scheme: str, user: str, secret: str, path: str
) -> None:
    marked = f"<<{secret}>>".replace("<", "S3C").replace(">", "R3T")
    for at in ("@", "%40"):
        said = without_credentials(f"{before}{scheme}://{user}:{marked}{at}host:554/{path}: Connection refused")
        assert marked not in said and said.endswith(f"host:554/{path}: Connection refused")


@pytest.mark.parametrize(
    "text",
    [
        "url /hook?user=a&password=S3CRET&x=1",
        "url /hook?api_key=S3CRET",
        "?Token%3DS3CRET",
        'rtspsrc user-pw="two S3CRET words" ! x',
        "rtspsrc user-pw='S3CRET' ! x",
        "Authorization: Bearer S3CRET",
        "{'Authorization': 'Basic S3CRET'}",
        "rtsp://a:b@c:S3CRET@host/x",
    ],
)
def test_a_message_shows_no_secret(text: str) -> None:
    assert "S3CRET" not in without_credentials(text)


@pytest.mark.parametrize(
    "text",
    [
        "wanted 'Authorization: Bearer' with the token",
        "http://127.0.0.1:9464/metrics?name=x",
        "mail a@b.example about rtsp://host/x",
        "--http-token-env LINE_TOKEN, password_env: MQTT_PASSWORD",
        "/srv/a@b/1.png",
    ],
)
def test_control_all_else_is_shown(text: str) -> None:
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://host/user%3Dadmin_password%3DS3CRET/x", "rtsp://host/***/x"),
        ("rtsp://host/user%253Dadmin_password%253DS3CRET/x", "rtsp://host/***/x"),
        ("rtsp://user%3AS3CRET%40host/x", "rtsp://***"),
        ("rtsp://host/a;token=S3CRET", "rtsp://host/***"),
        ("user:S3CRET%40host", "***@host"),
    ],
)
def test_percent_signs_hide_no_secret(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown
