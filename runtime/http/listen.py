"""The server of a line, put together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edge_ad.runtime.http.access import Access
from edge_ad.runtime.http.messages import Request, Response
from edge_ad.runtime.http.metrics import Metrics
from edge_ad.runtime.http.routes import Routes, is_slow
from edge_ad.runtime.http.server import HttpServer
from edge_ad.runtime.http.settings import HttpSettings
from edge_ad.runtime.line.run_view import RunView


@contextmanager
def listening(settings: HttpSettings, run_view: RunView) -> Iterator[HttpServer]:
    """Serve a station over HTTP while the block lasts.

    Raises: ConfigError for a token that is missing, or an address that cannot be listened on; UnavailableError where
        that may pass, as for a port that another program has; MissingExtraError.
    """
    token = settings.token()
    access, routes = Access(settings, token), Routes(run_view, Metrics(run_view))

    def answer(request: Request) -> Response:
        return access.refusal(request) or routes.answer(request)

    with HttpServer(settings, token, answer, proven=access.is_proven, slow=is_slow) as server:
        run_view.watch(server.conditions)
        yield server
