"""`edge-ad selftest`, as a user types it, on the emulated driver: what passes, what has to fail, what is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

COMMAND = ("-W", "error", "-m", "edge_ad.cli.main")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def selftest(emulated: Callable[..., Any], cpu_kernels: Path, tiny_bundle: Path, tmp_path: Path) -> Callable[..., Any]:
    def run(*options: str, **settings: str) -> Any:
        command = ("selftest", str(tiny_bundle), "--engine-cache", str(tmp_path / "engines"), *options)
        return emulated(*COMMAND, *command, **{"EMULATED_CUDA_KERNELS": str(cpu_kernels), **settings})

    return run


def test_try(selftest, pictures):
    import time

    t = time.time()
    done = selftest("--build", "--frames", "12", "--images", str(pictures))
    print(done.code, done.out, done.err, done.report, time.time() - t)
    t = time.time()
    done = selftest("--frames", "3")
    print(done.code, done.out, done.err, done.report, time.time() - t)
    t = time.time()
    done = selftest("--frames", "3", "--json")
    print(done.code, done.out, done.err, done.report, time.time() - t)
