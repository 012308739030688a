"""Nobody is told that edge-ad runs: no name is looked up, no host is connected to, nothing is left in HOME."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = str(resources.files("edge_ad.demo") / "disc.edgead")
CI_MARKS = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL", "JENKINS_HOME")  # where OpenVINO's telemetry keeps still
HOOK = """
import sys
def hook(event, args):
    if event.startswith(("socket.getaddrinfo", "socket.gethost", "socket.connect", "socket.sendto", "urllib.Request")):
        with open({seen!r}, "a") as file:
            file.write(event + chr(10))
sys.addaudithook(hook)
"""
# In place of the package that OpenVINO brings: as eager, but nothing leaves the machine.
TELEMETRY = """
import socket
class Telemetry:
    def __init__(self, **given): self.backend = self; self.app_name = given.get("app_name")
    def send_event(self, *said):
        try: socket.getaddrinfo("127.0.0.1", 443)
        except OSError: pass
"""
OPEN = f"""
import numpy as np, edge_ad
with edge_ad.open({BUNDLE!r}) as detector:
    detector.judge(np.zeros((64, 64, 3), np.uint8))
"""
JUDGE = ("-m", "edge_ad", "run", BUNDLE, "--source", "frame.png")
COMMANDS: dict[str, Sequence[str]] = {
    "run": JUDGE,
    "run --engine onnxruntime": (*JUDGE, "--engine", "onnxruntime"),
    "doctor": ("-m", "edge_ad", "doctor"),
    "edge_ad.open": ("-c", OPEN),
}


@dataclass
class Bystander:
    """Runs Python in an empty folder, and sees what it looks up and what it leaves in HOME.

    Attributes:
        folder: the empty folder.
        home: HOME.
        seen: file of what was looked up or connected to by Python.
    """

    folder: Path
    home: Path
    seen: Path
    environment: dict[str, str]

    def python(self, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        command = [*prefix, sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )

    def lookups(self) -> list[str]:
        return self.seen.read_text().split() if self.seen.exists() else []

    def left_in_home(self) -> list[str]:
        """Files that are not edge-ad's own."""
        files = (path.relative_to(self.home).as_posix() for path in self.home.rglob("*") if path.is_file())
        return sorted(name for name in files if not name.startswith(".cache/edge-ad/"))


@pytest.fixture
def bystander(tmp_path: Path) -> Bystander:
    folder, home, site = tmp_path / "folder", tmp_path / "home", tmp_path / "site"
    for path in (folder, home, site / "openvino_telemetry" / "backend"):
        path.mkdir(parents=True)
    seen = tmp_path / "seen"
    (site / "sitecustomize.py").write_text(HOOK.format(seen=str(seen)))
    (site / "openvino_telemetry" / "__init__.py").write_text(TELEMETRY)
    (site / "openvino_telemetry" / "backend" / "__init__.py").write_text("backend_ga4 = None")
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "frame.png")
    dropped = (*CI_MARKS, "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_STATE_HOME")
    inherited = {name: value for name, value in os.environ.items() if name not in dropped}
    environment = {**inherited, "HOME": str(home), "PYTHONPATH": str(site)}
    return Bystander(folder, home, seen, environment)


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_looked_up_and_home_stays_clean(bystander: Bystander, name: str) -> None:
    done = bystander.python(*COMMANDS[name])
    assert done.returncode == 0, done.stderr
    assert (bystander.lookups(), bystander.left_in_home()) == ([], [])


def test_the_hook_sees_what_openvino_does_when_it_is_let(bystander: Bystander) -> None:
    done = bystander.python("-c", "import openvino")
    assert done.returncode == 0, done.stderr
    assert set(bystander.lookups()) == {"socket.getaddrinfo"}


def test_a_program_keeps_its_own_telemetry(bystander: Bystander) -> None:
    """Only OpenVINO is kept from it: what else a process does with that package is its own affair."""
    after = "\nimport openvino_telemetry\nopenvino_telemetry.Telemetry().send_event()"
    done = bystander.python("-c", OPEN + after)
    assert done.returncode == 0, done.stderr
    assert bystander.lookups() == ["socket.getaddrinfo"]


def test_openvino_is_imported_by_its_door_alone() -> None:
    folders = ("edge_ad", "export", "calibration", "runtime", "tests", "benchmarks", "scripts")
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"^\s*(import|from) openvino\b|import_module\(.openvino\b", path.read_text("utf-8"), re.MULTILINE)
    }
    assert found == {"edge_ad/openvino_core.py"}


@pytest.fixture
def without_network(tmp_path: Path) -> tuple[Sequence[str], Path]:
    """What to put before a command to run it without a network and watch its system calls, and where they are kept."""
    missing = [name for name in ("unshare", "strace") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (Debian: util-linux, strace)")
    calls = tmp_path / "calls"
    watch = ("strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(calls))
    prefix = ("unshare", "--map-root-user", "--net", *watch)
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=60, check=False)
    if tried.returncode:
        pytest.skip(f"no right to a network of its own, or to trace: {tried.stderr.strip()}")
    return prefix, calls


def _to_hosts(calls: Path) -> list[str]:
    return [line for line in calls.read_text().splitlines() if "AF_INET" in line]


@pytest.mark.parametrize("name", ["run", "doctor"])  # the doctor loads every library that is here
def test_no_system_call_goes_to_a_host(
    bystander: Bystander, without_network: tuple[Sequence[str], Path], name: str
) -> None:
    prefix, calls = without_network
    done = bystander.python(*COMMANDS[name], prefix=prefix)
    assert done.returncode == 0, done.stderr
    assert (_to_hosts(calls), bystander.left_in_home()) == ([], [])


def test_the_watch_sees_a_name_that_is_looked_up(
    bystander: Bystander, without_network: tuple[Sequence[str], Path]
) -> None:
    prefix, calls = without_network
    source = "import socket\ntry: socket.create_connection(('192.0.2.1', 80), 1)\nexcept OSError: pass"
    assert bystander.python("-c", source, prefix=prefix).returncode == 0
    assert _to_hosts(calls)


def _said(done: subprocess.CompletedProcess[str]) -> list[tuple[str, str, str]]:
    """Level, logger and message of each line, without the figures that differ between runs."""
    entries = [json.loads(line) for line in done.stderr.splitlines()]
    return [(entry["level"], entry["logger"], re.sub(r"[\d.]+", "#", entry["message"])) for entry in entries]


def test_a_home_that_cannot_be_written_changes_nothing_in_the_logs(bystander: Bystander) -> None:
    bystander.environment["XDG_STATE_HOME"] = str(bystander.folder.parent / "state")
    command = (*JUDGE, "--log-format", "json", "--engine-cache")
    usual = bystander.python(*command, "one cache")
    (bystander.folder / "a file").touch()
    bystander.environment["HOME"] = str(bystander.folder / "a file")  # which root cannot write to either
    odd = bystander.python(*command, "another cache")
    assert usual.returncode == odd.returncode == 0, odd.stderr
    assert _said(odd) == _said(usual) != []
