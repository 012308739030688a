"""What a command prints steers no terminal, whatever is called how: on a real terminal, and through every way there."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_ad.cli.logs import JsonFormatter, TextFormatter
from edge_ad.cli.main import main
from edge_ad.cli.printable import console_on, printing, say

DISC = str(resources.files("edge_ad.demo") / "disc.edgead")
NAME = "\x1b]0;SEEN\x07\x1b[31m\u202e\x9b\x7fp\xe9"
SHOWN = "\\u001b]0;SEEN\\u0007\\u001b[31m\\u202e\\u009b\\u007fp\xe9"
PATIENCE_S = 120


def on_terminal(folder: Path, *arguments: str) -> bytes:
    """All that the command line writes to a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edge_ad", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:
        pass  # how a terminal says that nobody writes to it any more
    finally:
        os.close(ours)
        process.wait(PATIENCE_S)
    return seen


def test_names_of_files_steer_no_terminal(tmp_path: Path) -> None:
    folder = tmp_path / f"shots{NAME}"
    folder.mkdir()
    picture = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(picture).save(folder / f"{NAME}.png")
    (folder / f"{NAME}2.png").write_bytes(b"junk")
    seen = on_terminal(tmp_path, "run", DISC, "--engine", "fake", "--source", str(folder), "--output", f"out{NAME}")
    assert SHOWN.encode() in seen
    assert b"\x1b[" in seen  # control: rich draws its own table
    assert b"SEEN\x07" not in seen and "\u202e".encode() not in seen and "\x9b".encode() not in seen
    records = (tmp_path / f"out{NAME}" / "verdicts.jsonl").read_text().splitlines()
    assert {Path(json.loads(record)["path"]).name for record in records} == {f"{NAME}.png", f"{NAME}2.png"}


@pytest.mark.parametrize(
    "arguments", [["info", NAME], ["run", DISC, "--source", NAME], ["check", "-c", NAME], ["info", "x", NAME]]
)
def test_a_failure_names_what_it_was_given(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) != 0
    said = capsys.readouterr().err
    assert SHOWN in said
    assert re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said) is None


def test_a_password_in_an_argument_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rtsp://user:S3CRET@host/live"]) == 2
    assert main(["info", "rtsp://user:S3CRET@host/live"]) != 0
    assert main(["run", DISC, "--budget-ms", "rtsp://user:S3CRET@host/live", "--source", "x"]) == 3
    said = capsys.readouterr()
    assert "S3CRET" not in said.out + said.err
    assert "host" in said.err


def test_streams_are_as_before_when_a_command_has_ended() -> None:
    before = sys.stdout, sys.stderr

    def command() -> None:
        with printing():
            assert (sys.stdout, sys.stderr) != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command()
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_every_stream_takes_every_text(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, encoding, write_through=True))
    with printing():
        say(f"{NAME}\n検査")
        sys.stderr.writelines(["two\tparts\n", f"{NAME}\n"])
        console_on(sys.stderr).print(f"[bold]{NAME} 検査[/bold]")
    lines = written.getvalue().decode(encoding).splitlines()
    shown = SHOWN if encoding != "ascii" else SHOWN.replace("\xe9", "\\xe9")
    assert lines[0].startswith(f"{shown}\\u000a")
    assert lines[1:3] == ["two\tparts", shown]
    assert lines[3].startswith(f"[bold]{shown} ") and lines[3].endswith("[/bold]")  # no markup


def test_tables_and_bars_show_names_and_keep_their_own_colours() -> None:
    from rich.progress import Progress, TextColumn
    from rich.table import Table

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    console = console_on(stream)
    table = Table("[red]name", title=NAME)
    table.add_row(NAME)
    console.print(table)
    console.print(f"[red]{NAME}")
    with Progress(TextColumn("{task.description}", markup=False), console=console) as bar:
        bar.add_task(NAME, total=1)
        bar.console.print(NAME)
    said = stream.getvalue()
    assert "[red]name" in said and "\x1b[" in said
    assert "SEEN\x07" not in said and "\x1b]0" not in said and "\u202e" not in said
    assert said.count(SHOWN) >= 4


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter(with_traces=True)])
def test_a_logged_message_is_shown_and_holds_no_password(formatter: logging.Formatter) -> None:
    try:
        raise ValueError(f"{NAME} rtsp://user:S3CRET@host/x")
    except ValueError:
        info = sys.exc_info()
    message = "failed: %s at rtsp://user:S3CRET@host/x"
    record = logging.LogRecord("edge_ad.x", logging.ERROR, __file__, 1, message, (NAME,), info)
    text = formatter.format(record)
    assert "S3CRET" not in text
    assert re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text) is None
    if isinstance(formatter, JsonFormatter):
        assert SHOWN in json.loads(text)["message"]
    else:
        assert SHOWN in text


def test_no_command_goes_past_the_door() -> None:
    """A console of its own would write what `console_on` holds back."""
    folder = Path(__file__).resolve().parents[2] / "edge_ad" / "cli"
    others = [path for path in folder.glob("*.py") if path.name != "printable.py"]
    assert others
    assert [path.name for path in others if re.search(r"\bConsole\(|__std(out|err)__", path.read_text())] == []
