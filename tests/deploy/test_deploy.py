"""The files under deploy/: what they start is what the command line takes, and they let it stop as it wants to."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pytest

from edge_ad.cli.main import EXIT_INTERRUPTED
from edge_ad.cli.run import command
from edge_ad.errors import (
    BundleError,
    BundleUnavailableError,
    ConfigError,
    EngineError,
    LostRecordsError,
    MissingExtraError,
    OutputError,
    SourceError,
    UnavailableError,
)
from edge_ad.runtime.line import line
from edge_ad.runtime.line.scheduling import output
from edge_ad.runtime.station.file import run_options

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
LINE = DEPLOY / "line.conf"
UNIT, QUADLET, CONTAINERFILE = DEPLOY / "edge-ad.service", DEPLOY / "edge-ad.container", DEPLOY / "Containerfile"
COMMAND_LINE_FAULT = 2
CAMERAS = 8  # that a station has at most, each closed for a second when it hangs
PATIENCE_S = 60
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze here: apt-get install systemd"
)


def settings_of(path: Path) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path, encoding="utf-8")
    return {name: dict(parser[name]) for name in parser.sections()}


def environment(**more: str) -> dict[str, str]:
    lines = [line for line in (DEPLOY / "line.env").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines) | more  # type: ignore[misc]


def unit_arguments() -> list[str]:
    """Of the unit, as systemd expands them: `${X}` to one word, `$X` to several."""
    text = settings_of(UNIT)["Service"]["ExecStart"].replace("%S", "/var/lib").replace("%C", "/var/cache")
    variables = environment()
    arguments: list[str] = []
    for word in shlex.split(text)[1:]:
        if (name := re.fullmatch(r"\$(\w+)", word)) is not None:
            arguments += variables[name.group(1)].split()
        else:
            arguments.append(re.sub(r"\$\{(\w+)\}", lambda found: variables[found.group(1)], word))
    return arguments


def container_arguments() -> list[str]:
    (found,) = re.findall(r"^CMD (\[.*\])$", CONTAINERFILE.read_text(), re.MULTILINE)
    arguments: list[str] = json.loads(found)
    return arguments


def quadlet_arguments() -> list[str]:
    return shlex.split(settings_of(QUADLET)["Container"]["Exec"])


@pytest.fixture(autouse=True)
def environment_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in environment().items():
        monkeypatch.setenv(variable, value)


@pytest.mark.parametrize("arguments", [unit_arguments, container_arguments, quadlet_arguments])
def test_the_command_line_is_one_that_edge_ad_takes(arguments: object) -> None:
    name, *rest = arguments()  # type: ignore[operator]
    assert name == "run"
    context = command.make_context("run", rest)
    assert context.params.pop("log_format") == "json"
    context.params.pop("log_level")
    settings = run_options({key: value for key, value in context.params.items() if value not in (None, ())}, "deploy")
    assert [(camera.source, camera.budget_ms) for camera in settings.cameras] == [("camera:0", 100)]
    assert settings.output is not None
    assert settings.output.is_relative_to("/var/lib/edge-ad")


@pytest.mark.parametrize("arguments", [unit_arguments, container_arguments, quadlet_arguments])
def test_no_command_line_holds_the_address_of_the_camera(arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    environment_ = environment
    address = "rtsp://user:S3CRET@10.0.0.5/live"
    monkeypatch.setattr(sys.modules[__name__], "environment", lambda: environment_(EDGE_AD_SOURCE=address))
    words = arguments()  # type: ignore[operator]
    assert "--source-env" in words and "S3CRET" not in " ".join(words)
    monkeypatch.setenv("EDGE_AD_SOURCE", address)
    given = command.make_context("run", words[1:]).params
    settings = run_options({"bundle": given["bundle"], "source_env": given["source_env"]}, "deploy")
    assert [camera.source for camera in settings.cameras] == [address]


def test_the_file_with_passwords_is_one_that_only_root_reads() -> None:
    """Wherever it says how the file is installed, and for each way to run a line."""
    root = DEPLOY.parent
    texts = [path.read_text("utf-8") for path in (*DEPLOY.iterdir(), *root.glob("*.md"), *root.glob("docs/*.md"))]
    modes = {found for text in texts for found in re.findall(r"install .*-m (\d+) deploy/line\.env", text)}
    assert modes == {"600"}
    assert all("/etc/edge-ad/line.env" in path.read_text() for path in (UNIT, QUADLET, LINE))


def test_a_stop_takes_less_time_than_it_is_given() -> None:
    longest_s = 2 * line.STOP_S + 0.1 + output.FLUSH_S + CAMERAS * 1.0 + 1.0
    unit, quadlet = settings_of(UNIT)["Service"], settings_of(QUADLET)
    assert int(unit["TimeoutStopSec"]) > longest_s
    assert int(quadlet["Container"]["StopTimeout"]) > longest_s
    assert int(quadlet["Service"]["TimeoutStopSec"]) > int(quadlet["Container"]["StopTimeout"])
    assert re.search(r"^STOPSIGNAL SIGTERM$", CONTAINERFILE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", [UNIT, QUADLET], ids=lambda path: path.name)
def test_what_does_not_mend_itself_is_not_tried_again(path: Path) -> None:
    service = settings_of(path)["Service"]
    hopeless = {COMMAND_LINE_FAULT, ConfigError.exit_code, BundleError.exit_code, MissingExtraError.exit_code}
    assert {int(code) for code in service["RestartPreventExitStatus"].split()} == hopeless
    passing = {SourceError, EngineError, OutputError, LostRecordsError, UnavailableError, BundleUnavailableError}
    assert not {kind.exit_code for kind in passing} & hopeless
    assert int(service["SuccessExitStatus"]) == EXIT_INTERRUPTED
    assert service["Restart"] == "always"


def test_the_image_holds_what_a_line_with_sinks_needs() -> None:
    (extras,) = re.findall(r"pip install .*'/src\[([\w,]+)\]'", CONTAINERFILE.read_text())
    assert {"http", "mqtt", "webhook"} <= set(extras.split(","))


def test_nothing_runs_as_root_and_nothing_listens() -> None:
    text = CONTAINERFILE.read_text()
    user = re.findall(r"^USER (\d+):", text, re.MULTILINE)
    assert len(user) == 1
    assert int(user[0]) > 0
    assert "EXPOSE" not in text
    service, container = settings_of(UNIT)["Service"], settings_of(QUADLET)["Container"]
    assert service["DynamicUser"] == "yes"
    assert service["SocketBindDeny"] == "any"
    assert service["ProtectSystem"] == "strict"
    assert (container["ReadOnly"], container["DropCapability"], container["NoNewPrivileges"]) == ("true", "all", "true")
    assert int(container["User"]) == int(user[0])
    assert "PublishPort" not in container


def test_a_line_with_a_file_is_run_and_reloaded() -> None:
    service = settings_of(LINE)["Service"]
    _, name, *arguments = shlex.split(service["ExecStart"])
    assert name == "run"
    given = command.make_context("run", arguments, resilient_parsing=False).params
    assert (given["config"], given["log_format"]) == ("/etc/edge-ad/line.yaml", "json")
    assert given["output"] in settings_of(UNIT)["Service"]["ExecStart"]
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


@needs_systemd
def test_systemd_accepts_the_unit_of_a_line_with_a_file(tmp_path: Path) -> None:
    added = tmp_path / "edge-ad.service.d" / "line.conf"
    added.parent.mkdir()
    added.write_text(LINE.read_text().replace("/opt/edge-ad/bin/edge-ad", sys.executable))
    assert verify(tmp_path, UNIT.read_text()) == ""
    added.write_text(added.read_text().replace("ExecStart=\n", ""))  # two programs: the first one was not taken back
    assert "more than one ExecStart" in verify(tmp_path, UNIT.read_text())


def verify(tmp_path: Path, text: str) -> str:
    """What systemd says of a unit; of its program it wants to know that it exists, so this one stands for it."""
    unit = tmp_path / "edge-ad.service"
    unit.write_text(text.replace("/opt/edge-ad/bin/edge-ad", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=PATIENCE_S)
    return f"{done.stdout}{done.stderr}" + ("" if done.returncode == 0 else f"exit code {done.returncode}")


@needs_systemd
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    assert verify(tmp_path, UNIT.read_text()) == ""


@needs_systemd
@pytest.mark.parametrize(
    ("right", "wrong"),
    [("Restart=always", "Restart=sometimes"), ("DevicePolicy=", "DevicesPolicy="), ("Type=", "Tipe=")],
)
def test_control_systemd_refuses_a_unit(tmp_path: Path, right: str, wrong: str) -> None:
    assert verify(tmp_path, UNIT.read_text().replace(right, wrong)) != ""


@needs_systemd
def test_the_unit_is_hardened() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", UNIT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot rate a file")
    assert done.returncode == 0, done.stdout


def test_sigterm_ends_it_as_the_unit_expects(tmp_path: Path) -> None:
    """The unit's own command, with another camera and other folders."""
    replaced = {
        "/etc/edge-ad/line.edgead": str(resources.files("edge_ad.demo") / "disc.edgead"),
        "/var/lib/edge-ad/records": str(tmp_path / "records"),
        "/var/cache/edge-ad": str(tmp_path / "engines"),
    }
    arguments = [replaced.get(argument, argument) for argument in unit_arguments()]
    started = [sys.executable, "-m", "edge_ad", *arguments, "--engine", "fake"]
    variables = {**os.environ, "EDGE_AD_SOURCE": "sim:?fps=50&size=64x64"}
    process = subprocess.Popen(started, env=variables, stderr=subprocess.PIPE, text=True)
    records = tmp_path / "records" / "verdicts.jsonl"
    try:
        until_s = time.monotonic() + PATIENCE_S
        while not (records.exists() and records.read_bytes().count(b"\n") > 5):
            assert process.poll() is None
            assert time.monotonic() < until_s
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == EXIT_INTERRUPTED
    entries = [json.loads(text) for text in said.splitlines()]
    (counters,) = [entry["counters"] for entry in entries if "counters" in entry]
    numbers = [json.loads(text)["frame_id"] for text in records.read_text().splitlines()]
    assert numbers == list(range(counters["lanes"][0]["captured"]))
    assert entries[-1]["message"] == "stopped by the user"
