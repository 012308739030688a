"""Records to an HTTP service, one POST each, from a spool on disk."""

from __future__ import annotations

import base64
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from edge_ad.errors import ConfigError, MissingExtraError, one_line
from edge_ad.runtime.host.environment import secret
from edge_ad.runtime.host.health import Condition
from edge_ad.runtime.host.loopback import is_loopback
from edge_ad.runtime.sinks.settings import WebhookSettings, is_web_address
from edge_ad.runtime.sinks.spool import Spool
from edge_ad.runtime.sinks.spooled import SpooledSink
from edge_ad.runtime.sinks.time_limit import TimeLimit, limited_pool
from edge_ad.text import without_secrets

if TYPE_CHECKING:
    import urllib3

REFUSED_ATTEMPTS = 3
REFUSALS = frozenset({400, 409, 413, 415, 422, 431})  # of this record; other answers are of any
LONGEST_RETRY_AFTER_S = 3600.0
REST_BYTES, REST_S = 16 << 10, 1.0  # of an answer behind its headers; with more the connection is not used again


@dataclass(frozen=True)
class _Answer:
    """Attributes: outcome: `taken`; `refused`, this record; `failed`, for any other reason."""

    outcome: Literal["taken", "refused", "failed"]
    reason: str = ""
    retry_after_s: float | None = None


