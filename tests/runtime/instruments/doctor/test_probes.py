"""Real processes: libraries that hang, crash or talk, and programs that do not end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_ad.runtime.instruments.doctor import processes
from edge_ad.runtime.instruments.doctor.examine import NEEDED, examine, examine_here
from edge_ad.runtime.instruments.doctor.machine import this_machine
from edge_ad.runtime.instruments.doctor.processes import Answer, Processes
from edge_ad.runtime.instruments.doctor.storage import Wanted

SUPPORT = Path(__file__).resolve().parents[3] / "support"
ENOUGH_S = 60.0
HANG = "import time\ntime.sleep(600)"
CRASH = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"

Plant = Callable[..., dict[str, str]]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Write modules that take the place of libraries. Returns: the environment in which they do."""

    def write(**modules: str) -> dict[str, str]:
        folder = tmp_path / "modules"
        folder.mkdir(exist_ok=True)
        for name, source in modules.items():
            (folder / f"{name}.py").write_text(source)
        return {**os.environ, "PYTHONPATH": str(folder)}

    return write


def is_alive(process: int) -> bool:
    """Whether a process does anything; one that ended and was not waited for by its parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_library_that_hangs_is_broken_and_the_report_goes_on(plant: Plant) -> None:
    hanging = Processes(plant(openvino=HANG), probe_s=1.0)
    machine = this_machine(
        hanging.run, lambda name: hanging.probe(name) if name == "openvino" else Answer({}, "not looked for", True)
    )
    report = examine(machine, Wanted())
    checks = {check.name: check for check in report.checks}
    assert (checks["openvino"].state, checks["openvino"].found) == ("broken", "no answer within 1 s")
    assert checks["cache"].state == "ok"
    assert "openvino" in [check.name for check in report.failed()]


def test_a_library_that_ends_the_process_is_broken(plant: Plant) -> None:
    environment = plant(tensorrt=CRASH, onnxruntime="import os\nos._exit(3)", pycuda="raise SystemExit('licence')")
    some = Processes(environment, probe_s=ENOUGH_S)
    assert some.probe("tensorrt") == Answer({}, "was ended by SIGSEGV")
    assert some.probe("onnxruntime") == Answer({}, "ended with exit code 3")
    assert some.probe("pycuda") == Answer({}, "SystemExit: licence")


def test_the_reason_that_a_library_gives_is_kept(plant: Plant) -> None:
    talking = "import os, sys\nsys.stderr.write('loading\\nlicence expired\\n')\nsys.stderr.flush()\nos.abort()"
    assert Processes(plant(tensorrt=talking), probe_s=ENOUGH_S).probe("tensorrt") == Answer(
        {}, "was ended by SIGABRT: licence expired"
    )


def test_what_a_library_prints_is_no_answer(plant: Plant) -> None:
    source = """
import atexit, os
atexit.register(os.write, 1, b"goodbye\\n")
os.write(1, b'{"value": {}, "failure": "a lie", "absent": false}\\n')
print("hello")
__version__ = "1.0"
def get_available_providers():
    return ["CPUExecutionProvider"]
