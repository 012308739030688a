"""Who may ask: requests that bear the token, and on loopback without one those that were meant for this machine."""

from __future__ import annotations

import hmac
import re

from edge_ad.runtime.host.loopback import is_loopback
from edge_ad.runtime.http.messages import Request, Response, refuse
from edge_ad.runtime.http.settings import HttpSettings

OPEN = frozenset({"/healthz"})
"""Paths that need no token: they say nothing but whether the process is alive."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]*)(?::[0-9]{1,5})?")


class Access:
    """Refuses what may not be asked. Args: token: that requests have to bear; None for none."""

    def __init__(self, settings: HttpSettings, token: bytes | None) -> None:
        self._only_local = settings.is_loopback
        self._token = token

    def refusal(self, request: Request) -> Response | None:
        """The answer to a request that is not let in, else None."""
        if self._only_local and not self._is_for_here(request):
            return refuse(421, "this server answers on loopback only; wanted the Host 127.0.0.1 or localhost")
        if self._token is not None and request.path not in OPEN and not self._bears_token(request):
            return refuse(401, "wanted 'Authorization: Bearer' with the token", {"WWW-Authenticate": "Bearer"})
        return None

    def is_proven(self, request: Request) -> bool:
        """Whether a request, of which the body may be missing, comes from somebody who may ask for more than `OPEN`."""
        return not (self._only_local and not self._is_for_here(request)) and (
            self._token is None or self._bears_token(request)
        )

    def _is_for_here(self, request: Request) -> bool:
        """Whether a name of this machine was asked for.

        A web page can point a name of its own at 127.0.0.1 and have the browser send requests here (DNS rebinding);
        the name still stands in their Host.
        """
        host = _HOST.fullmatch(request.headers.get("host", ""))
        return host is not None and is_loopback(host.group(1).strip("[]"))

    def _bears_token(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        assert self._token is not None
        borne = given.strip().encode("utf-8", "surrogateescape")
        return hmac.compare_digest(borne, self._token) and scheme.lower() == "bearer"
