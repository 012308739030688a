"""What the other process may import, what it holds, and that it does not outlive the one that it computes for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_process import CRASH_AT, CRASHING, HOLD, MakeEngine

from edge_ad.runtime.engines.process import launch

SHADOWS = (
    "edge_ad",
    "numpy",
    "json",
    "socket",
    "logging",
    "signal",
    "ctypes",
    "select",
    "fcntl",
    "pathlib",
    "sitecustomize",
)

ASK = """
import sys
from importlib import resources
from edge_ad.runtime.engines.process import launch
from edge_ad.runtime.engines.process.engine import EngineProcess
from edge_ad.runtime.judge.loader import open_detector
if sys.argv[1] == "3.10":
    made = launch.command
    launch.command = lambda arguments: made(arguments, safe_path=False)
with EngineProcess("fake") as process:
    bundle = str(resources.files("edge_ad.demo") / "disc.edgead")
    with open_detector(bundle, engine="fake", make=process.engine) as detector:
        print(detector.health)
"""


def hostile(folder: Path) -> Path:
    """A working folder in which everything that the other process imports is there, and leaves a mark."""
    for name in SHADOWS:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"open({str(folder / 'mark')!r}, 'a').write('{name} ')\n")
    return folder


@pytest.mark.parametrize("python", ["3.10", "3.11"])
def test_nothing_is_imported_from_the_working_folder(tmp_path: Path, python: str) -> None:
    if python == "3.11" and sys.version_info < (3, 11):
        pytest.skip("this Python has no -P")
    folder = hostile(tmp_path)
    script = folder.parent / f"{folder.name}.py"
    script.write_text(ASK)
    done = subprocess.run([sys.executable, str(script), python], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "restarts=0" in done.stdout
    assert not (folder / "mark").exists()
    # Control: that is what a process does whose working folder is not taken out.
    subprocess.run([sys.executable, "-c", "import numpy"], cwd=folder, timeout=60)
    assert (folder / "mark").read_text() == "numpy "


def test_the_path_of_the_environment_counts_as_for_this_process(tmp_path: Path) -> None:
    (tmp_path / "found.py").write_text("where = __file__\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for flags, wanted in (([], "found"), (["-E"], "ModuleNotFoundError"), (["-I"], "ModuleNotFoundError")):
        code = (
            "import sys, subprocess; from edge_ad.runtime.engines.process import launch;"
            "launch.CODE = launch.CODE.partition('; from')[0] + '; import found; print(found.where)';"
            "subprocess.run(launch.command([]), stderr=subprocess.STDOUT)"
        )
        done = subprocess.run([sys.executable, *flags, "-c", code], env=environment, capture_output=True, text=True)
        assert wanted in done.stdout, done.stderr


def test_it_holds_no_descriptor_that_it_does_not_need(make: MakeEngine, tmp_path: Path) -> None:
    with (tmp_path / "records").open("w") as records:
        os.set_inheritable(records.fileno(), True)
        with make() as engine:
            folder = Path(f"/proc/{engine.health.pid}/fd")
            held = sorted(os.readlink(entry).partition(":")[0] for entry in folder.iterdir())
    assert held.count("socket") == 2
    assert held.count("/memfd") in (1, 2)  # the map of it has one too
    assert str(tmp_path / "records") not in held
    assert len(held) <= 3 + 2 + 2


PARENT = """
import sys, threading, time
from importlib import resources
import numpy as np
from edge_ad.runtime.engines.process.engine import EngineProcess
from edge_ad.runtime.judge.loader import open_detector
process = EngineProcess("fake")
detector = open_detector(str(resources.files("edge_ad.demo") / "disc.edgead"), engine="fake", make=process.engine)
with detector:
    print(detector.health.pid, flush=True)
    batch = np.full((1, 256, 256, 3), int(sys.argv[1]), np.uint8)
    threading.Thread(target=detector._engine.infer, args=[batch], daemon=True).start()
    print("asked", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("first_pixel", [100, HOLD])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_it_ends_with_the_process_that_it_computes_for(first_pixel: int, number: int) -> None:
    """Even while it hangs in native code and no thread of Python runs."""
    environment = {**os.environ, "PYTHONPATH": str(CRASHING), CRASH_AT: ""}
    shared = set(os.listdir("/dev/shm"))
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(first_pixel)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "asked\n"
        time.sleep(0.2)
        assert _is_there(child)
        parent.send_signal(number)
    until_s = time.monotonic() + 10
    while _is_there(child) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert not _is_there(child)
    assert not {name for name in set(os.listdir("/dev/shm")) - shared if "edge" in name}


def _is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_where_there_is_no_such_process_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(Exception, match="cannot start a process for the engine: No such file") as raised:
        launch.launch()
    assert raised.value.exit_code == 9  # type: ignore[attr-defined]


@pytest.mark.parametrize("closed", [[0], [0, 1, 2]])
def test_a_service_may_have_closed_standard_streams(tmp_path: Path, closed: list[int]) -> None:
    script = tmp_path / "ask.py"
    script.write_text(ASK.replace("print(detector.health)", f"open({str(tmp_path / 'said')!r}, 'w').write('loaded')"))
    close = "; ".join(f"os.close({number})" for number in closed)
    code = f"import os; {close}; os.execv({sys.executable!r}, [{sys.executable!r}, {str(script)!r}, '3.11'])"
    done = subprocess.run([sys.executable, "-c", code], timeout=60, stderr=subprocess.PIPE)
    assert (done.returncode, (tmp_path / "said").read_text()) == (0, "loaded")


def test_starting_one_needs_no_heavy_library() -> None:
    code = "import sys; import edge_ad.runtime.engines.process.launch; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'numpy'" not in loaded and "'pydantic'" not in loaded
