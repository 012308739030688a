"""What the server answers. Every path does one thing; there is no file, no folder and no page behind any of them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from edge_ad.errors import ConfigError, EdgeAdError
from edge_ad.runtime.http.messages import JSON, Request, Response, answer_json, refuse
from edge_ad.runtime.line.run_view import RunView
from edge_ad.runtime.line.scheduling.trigger import Fired

log = logging.getLogger(__name__)

TRIGGER = "/trigger/"
RELOAD = "/thresholds/reload"
_STATUS = {
    Fired.ACCEPTED: 202,
    Fired.UNKNOWN: 404,
    Fired.NOT_BY_SOFTWARE: 409,
    Fired.BAD_PART_ID: 400,
    Fired.FULL: 429,
    Fired.ENDED: 503,
}


class Routes:
    """Answers requests that were let in. Args: metrics: gives the text of `/metrics` and its content type."""

    def __init__(self, run_view: RunView, metrics: Callable[[], tuple[bytes, str]]) -> None:
        self._run_view = run_view
        self._metrics = metrics
        self._paths: dict[str, dict[str, Callable[[Request], Response]]] = {
            "/healthz": {"GET": self._healthz},
            "/readyz": {"GET": self._readyz},
            "/metrics": {"GET": self._scrape},
            "/thresholds": {"GET": self._thresholds, "PUT": self._change},
            RELOAD: {"POST": self._reload},
        }

    def answer(self, request: Request) -> Response:
        """Never raises on account of what was asked."""
        if request.path.startswith(TRIGGER) and len(request.path) > len(TRIGGER):
            methods: dict[str, Callable[[Request], Response]] = {"POST": self._fire}
        elif request.path in self._paths:
            methods = self._paths[request.path]
        else:
            return refuse(404, "there is no such path")
        method = "GET" if request.method == "HEAD" else request.method
        if method not in methods:
            allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
            return refuse(405, f"wanted {allowed}", {"Allow": allowed})
        if method != "GET" and not _is_json(request):
            # A web page may send other types here without asking the browser's leave; JSON it may not.
            return refuse(415, f"wanted the Content-Type {JSON}")
        return methods[method](request)

    def _healthz(self, request: Request) -> Response:
        faults = self._run_view.ill()
        # Without what is wrong with files, which their paths stand in: no token is asked for here.
        warnings = [f"sink {name} is in trouble" for name in self._run_view.troubles()]
        return _condition(faults, "ill" if faults else "ok", [*warnings, *self._run_view.noted()])

    def _readyz(self, request: Request) -> Response:
        faults = self._run_view.unready()
        warnings = [f"sink {name}: {trouble}" for name, trouble in self._run_view.troubles().items()]
        warnings += [line for line in self._run_view.noted() if line not in faults]
        return _condition(faults, "not ready" if faults else "ready", warnings)

    def _scrape(self, request: Request) -> Response:
        body, content_type = self._metrics()
        return Response(200, body, content_type)

    def _fire(self, request: Request) -> Response:
        try:
            value = _parsed(request.body)
        except ValueError as exc:
            return refuse(400, str(exc))
        if not isinstance(value, dict) or set(value) != {"part_id"}:
            return refuse(400, 'wanted {"part_id": "..."} and nothing else')
        camera = request.path[len(TRIGGER) :]
        outcome = self._run_view.fire(camera, value["part_id"])
        if outcome is None:
            return refuse(503, self._run_view.idle)
        if not outcome:
            return refuse(_STATUS[outcome], outcome.value)
        return answer_json(202, {"camera": camera, "part_id": value["part_id"]})

    def _thresholds(self, request: Request) -> Response:
        in_use = self._run_view.thresholds()
        if in_use is None:
            return refuse(503, self._run_view.idle)
        cameras = {name: {"threshold": use.thresholds.image, "from": use.origin} for name, use in in_use.items()}
        return answer_json(200, {"cameras": cameras})

    def _change(self, request: Request) -> Response:
        work = self._run_view.work
        if work is None:
            return refuse(503, self._run_view.idle)
        try:
            scores = _scores(_parsed(request.body))
            work.line.thresholds.change(scores)
            log.info("thresholds changed by request: %s", scores)
        except ValueError as exc:
            return refuse(400, str(exc))
        except ConfigError as exc:
            return refuse(400, "; ".join(exc.faults))
        return self._thresholds(request)

    def _reload(self, request: Request) -> Response:
        work = self._run_view.work
        if work is None:
            return refuse(503, self._run_view.idle)
        try:
            work.reload()
        except EdgeAdError as exc:
            return refuse(409, str(exc))
        return self._thresholds(request)


def _condition(faults: list[str], status: str, warnings: list[str]) -> Response:
    more = {"warnings": warnings} if warnings else {}
    return answer_json(503 if faults else 200, {"status": status, "reasons": faults, **more})


def is_slow(request: Request) -> bool:
    """Whether the answer takes a while, because files are read for it."""
    return request.path == RELOAD


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").split(";")[0].strip().lower() == JSON


def _parsed(body: bytes) -> Any:
    """Strict JSON: no key twice, no NaN. Raises: ValueError with one line that says what was wanted."""

    def no_constant(name: str) -> Any:
        raise ValueError(name)

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key is given twice")
        return dict(pairs)

    try:
        return json.loads(body, parse_constant=no_constant, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as exc:
        raise ValueError("the body is no JSON") from exc


def _scores(value: Any) -> Mapping[str, float | None]:
    wanted = 'wanted {"CAMERA": SCORE, ...} with finite numbers, or null for what settings and bundle say'
    if not isinstance(value, dict) or not value:
        raise ValueError(wanted)
    for score in value.values():
        if score is not None and (isinstance(score, bool) or not isinstance(score, (int, float))):
            raise ValueError(wanted)
        if score is not None and not (abs(score) < 1e300 and math.isfinite(score)):
            raise ValueError(wanted)
    return {name: None if score is None else float(score) for name, score in value.items()}
