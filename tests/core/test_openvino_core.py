"""One `openvino.Core` for the whole process, so that no thread ends while OpenVINO frees what it computed on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from threading import Barrier

import pytest

from edge_ad.openvino_core import openvino_core

ROOT = Path(__file__).resolve().parents[2]
PROBE = ROOT / "runtime" / "instruments" / "doctor" / "probes.py"  # looks around in a process of its own
SHIFTS = """
import _thread, ctypes, sys, threading, time
import numpy as np
from edge_ad.openvino_core import load_openvino
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.engines import openvino as engine

library, bundle, cache, core = sys.argv[1:]
if core == "own":
    engine.openvino_core = load_openvino().Core
frame = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)

def work(detector, delay_ms, done):
    slow = ctypes.CDLL(library)
    slow.begin()
    detector.judge(frame)
    slow.end_slowly(delay_ms)
    done.set()

for delay_ms in (20, 80, 320):
    with open_detector(bundle, engine_cache=cache) as detector:
        done = threading.Event()  # as `join` until Python 3.12, which did not wait for what the system still has to do
        _thread.start_new_thread(work, (detector, delay_ms, done))
        done.wait()
time.sleep(0.5)  # or the process has gone before the threads have ended
"""


def test_all_threads_get_the_same_one() -> None:
    together = Barrier(8)

    def get(_: int) -> int:
        together.wait(10)
        return id(openvino_core())

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(get, range(8)))) == 1


def test_nobody_else_makes_one() -> None:
    folders = ("edge_ad", "export", "calibration", "runtime", "tests", "benchmarks", "scripts")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    made = {path for path in sources if re.search(r"\bCore\(\)", path.read_text("utf-8"))}
    assert made == {ROOT / "edge_ad" / "openvino_core.py", PROBE}


@pytest.fixture(scope="module")
def slow_thread_end(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("needs Linux on x86_64 and a C compiler that is called cc")
    library = tmp_path_factory.mktemp("preload") / "slow_thread_end.so"
    source = ROOT / "tests" / "support" / "slow_thread_end.c"
    subprocess.run([compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    return library


@pytest.mark.parametrize("core", ["shared", "own"])
def test_an_engine_may_be_closed_while_a_thread_that_used_it_ends(
    core: str, slow_thread_end: Path, tmp_path: Path
) -> None:
    bundle = str(resources.files("edge_ad.demo") / "disc.edgead")
    environment = {**os.environ, "LD_PRELOAD": str(slow_thread_end)}
    command = [sys.executable, "-c", SHIFTS, str(slow_thread_end), bundle, str(tmp_path), core]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    if "a thread ends slowly" not in done.stderr:
        pytest.skip("this OpenVINO ends its threads in another way")
    if core == "shared":
        assert done.returncode == 0, done.stderr
    else:  # what would happen: OpenVINO's fault, noticed or seen by the harm
        assert done.returncode == 3 or done.returncode < 0, "OpenVINO may have mended it: is one Core still needed?"
