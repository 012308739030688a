"""What a command that runs for months says on standard error: plain lines, or one JSON object for each."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_ad.cli.main import EXIT_INTERNAL
from edge_ad.cli.printable import say, shown
from edge_ad.errors import EdgeAdError, one_line
from edge_ad.record.timestamps import utc_text
from edge_ad.signals.supervisor import EXIT_INTERRUPTED, supervised, was_interrupted
from edge_ad.text import visible, without_credentials

if TYPE_CHECKING:
    from edge_ad.runtime.line.telemetry import Telemetry

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error", "critical")
FIELDS = ("camera", "frame_id", "exit_code", "counters")
"""What a message may carry besides (`extra` of the logging calls) and is written beside it."""

BURST, WINDOW_S = 5, 60.0  # messages of one kind in so many seconds; a broken part would fill the disk with its traces
MOST_KINDS = 1000
_PREFIXES = {"warning: ": logging.WARNING, "note: ": logging.INFO}


def log_options(function: F) -> F:
    """`--log-format` and `--log-level` of a command."""
    function = click.option(
        "--log-level", type=click.Choice(LEVELS), default="info", help="Least of what is said on standard error (info)."
    )(function)
    return click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        default="text",
        help="json: every line on standard error is a JSON object with time, level, logger and message.",
    )(function)


class Log:
    """What a command says. Attributes: is_json: whether all of it is JSON, and nothing else may be printed."""

    def __init__(self, command: str, *, is_json: bool) -> None:
        self.is_json = is_json
        self._logger = logging.getLogger(f"edge_ad.{command}")

    def say(self, line: str) -> None:
        """A line for the user; `warning: ` in front of it is its level."""
        prefix = next((prefix for prefix in _PREFIXES if line.startswith(prefix)), "")
        level = _PREFIXES.get(prefix, logging.INFO)
        if self.is_json:
            self._logger.log(level, "%s", line[len(prefix) :])
        elif self._logger.isEnabledFor(level):
            say(line)

    def counters(self, telemetry: Telemetry) -> None:
        """The figures of a run, as one message."""
        counts = telemetry.counters.snapshot()
        stages = {
            row.stage: {key: round(value, 3) for key, value in asdict(row).items() if key != "stage"}
            for row in telemetry.stages()
        }
        fields = {**asdict(counts), "verdicts": dict(telemetry.verdicts), "stages": stages}
        self._logger.info("%d frames captured", counts.captured, extra={"counters": fields})


@contextmanager
def logging_to_stderr(command: str, log_format: str, log_level: str) -> Iterator[Log]:
    """Send what `edge_ad` and the libraries log to standard error while the command runs, each message once.

    In JSON, what ends the command is a line like the others, and leaves as an exit code. Libraries are heard through
    the root logger: without a handler there, Python prints their warnings as they are, and the first that calls
    `logging.warning` would hang a handler of Python's own there, which prints every later message once more.
    """
    is_json = log_format == "json"
    with_traces = log_level == "debug" or bool(os.environ.get("EDGE_AD_TRACEBACK"))
    handler = logging.NullHandler() if sys.stderr is None else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter(with_traces=with_traces))
    handler.addFilter(Limited())
    handler.setLevel(log_level.upper())  # of libraries too
    root, logger = logging.getLogger(), logging.getLogger("edge_ad")
    before = logger.level
    root.addHandler(handler)
    logger.setLevel(log_level.upper())
    try:
        if not is_json:
            yield Log(command, is_json=False)
            return
        logging.captureWarnings(True)
        try:
            with _failures_as_lines(logger):
                yield Log(command, is_json=True)
        finally:
            logging.captureWarnings(False)
    finally:
        root.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def _failures_as_lines(logger: logging.Logger) -> Iterator[None]:
    def interrupted() -> None:
        logger.critical("interrupted", extra={"exit_code": EXIT_INTERRUPTED})

    try:
        with supervised() as supervisor, nullcontext() if supervisor is None else supervisor.saying(interrupted):
            yield
    except KeyboardInterrupt as exc:
        interrupted()
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from exc
    except click.exceptions.Exit:
        raise
    except Exception as exc:
        if was_interrupted():
            interrupted()
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from exc
        if isinstance(exc, EdgeAdError):
            logger.critical("%s", " ".join(str(exc).split()), extra={"exit_code": exc.exit_code})
            raise click.exceptions.Exit(exc.exit_code) from exc
        if isinstance(exc, (OSError, click.ClickException)):
            raise  # the front door knows what to do with a closed pipe
        logger.critical("internal error, a defect in edge-ad", exc_info=exc, extra={"exit_code": EXIT_INTERNAL})
        raise click.exceptions.Exit(EXIT_INTERNAL) from exc


class JsonFormatter(logging.Formatter):
    """One JSON object, ASCII, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": shown(record.getMessage()),
        }
        entry |= {field: getattr(record, field) for field in FIELDS if hasattr(record, field)}
        if record.exc_info and record.exc_info[1] is not None:
            entry["exception"] = _named(record.exc_info[1])
            entry["trace"] = without_credentials(self.formatException(record.exc_info))
        return visible(json.dumps(entry, default=str))


class TextFormatter(logging.Formatter):
    """One line for people. Args: with_traces: whether an exception's trace follows it."""

    def __init__(self, *, with_traces: bool) -> None:
        super().__init__()
        self._with_traces = with_traces

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_utc(record)} {record.levelname.lower()}: {record.name}: {' '.join(record.getMessage().split())}"
        if record.exc_info and record.exc_info[1] is not None:
            line += f" ({_named(record.exc_info[1])})"
            if self._with_traces:
                line = "\n".join([line, *self.formatException(record.exc_info).splitlines()])
        return "\n".join(map(shown, line.split("\n")))


class Limited(logging.Filter):
    """Lets `BURST` messages of one kind through in `WINDOW_S` seconds, and says later how many were left out.

    A kind is what the code says, with the type of its exception: there are only so many.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._kinds: dict[tuple[str, int, str, type[BaseException] | None], list[float]] = {}  # since, seen, left out

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or record.msg == "%s":
            return True
        error = record.exc_info[0] if record.exc_info else None
        if len(self._kinds) > MOST_KINDS:  # somebody formats before logging
            self._kinds.clear()
        kind = self._kinds.setdefault((record.name, record.levelno, str(record.msg), error), [self._now_s(), 0, 0])
        if self._now_s() - kind[0] >= WINDOW_S:
            if kind[2]:
                record.msg = f"{record.msg} ({kind[2]:.0f} more like this were left out)"
            kind[:] = [self._now_s(), 0, 0]
        kind[1] += 1
        if kind[1] <= BURST:
            return True
        kind[2] += 1
        return False


def _named(exc: BaseException) -> str:
    text = shown(one_line(exc))
    return type(exc).__name__ if text == type(exc).__name__ else f"{type(exc).__name__}: {text}"


def _utc(record: logging.LogRecord) -> str:
    return utc_text(datetime.fromtimestamp(record.created, timezone.utc))
