"""Engines built by NVIDIA's builder in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SUPPORT = Path(__file__).resolve().parents[4] / "support"
BUILD_SECONDS = 120

Builds = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def build_engines(tensorrt_rtx: None) -> Builds:
    """Options of `edge-ad build` for each engine, by name → what came of each, in one process."""

    def build(*options: dict[str, Any]) -> list[dict[str, Any]]:
        command = [sys.executable, "-W", "error", str(SUPPORT / "build_engines.py")]
        texts = [{key: str(value) for key, value in values.items()} for values in options]
        done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, timeout=BUILD_SECONDS)
        assert done.returncode == 0, f"the builder ended with {done.returncode}: {done.stderr[-2000:]}"
        results: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return results

    return build