class WebhookRecords(SpooledSink):
    """Posts each record as JSON until the service answers with a 2xx; oldest first, with `Idempotency-Key`.

    All of a post, up to the headers of the answer, has to be done within `timeout_s`; what comes behind them is not
    waited for. A record that fails is posted again after a growing wait, or when `Retry-After` says; redirects are not
    followed and are failures. Two kinds of records are set aside and counted as lost, so that they do not hold up the
    others:

    * refused (400, 409, 413, 415, 422, 431) three times;
    * failed `attempts` times, and then as often again while records behind it were taken.

    Raises: MissingExtraError; ConfigError for variables that are not set, an address that is none, or certificates that
    cannot be read.
    """

    def __init__(
        self,
        settings: WebhookSettings,
        spool: Spool,
        run_id: str,
        *,
        say: Callable[[str], None] = lambda _: None,
        environment: Mapping[str, str] = os.environ,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(spool, run_id, which=settings.which, flush_s=settings.flush_s, say=say, now_s=now_s)
        self._settings = settings
        self._url = settings.url or secret(str(settings.url_env), "webhook.url_env", environment)
        if not is_web_address(self._url):
            raise ConfigError("sinks", ["webhook.url_env: wanted an address that begins with http:// or https://"])
        self._shown = without_secrets(self._url) if settings.url else _host_of(self._url)
        self._headers = _headers(settings, self._url, environment)
        self._limit = TimeLimit()
        self._pool = _pool(settings, self._url, self._limit)
        self._strikes: Counter[int] = Counter()  # attempts that failed, by number in the spool
        self._suspicions: Counter[int] = Counter()  # those after which a later record was taken
        self._in_a_row = 0
        self._trouble: str | None = None  # why the service takes nothing at the moment
        self._random = random.Random()

    def _begin(self) -> None:
        parts = urlsplit(self._url)
        has_secret = (
            "Authorization" in self._headers or bool(self._settings.headers_env) or bool(self._settings.url_env)
        )
        if parts.scheme == "http" and has_secret and not is_loopback(parts.hostname or ""):
            self._tell(f"warning: the secrets for webhook {self._shown} can be read on their way; take https")

    def _send(self) -> None:
        while not self._end.is_set():
            lines = self._spool.read(limit=2)
            if not lines:
                return
            number = lines[0][0]
            answer = self._try(*lines[0])
            if answer.outcome == "taken":
                self._in_a_row, self._trouble = 0, None
                self._is_up()
                continue
            worn_out = self._strikes[number] >= self._settings.attempts
            if answer.outcome == "refused" and self._strikes[number] >= REFUSED_ATTEMPTS:
                self._set_aside(number, answer.reason)
                continue
            if worn_out and len(lines) > 1 and self._try(*lines[1]).outcome == "taken":
                self._in_a_row = 0  # it is the record, not the service; or the service has its moods
                self._suspicions[number] += 1
                if self._suspicions[number] >= self._settings.attempts:
                    self._set_aside(number, answer.reason)
                    continue
            self._in_a_row += 1
            self._trouble = answer.reason
            self._is_down(f"webhook {self._shown}: {answer.reason}")
            self._pause(self._wait_s(answer))

    def conditions(self) -> Iterator[Condition]:
        yield from super().conditions()
        if self._trouble is not None and self.is_in_use:
            yield Condition(f"webhook: {self._trouble}", "noted")

    def _set_aside(self, number: int, reason: str) -> None:
        self._spool.refuse(number, reason)
        self._forget(number)
        self._tell(f"warning: webhook {self._shown}: a record is lost: {reason}; it lies in {self._spool.path}, aside")

    def _forget(self, number: int) -> None:
        self._strikes.pop(number, None)
        self._suspicions.pop(number, None)

    def _try(self, number: int, line: str) -> _Answer:
        """Post one line, and note in the spool what came of it. Raises: OutputError."""
        answer = self._post(line)
        if answer.outcome == "taken":
            self._spool.delivered([number])
            self._forget(number)
        else:
            self._spool.failed()
            self._strikes[number] += 1
        return answer

    def _post(self, line: str) -> _Answer:
        import urllib3

        key = json.loads(line).get("key", "")
        self._limit.start(self._settings.timeout_s)
        try:
            response = self._pool.request(
                "POST",
                urllib3.util.parse_url(self._url).request_uri,
                body=line.encode("ascii"),
                headers={**self._headers, "Idempotency-Key": str(key)},
                timeout=urllib3.Timeout(total=self._settings.timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except urllib3.exceptions.HTTPError as exc:
            return _Answer("failed", self._said(exc))
        self._leave(response)
        return _judge(response.status, response.headers.get("Retry-After"), response.headers.get("Date"))

    def _leave(self, response: urllib3.BaseHTTPResponse) -> None:
        """Take the rest of an answer off its connection; close that where the rest is long, or does not come soon."""
        import urllib3

        self._limit.shorten(REST_S)
        is_read = False
        try:
            response.read(REST_BYTES, decode_content=False)
            is_read = response.length_remaining == 0
        except urllib3.exceptions.HTTPError:
            pass  # the status has been said
        finally:
            if is_read:
                response.release_conn()
            else:
                response.close()

    def _said(self, exc: Exception) -> str:
        """A failure in our words: those of the library may repeat the address."""
        import urllib3

        if isinstance(exc, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)):
            return "cannot be reached"  # which may be known before `timeout_s` is over
        if isinstance(exc, urllib3.exceptions.TimeoutError) or self._limit.is_over:
            return f"no answer within {self._settings.timeout_s:g} s"
        if isinstance(exc, urllib3.exceptions.SSLError):
            return f"no trusted connection: {one_line(exc)}"
        return f"the connection broke ({type(exc).__name__})"

    def _wait_s(self, answer: _Answer) -> float:
        """Doubles from failure to failure; drawn between half of that and all of it, so that stations do not agree."""
        shortest_s, longest_s = self._settings.backoff_s
        wait_s: float = min(longest_s, shortest_s * 2 ** min(self._in_a_row - 1, 40)) * self._random.uniform(0.5, 1.0)
        return max(wait_s, min(answer.retry_after_s or 0.0, LONGEST_RETRY_AFTER_S))

    def _finish(self) -> None:
        self._pool.close()


def _host_of(url: str) -> str:
    """An address that is a secret as a whole: the path may be what lets one in."""
    parts = urlsplit(url)
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{parts.hostname}{port}/***"


def _judge(status: int, retry_after: str | None, date: str | None = None) -> _Answer:
    reason = f"it answers {status}"
    if 200 <= status < 300:
        return _Answer("taken")
    if status in REFUSALS:
        return _Answer("refused", reason)
    hint = " (redirects are not followed)" if 300 <= status < 400 else ""
    return _Answer("failed", reason + hint, _retry_after_s(retry_after, date))


def _retry_after_s(wanted: str | None, date: str | None) -> float | None:
    """How long a service wants to be left alone. Where it names a time, its own clock tells what time it is."""
    import urllib3

    if wanted is None:
        return None
    try:
        if date is not None and not wanted.strip().isdigit():
            return (parsedate_to_datetime(wanted) - parsedate_to_datetime(date)).total_seconds()
        return urllib3.Retry().parse_retry_after(wanted)
    except (urllib3.exceptions.InvalidHeader, ValueError, TypeError, OverflowError):
        return None


def _headers(settings: WebhookSettings, url: str, environment: Mapping[str, str]) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "User-Agent": "edge-ad"}
    parts = urlsplit(url)
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(credentials).decode('ascii')}"
    for name, variable in settings.headers_env.items():
        headers[name] = secret(variable, f"webhook.headers_env.{name}", environment)
    if settings.token_env is not None:
        headers["Authorization"] = f"Bearer {secret(settings.token_env, 'webhook.token_env', environment)}"
    bad = [name for name, value in headers.items() if not value.isascii() or not value.isprintable()]
    if bad:
        raise ConfigError("sinks", [f"webhook: the value of the header {name} is no printable ASCII" for name in bad])
    return headers


def _pool(settings: WebhookSettings, url: str, limit: TimeLimit) -> urllib3.HTTPConnectionPool:
    import ssl

    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ValueError) as exc:
        raise ConfigError("sinks", [f"webhook.ca_file: cannot be read: {one_line(exc)}"]) from exc
    try:
        return limited_pool(url, limit, context)
    except ImportError as exc:
        raise MissingExtraError("a webhook", "urllib3", "webhook") from exc
    except ValueError:  # repeats the address, which may be a secret
        key = "webhook.url" if settings.url else "webhook.url_env"
        wanted = "wanted an address with a host that can be looked up, as in https://mes.plant/verdicts"
        raise ConfigError("sinks", [f"{key}: {wanted}"]) from None
