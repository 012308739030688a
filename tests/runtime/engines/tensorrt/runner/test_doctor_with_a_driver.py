"""`edge-ad doctor` on the emulated driver."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.rung(7)

COMMAND = ("-W", "error", "-m", "edge_ad")
ENGINE = 9


def _checks(text: str) -> dict[str, Any]:
    return {check["name"]: check for section in json.loads(text)["sections"] for check in section["checks"]}


def test_the_whole_gpu_path_is_found(emulated: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> None:
    cache = ("--engine-cache", str(tmp_path / "engines"))
    assert emulated(*COMMAND, "build", str(tiny_bundle), *cache).code == 0
    done = emulated(*COMMAND, "doctor", str(tiny_bundle), *cache, "--json", "--require", "tensorrt")
    assert done.code == 0, done.err
    checks = _checks(done.out)
    assert checks["gpu"]["found"] == "0: emulated GPU, SM86, 8.0 GiB"
    assert checks["flavour-tensorrt"]["found"] == "TensorRT 10.3.0"
    for name in ("driver", "pycuda", "tensorrt"):
        assert checks[name]["state"] == "ok", checks[name]
    assert checks["engine-files"]["found"] == "1 of 1 TensorRT engines of this bundle can run here"


def test_a_driver_without_a_device_is_broken_and_so_is_the_engine(emulated: Callable[..., Any], tmp_path: Path) -> None:
    command = (*COMMAND, "doctor", "--engine-cache", str(tmp_path), "--json", "--require", "tensorrt")
    done = emulated(*command, EMULATED_CUDA_NO_DEVICE="1")
    assert done.code == ENGINE
    checks = _checks(done.out)
    assert checks["driver"]["state"] == checks["tensorrt"]["state"] == "broken"
    assert "cuInit failed with CUDA error 100: it sees no GPU" in checks["driver"]["found"]
    assert checks["openvino"]["state"] == "ok"
    (line,) = done.err.splitlines()
    assert "tensorrt: cannot run: driver: " in line