"""
    answer = Processes(plant(onnxruntime=source), probe_s=ENOUGH_S).probe("onnxruntime")
    assert answer == Answer({"version": "1.0", "providers": ["CPUExecutionProvider"]})


def test_an_answer_counts_though_the_process_falls_over_at_its_end(plant: Plant) -> None:
    source = (
        "import atexit, os\natexit.register(os.abort)\n__version__ = '1'\ndef get_available_providers():\n return []"
    )
    answer = Processes(plant(onnxruntime=source), probe_s=ENOUGH_S).probe("onnxruntime")
    assert answer == Answer({"version": "1", "providers": []})


def test_type_stubs_are_no_tensorrt(plant: Plant) -> None:
    answer = Processes(plant(tensorrt=""), probe_s=ENOUGH_S).probe("tensorrt")
    assert answer.absent and answer.failure == "the module 'tensorrt' is empty"


def test_modules_of_the_working_folder_are_not_those_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text(CRASH)
    monkeypatch.chdir(tmp_path)
    assert Processes(os.environ, probe_s=ENOUGH_S).probe("tensorrt").failure != "was ended by SIGSEGV"


def test_a_program_that_does_not_end_is_ended_with_what_it_started(tmp_path: Path) -> None:
    note = tmp_path / "child"
    script = f"sleep 600 & echo $! > {note}; echo begun; wait"
    ran = Processes(os.environ, command_s=1.0).run("sh", "-c", script)
    assert (ran.failure, ran.out) == ("no answer within 1 s", "begun\n")
    child = int(note.read_text())
    deadline = time.monotonic() + ENOUGH_S
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(child)


def test_a_process_that_cannot_be_ended_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one is that waits inside of a driver: it does not answer to a signal."""
    monkeypatch.setattr(processes, "_kill", lambda process: None)
    monkeypatch.setattr(processes, "LAST_WORDS_S", 0.2)
    note = tmp_path / "process"
    ran = Processes(os.environ, command_s=1.0).run("sh", "-c", f"echo $$ > {note}; exec sleep 600")
    try:
        assert ran.failure is not None and "it cannot be ended" in ran.failure and "restart the machine" in ran.failure
    finally:
        os.kill(int(note.read_text()), signal.SIGKILL)
        os.waitpid(int(note.read_text()), 0)


def test_a_program_that_is_not_there_or_fails_is_said(tmp_path: Path) -> None:
    some = Processes(os.environ, command_s=ENOUGH_S)
    assert some.run("no-such-program-of-anybodys").absent
    assert some.run("false").failure == "ended with exit code 1"
    text = tmp_path / "text"
    text.write_text("no program")
    assert str(some.run(str(text)).failure).startswith("does not start: ")


def test_nothing_is_started_after_the_end() -> None:
    some = Processes(os.environ)
    some.close()
    assert some.run("true").failure == "interrupted"
    assert some.probe("cuda").failure == "interrupted"


@pytest.mark.parametrize(("error", "wanted"), [("", None), ("803", 803), ("999", 999)])
def test_the_driver_says_its_cuda_and_its_error(error: str, wanted: int | None, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in of the driver")
    more = tmp_path / "version.c"
    more.write_text("int cuDriverGetVersion(int *version) { *version = 12060; return 0; }\n")
    library = tmp_path / "libcuda.so.1"
    sources = [str(SUPPORT / "cuda_driver_stub.c"), str(more)]
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), *sources], check=True, timeout=ENOUGH_S)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    if error:
        environment["EDGE_AD_STUB_CUDA_ERROR"] = error
    answer = Processes(environment, probe_s=ENOUGH_S).probe("cuda")
    assert (answer.failure, answer.value["cuda"], answer.value.get("error")) == (None, [12, 6], wanted)
    names = [(gpu["name"], gpu["sm"]) for gpu in answer.value["gpus"]]
    assert names == ([] if error else [("Orin", 87), ("NVIDIA GeForce RTX 3060", 86)])


def test_a_driver_that_does_not_load_is_there_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("no library at all, but larger than nothing")
    answer = Processes({**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}, probe_s=ENOUGH_S).probe("cuda")
    assert not answer.absent and answer.failure is not None and "libcuda.so.1" in answer.failure


def test_this_very_machine_has_what_edge_ad_needs(tmp_path: Path) -> None:
    report = examine_here(Wanted(engine_cache=str(tmp_path)))
    checks = {check.name: check for check in report.checks}
    assert {checks[name].state for name in NEEDED} == {"ok"}
    assert "CPU" in checks["openvino"].found
    assert not [check for check in report.checks if "the check itself failed" in check.found]
    texts = [text for check in report.checks for text in (check.found, *check.details, check.remedy or "-")]
    assert all(text and text == text.strip() and "\n" not in text for text in texts)


def test_an_interrupt_ends_the_program_that_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a session of its own, so Ctrl-C does not reach it."""
    started: list[subprocess.Popen[str]] = []
    original = subprocess.Popen.communicate

    def communicate(process: subprocess.Popen[str], *given: object, **more: object) -> object:
        if not started:
            started.append(process)
            raise KeyboardInterrupt
        return original(process, *given, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess.Popen, "communicate", communicate)
    with pytest.raises(KeyboardInterrupt):
        Processes(os.environ).run("sleep", "600")
    assert started[0].returncode == -signal.SIGKILL
