"""What `run` says on standard error, as text and as JSON."""

from __future__ import annotations

import json
import logging
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from edge_ad.cli.logs import BURST, WINDOW_S, JsonFormatter, Limited, TextFormatter, logging_to_stderr
from edge_ad.cli.main import main
from edge_ad.runtime.engines.fake import FakeEngine

Capture = pytest.CaptureFixture[str]
BUNDLE = str(resources.files("edge_ad.demo") / "disc.edgead")
RUN = ["run", BUNDLE, "--engine", "fake", "--source", "sim:?frames=9&size=96x64"]


def lines_of(text: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in text.splitlines()]
    for entry in entries:
        assert {"time", "level", "logger", "message"} <= set(entry)
        assert entry["time"].endswith("Z")
    return entries


def test_json_is_all_there_is(tmp_path: Path, capsys: Capture) -> None:
    assert main([*RUN, "--output", str(tmp_path / "out"), "--log-format", "json"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    entries = lines_of(captured.err)
    assert [entry["level"] for entry in entries if "NOT inspected" in entry["message"]] == ["warning"]
    (counters,) = [entry["counters"] for entry in entries if "counters" in entry]
    assert counters["lanes"][0]["captured"] == 9
    assert set(counters["stages"]) >= {"infer", "total"}


def test_a_failure_is_a_line_with_its_code(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["run", BUNDLE, "--source", "nowhere", "--log-format", "json"]) == 7
    (entry,) = lines_of(capsys.readouterr().err)
    assert (entry["level"], entry["exit_code"]) == ("critical", 7)
    assert "does not exist" in entry["message"]


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt(), 130), (ZeroDivisionError("oh"), 70)])
def test_what_ends_it_unplanned_is_a_line_too(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int
) -> None:
    def fail(self: FakeEngine) -> None:
        raise raised

    monkeypatch.setattr(FakeEngine, "load_impl", fail)
    assert main([*RUN, "--log-format", "json"]) == code
    (entry,) = lines_of(capsys.readouterr().err)
    assert entry["exit_code"] == code


def test_a_frame_that_failed_says_which_it_is(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = FakeEngine.infer_impl, iter(range(1000))

    def infer(self: FakeEngine, batch: Any) -> Any:
        if next(calls) == 3:
            raise TypeError("a defect")
        return original(self, batch)

    monkeypatch.setattr(FakeEngine, "infer_impl", infer)
    assert main([*RUN, "--log-format", "json"]) == 0
    (entry,) = [entry for entry in lines_of(capsys.readouterr().err) if entry["level"] == "error"]
    assert (entry["camera"], entry["frame_id"]) == ("sim:?frames=9&size=96x64", 2)
    assert entry["exception"] == "TypeError: a defect"
    assert "in infer" in entry["trace"]


def test_levels(tmp_path: Path, capsys: Capture) -> None:
    for log_format in ("json", "text"):
        assert main([*RUN, "--output", str(tmp_path), "--log-format", log_format, "--log-level", "warning"]) == 0
        said = capsys.readouterr().err
        assert "NOT inspected" in said
        assert "engine fake" not in said


def test_the_logger_is_as_before(capsys: Capture) -> None:
    logger = logging.getLogger("edge_ad")
    before = logger.level, list(logger.handlers)
    with logging_to_stderr("run", "json", "debug"):
        assert logger.level == logging.DEBUG
    assert (logger.level, list(logger.handlers)) == before


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_each_message_is_said_once_whatever_libraries_log(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    """`logging.warning` hangs a handler on a root logger that has none, and every later message is printed twice."""
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's own, which would keep it from that
    with logging_to_stderr("run", log_format, "warning"):
        logging.warning("of a library that knows nothing of loggers")
        logging.getLogger("urllib3").warning("of a library")
        logging.getLogger("edge_ad.run").warning("of ours")
        logging.getLogger("edge_ad.run").info("not asked for")
    lines = capsys.readouterr().err.splitlines()
    said = [entry["message"] for entry in lines_of("\n".join(lines))] if log_format == "json" else lines
    assert len(said) == 3
    for line, end in zip(said, ("of loggers", "of a library", "of ours"), strict=True):
        assert line.endswith(end)
    assert logging.root.handlers == []


def test_without_standard_error_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with logging_to_stderr("run", "json", "info") as log:
        log.say("warning: nobody hears it")


def record_of(message: str = "frame %d of %s", level: int = logging.ERROR, error: Exception | None = None) -> Any:
    arguments = (3, "camera\n2") if "%" in message else ()
    info = (type(error), error, None) if error else None
    return logging.LogRecord("edge_ad.x", level, __file__, 1, message, arguments, info)


def test_a_message_is_one_line() -> None:
    assert "\n" not in JsonFormatter().format(record_of(error=ValueError("two\nlines")))
    text = TextFormatter(with_traces=False).format(record_of(error=ValueError("two\nlines")))
    assert text.endswith("error: edge_ad.x: frame 3 of camera 2 (ValueError: two)")


def test_a_part_that_fails_all_the_time_does_not_fill_the_disk() -> None:
    now_s = 0.0
    limited = Limited(lambda: now_s)
    assert [limited.filter(record_of(error=ValueError(str(number)))) for number in range(50)].count(True) == BURST
    assert limited.filter(record_of(error=TypeError()))  # another kind
    assert limited.filter(record_of(level=logging.INFO))
    now_s = WINDOW_S + 1
    record = record_of(error=ValueError())
    assert limited.filter(record)
    assert record.getMessage().endswith("(45 more like this were left out)")
    assert limited.filter(next_one := record_of(error=ValueError())) and "left out" not in next_one.getMessage()
