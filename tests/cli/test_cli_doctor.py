"""`edge-ad doctor` as a user types it, on this very machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_ad.cli.main import main

CONFIG, BUNDLE, ENGINE = 3, 5, 9
SECONDS = 240


def edge_ad(*arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "edge_ad", "doctor", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, env={**os.environ, **changes}, check=False
    )


def test_the_page_is_plain_text_without_a_home_folder(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "engines"
    folder.mkdir(parents=True)
    done = edge_ad(
        tiny_bundle, "--engine-cache", folder, HOME=str(tmp_path / "home"), PYTHONIOENCODING="ascii", FORCE_COLOR="1"
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "\x1b" not in done.stdout and done.stdout.isascii()
    for title in (
        "Computer",
        "Python packages",
        "On the processor",
        "NVIDIA GPU",
        "Jetson",
        "Video",
        "Cameras",
        "Models",
    ):
        assert title in lines
    found = {line.split()[1]: line.split(maxsplit=2)[2] for line in lines if line.startswith("  ") and line[2] != " "}
    assert found["bundle"].startswith(f"{tiny_bundle} is sound: fp32 (default); SHA-256 ")
    assert found["cache"].startswith("~/engines: 0 TensorRT engines and 0 other compiled models; ")
    assert lines[-1] == "what edge-ad needs is there"
    assert len(lines) < 120  # one page


def test_json_says_the_same(tmp_path: Path) -> None:
    done = edge_ad("--json", "--require", "openvino", "--engine-cache", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert (facts["required"], facts["failed"]) == (["openvino"], [])
    checks = {check["name"]: check for section in facts["sections"] for check in section["checks"]}
    assert checks["openvino"]["state"] == "ok"
    assert {check["state"] for check in checks.values()} <= {"ok", "missing", "broken", "note"}
    assert set(checks["python"]) == {"name", "state", "found", "remedy", "details"}


def test_what_does_not_work_ends_with_the_code_of_engines_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "openvino.py").write_text("import os\nos.abort()")
    done = edge_ad("--require", "openvino", "--engine-cache", tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == ENGINE
    (line,) = done.stderr.splitlines()
    assert line.startswith("edge-ad: error: this machine lacks what is needed: openvino: was ended by SIGABRT (")
    assert "needed, and not working: openvino" in done.stdout.splitlines()
    assert "  ok       packages" in done.stdout  # the rest of the page is there


def test_an_unknown_name_is_refused_with_those_that_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--require", "openvino", "--require", "tensorrtt"]) == CONFIG
    said = capsys.readouterr()
    assert said.out == ""
    assert "require: 'tensorrtt' is unknown, wanted one of edge-ad, python" in said.err
    assert all(name in said.err for name in ("tensorrt", "cameras", "jetpack", "extra-train", "gstreamer"))
    assert len(said.err.splitlines()) == 1


def test_a_damaged_bundle_is_on_the_page_and_fails(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    done = edge_ad(tmp_path, "--engine-cache", tmp_path)
    assert done.returncode == BUNDLE
    assert "no manifest.yaml in it; this is no bundle" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("edge-ad: error: bundle ")


@pytest.mark.usefixtures("heard_interrupts")
def test_ctrl_c_ends_it_with_all_that_it_started(tmp_path: Path) -> None:
    note = tmp_path / "probe"
    (tmp_path / "openvino.py").write_text(
        f"import os, time\nfrom pathlib import Path\nPath({str(note)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    )
    command = [sys.executable, "-m", "edge_ad", "doctor", "--engine-cache", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as doctor:
        deadline = time.monotonic() + SECONDS
        while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        doctor.send_signal(signal.SIGINT)
        out, err = doctor.communicate(timeout=SECONDS)
    assert (doctor.returncode, out, err.lstrip()) == (130, "", "edge-ad: error: interrupted\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_no_heavy_library_is_loaded_into_the_process_itself(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom edge_ad.cli.main import main\n"
        f"code = main(['doctor', '--json', '--engine-cache', {str(tmp_path)!r}])\n"
        "heavy = {'torch', 'cv2', 'openvino', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'pycuda', 'onnx'}\n"
        "sys.exit(code or ', '.join(heavy & set(sys.modules)) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")
