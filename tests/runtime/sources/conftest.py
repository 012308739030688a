"""GStreamer for tests: skipped with the reason where it is absent, failed where `.ci/run` has installed it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).parents[2] / "support" / "rtsp_server.py"
STOP_S = 10


def absent(what: str) -> None:
    """Skip, or fail where the tools were promised."""
    if os.environ.get("EDGE_AD_REQUIRE_LADDER"):
        pytest.fail(what)
    pytest.skip(what)


@cache
def system_python(script: str) -> str | None:
    """What a script of the system's Python prints; None when it fails."""
    try:
        done = subprocess.run([SYSTEM_PYTHON, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@pytest.fixture
def gst() -> Any:
    """The module `Gst`."""
    from edge_ad.runtime.sources.gst_library import load_gst

    try:
        return load_gst()
    except ImportError as exc:
        version = system_python("import sys; print(*sys.version_info[:2])")
        if version != "{} {}".format(*sys.version_info[:2]):
            pytest.skip(f"PyGObject of the system is for another Python: {version}")
        absent(f"GStreamer for Python is absent: {exc}")


class RtspServer:
    """A camera that serves `rtsp://127.0.0.1:PORT/live` from a process of its own."""

    def __init__(self, codec: str, *options: str) -> None:
        self._arguments = (codec, *options)
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}/live"

    def start(self) -> None:
        """Serve, after the first time on the same port again."""
        self.kill()  # if a stream was lost without it
        command = [SYSTEM_PYTHON, str(SERVER), str(self.port), *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline() or 0)
        assert self.port, "the server did not start"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=STOP_S)
            self._process = None


@pytest.fixture
def rtsp_server(request: pytest.FixtureRequest) -> Iterator[RtspServer]:
    """A server of the codec and options in the parameter."""
    if system_python("import gi; gi.require_version('GstRtspServer', '1.0'); print('here')") is None:
        absent("GStreamer's RTSP server is absent: apt install python3-gi gir1.2-gst-rtsp-server-1.0")
    server = RtspServer(*request.param)
    yield server
    server.kill()
