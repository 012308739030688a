"""What the doctor says of made-up machines: what is there, and the command that helps on this one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_ad.runtime.instruments.doctor.jetson import BUNDLED, JETPACK_OF, bundled_with
from edge_ad.runtime.instruments.doctor.machine import Interpreter
from edge_ad.runtime.instruments.doctor.processes import Answer, Ran

ROOT = Path(__file__).resolve().parents[4]
Make = Callable[..., Any]
ABSENT = Answer({}, "no such module", True)
OPTIONAL = re.compile(r"extra-|onnxruntime$|gst|cuda-graphs$|cameras$|engine-files$")
PIP = "/opt/line/bin/python -m pip install"


def broken_driver(error: int) -> Answer:
    return Answer({"cuda": [12, 2], "gpus": [], "error": error})


def test_an_orin_with_everything_has_nothing_to_repair(orin: Any) -> None:
    checks = orin.checks()
    assert {name for name, check in checks.items() if check.state != "ok"} <= {
        *(name for name in checks if OPTIONAL.match(name)),
        "flavour-rtx",
        "opencv-gstreamer",
    }
    assert checks["jetson"].found == "NVIDIA Jetson Orin Nano Developer Kit"
    assert checks["jetpack"].found == "6.1 (Jetson Linux 36.4), brings TensorRT 10.3 and CUDA 12.6"
    assert checks["power-mode"].found == "MAXN"
    assert checks["memory"].found == "7.4 GiB, 5.0 GiB free"
    assert checks["driver"].found == "540.4.0, runs CUDA 12.6"
    assert checks["gpu"].found == "0: Orin, SM87, 8.0 GiB"
    assert checks["flavour-tensorrt"].found == "TensorRT 10.3.0, for CUDA 12"
    assert checks["tensorrt"].state == "ok" and "on Orin" in checks["tensorrt"].found
    assert (checks["flavour-rtx"].state, checks["flavour-rtx"].remedy) == ("note", None)
    assert checks["gst-elements"].found.endswith("nvarguscamerasrc, nvvidconv, nvv4l2decoder")
    assert "Arm core 0xd42" in checks["processor"].found and "NEON dotprod" in checks["processor"].found
    assert checks["cuda-graphs"].remedy == "~/line/bin/python -m pip install 'cuda-bindings==12.*'"
    assert orin.report("tensorrt", "gst-elements", "jetpack").failed() == ()


def test_a_thor_is_told_by_what_its_packages_say(orin: Any) -> None:
    orin.files["/proc/device-tree/model"] = "NVIDIA Jetson AGX Thor Developer Kit\0"
    del orin.files["/etc/nv_tegra_release"]
    orin.packages = {"nvidia-l4t-core": "38.4.0-20251230160601", "nvidia-jetpack": "7.1-b44"}
    orin.answers |= {
        "cuda": Answer({"cuda": [13, 0], "gpus": [{"index": 0, "name": "NVIDIA Thor", "sm": 110}]}),
        "tensorrt": Answer({"version": "10.13.3.9", "cuda": None}),
        "gstreamer": Answer({"version": "1.24.2", "elements": ["v4l2src", "rtspsrc", "appsink"]}),
    }
    checks = orin.checks()
    assert checks["jetpack"].found == "7.1 (Jetson Linux 38.4), brings TensorRT 10.13.3 and CUDA 13.0"
    assert checks["jetpack"].state == "ok"
    assert checks["gpu"].found == "0: NVIDIA Thor, SM110"
    assert checks["gst-elements"].state == "missing"
    assert checks["gst-elements"].remedy == "sudo apt install nvidia-l4t-gstreamer"


def test_another_tensorrt_than_the_one_of_jetpack_is_noted(orin: Any) -> None:
    orin.answers["tensorrt"] = Answer({"version": "10.30.1", "cuda": None})  # 10.3 and 10.30 begin alike
    check = orin.checks()["jetpack"]
    assert check.state == "note" and check.found.endswith("installed is TensorRT 10.30.1")


def test_a_release_of_jetson_linux_that_is_not_known_is_not_guessed(orin: Any) -> None:
    orin.files["/etc/nv_tegra_release"] = "# R36 (release), REVISION: 9.9, GCID: 1, BOARD: generic"
    check = orin.checks()["jetpack"]
    assert (check.state, check.found) == ("note", "Jetson Linux 36.9.9, of an unknown JetPack")


def test_tensorrt_of_the_system_is_pointed_to_from_an_environment_that_hides_it(orin: Any) -> None:
    orin.answers["tensorrt"] = ABSENT
    check = orin.checks()["flavour-tensorrt"]
    assert check.state == "missing" and "the system's Python has it (python3-libnvinfer 10.3.0.30" in check.found
    assert check.remedy is not None and check.remedy.startswith("/usr/bin/python3 -m venv --system-site-packages")
    orin.packages.clear()
    check = orin.checks()["flavour-tensorrt"]
    assert (check.found, check.remedy) == ("not installed", "sudo apt install python3-libnvinfer")


def test_a_bare_computer_lacks_nothing_that_it_needs(made_up: Make) -> None:
    report = made_up().report()
    assert report.failed() == ()
    report.raise_failure()
    checks = {check.name: check for check in report.checks}
    gpu_path = [
        "driver",
        "gpu",
        "cuda-compiler",
        "pycuda",
        "cuda-graphs",
        "flavour-tensorrt",
        "flavour-rtx",
        "tensorrt",
    ]
    assert {checks[name].state for name in gpu_path} == {"note"}  # no alarm about what this machine has no use for
    assert checks["jetson"].state == "note" and "jetpack" not in checks
    assert checks["processor"].found == "Some Processor, 1 thread, AVX2, AVX-512, AVX512-VNNI"


def test_a_processor_without_int8_dot_products_is_noted(made_up: Make) -> None:
    check = made_up(files={"/proc/cpuinfo": "processor : 0\nmodel name : Old\nflags : sse4_2 avx2\n"}).checks()
    assert check["processor"].state == "note" and "no int8 dot products" in check["processor"].found


def test_a_resize_that_was_not_compiled_is_named_and_no_reason_to_stop(made_up: Make) -> None:
    bare = made_up(answers={"resize": ABSENT})
    check = bare.checks()["resize"]
    assert check.state == "missing" and "with Pillow, several times slower" in check.found
    assert check.remedy is not None and check.remedy.startswith("sudo apt install gcc libc6-dev, then")
    assert check.remedy.endswith(f"source {PIP} --force-reinstall --no-deps --no-cache-dir .")
    assert "resize" not in [failed.name for failed in bare.report().failed()]
    bare.answers["resize"] = Answer({}, "OSError: wrong ELF class")
    assert bare.checks()["resize"].state == "broken"
    bare.answers["resize"] = Answer({})
    assert (bare.checks()["resize"].state, bare.checks()["resize"].found) == ("ok", "compiled")


def test_an_rtx_pc_is_told_what_to_install(rtx_pc: Any) -> None:
    checks = rtx_pc.checks()
    assert checks["driver"].found == "580.65.06, runs CUDA 13.0"
    assert checks["gpu"].found == "0: NVIDIA GeForce RTX 4060, SM89, 8.0 GiB"
    assert checks["flavour-rtx"].remedy == f"{PIP} 'edge-ad[rtx]'"
    assert checks["cuda-compiler"].remedy == f"{PIP} nvidia-cuda-nvrtc"
    assert (
        checks["pycuda"].remedy
        == f"install the CUDA toolkit into /usr/local/cuda, then CUDA_ROOT=/usr/local/cuda {PIP} 'edge-ad[tensorrt]'"
    )
    assert (checks["tensorrt"].state, checks["tensorrt"].remedy) == ("missing", checks["pycuda"].remedy)
    assert checks["tensorrt"].found.startswith("cannot run: pycuda: not installed")
    rtx_pc.answers |= {
        "rtx": Answer({"version": "1.7.1.116", "cuda": 13}),
        "pycuda": Answer({"version": "2026.1", "cuda": [13, 0]}),
    }
    ready = rtx_pc.checks()["tensorrt"]
    assert ready.state == "ok" and ready.found.startswith("TensorRT-RTX 1.7.1.116, for CUDA 13, on NVIDIA GeForce")


def test_where_the_kernel_does_not_say_it_nvidia_smi_tells_the_driver(rtx_pc: Any) -> None:
    del rtx_pc.files["/proc/driver/nvidia/version"]
    assert rtx_pc.checks()["driver"].found == "runs CUDA 13.0"
    rtx_pc.programs["nvidia-smi --query-gpu=driver_version"] = Ran("581.15\n581.15\n")
    assert rtx_pc.checks()["driver"].found == "581.15, runs CUDA 13.0"


def test_several_gpus_have_a_line_each(rtx_pc: Any) -> None:
    rtx_pc.answers["cuda"].value["gpus"].append({"index": 1, "name": "NVIDIA L4", "sm": 89, "memory_bytes": 24 << 30})
    rtx_pc.changes["environment"] = {"CUDA_VISIBLE_DEVICES": "0,1"}
    check = rtx_pc.checks()["gpu"]
    assert check.found == "2 (CUDA_VISIBLE_DEVICES=0,1)"
    assert check.details == ("0: NVIDIA GeForce RTX 4060, SM89, 8.0 GiB", "1: NVIDIA L4, SM89, 24.0 GiB")


def test_rtx_does_not_count_where_no_gpu_runs_its_engines(rtx_pc: Any) -> None:
    rtx_pc.answers["cuda"].value["gpus"][0] |= {"name": "NVIDIA H100", "sm": 90}
    rtx_pc.answers |= {
        "rtx": Answer({"version": "1.7.1.116", "cuda": 13}),
        "pycuda": Answer({"version": "2026.1", "cuda": [13, 0]}),
    }
    checks = rtx_pc.checks()
    assert checks["flavour-rtx"].state == "note" and "runs none on SM90" in checks["flavour-rtx"].found
    assert checks["tensorrt"].state == "missing" and "flavour-tensorrt" in checks["tensorrt"].found


@pytest.mark.parametrize(
    ("family", "remedy"),
    [
        ("ID=ubuntu", "sudo ubuntu-drivers install, then restart"),
        ("ID=debian", "sudo apt install nvidia-driver (section non-free), then restart"),
        ("ID=linuxmint\nID_LIKE=ubuntu", "sudo ubuntu-drivers install, then restart"),
        ("ID=fedora", "install NVIDIA's driver, then restart"),
    ],
)
def test_a_card_without_a_driver_gets_the_one_of_its_system(rtx_pc: Any, family: str, remedy: str) -> None:
    rtx_pc.files["/etc/os-release"] = family
    del rtx_pc.answers["cuda"]
    checks = rtx_pc.checks()
    assert (checks["driver"].state, checks["driver"].remedy) == ("missing", remedy)
    assert (checks["tensorrt"].state, checks["tensorrt"].remedy) == ("missing", remedy)


@pytest.mark.parametrize(
    ("error", "words", "remedy"),
    [
        (803, "libcuda and the kernel's driver are of different versions", "restart the machine after an update"),
        (999, "CUDA error 999", "sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm"),
        (34, "this is the toolkit's stub", "LD_LIBRARY_PATH"),
        (802, "fabric manager", "sudo systemctl restart nvidia-fabricmanager"),
        (100, "it sees no GPU", "restart the machine; if it stays so: sudo ubuntu-drivers install"),
        (12345, "CUDA error 12345", "restart the machine"),
    ],
)
def test_a_driver_that_does_not_start_is_explained(rtx_pc: Any, error: int, words: str, remedy: str) -> None:
    rtx_pc.answers["cuda"] = broken_driver(error)
    rtx_pc.programs["nvidia-smi"] = Ran(
        out="Failed to initialize NVML: Driver/library version mismatch\n", failure="18"
    )
    check = rtx_pc.checks()["driver"]
    assert check.state == "broken" and words in check.found
    assert check.remedy is not None and remedy in check.remedy
    assert check.details == ("nvidia-smi: Failed to initialize NVML: Driver/library version mismatch",)


def test_on_jetson_a_driver_may_want_the_user_in_its_groups(orin: Any) -> None:
    orin.answers["cuda"] = broken_driver(999)
    assert "usermod -aG video,render" in str(orin.checks()["driver"].remedy)
    orin.changes["is_root"] = True
    assert "usermod" not in str(orin.checks()["driver"].remedy)


def test_in_a_container_on_jetson_the_gpu_is_passed_in(orin: Any) -> None:
    orin.files["/.dockerenv"] = ""
    del orin.answers["cuda"]
    assert orin.checks()["driver"].remedy == "start the container with '--runtime nvidia'"


def test_in_a_container_on_a_pc_the_gpu_is_passed_in(rtx_pc: Any) -> None:
    rtx_pc.files["/.dockerenv"] = ""
    rtx_pc.answers["cuda"] = broken_driver(100)
    assert rtx_pc.checks()["driver"].remedy == "start the container with '--gpus all'"


def test_a_driver_that_is_too_old_is_told_which_one_is_wanted(rtx_pc: Any) -> None:
    rtx_pc.answers |= {
        "cuda": Answer({"cuda": [12, 2], "gpus": [{"index": 0, "name": "RTX 4060", "sm": 89}]}),
        "rtx": Answer({"version": "1.7.1.116", "cuda": 13}),
        "compilers": Answer({"compilers": [{"text": "NVRTC 13.0", "cuda": [13, 0]}]}),
        "pycuda": Answer({"version": "2026.1", "cuda": [13, 0]}),
    }
    checks = rtx_pc.checks()
    assert checks["driver"].state == "ok"
    for name in ("flavour-rtx", "pycuda"):
        assert checks[name].state == "broken" and checks[name].found.endswith("the driver runs CUDA 12.2")
        assert checks[name].remedy == "sudo ubuntu-drivers install nvidia:580, then restart"
    assert checks["cuda-compiler"].state == "broken"
    assert checks["cuda-compiler"].remedy == f"{PIP} nvidia-cuda-nvrtc-cu12"
    assert checks["tensorrt"].state == "broken"
    rtx_pc.answers["cuda"].value["cuda"] = [13, 2]  # a newer one runs what is older
    assert {rtx_pc.checks()[name].state for name in ("flavour-rtx", "pycuda", "cuda-compiler")} == {"ok"}


def test_a_probe_that_came_to_nothing_is_what_is_wrong(rtx_pc: Any) -> None:
    rtx_pc.answers |= {
        "cuda": Answer({}, "no answer within 40 s"),
        "openvino": Answer({}, "was ended by SIGSEGV"),
        "opencv": Answer({}, "EdgeAdError: libGL.so.1: cannot open shared object file"),
    }
    report = rtx_pc.report()
    checks = {check.name: check for check in report.checks}
    assert (checks["driver"].state, checks["driver"].found) == ("broken", "no answer within 40 s")
    assert (checks["openvino"].state, checks["openvino"].found) == ("broken", "was ended by SIGSEGV")
    assert checks["opencv"].remedy == "sudo apt install libgl1 libglib2.0-0"
    assert [check.name for check in report.failed()] == ["openvino", "opencv"]


def test_gstreamer_of_the_system_is_pointed_to(made_up: Make) -> None:
    machine = made_up(files={"/usr/lib/python3/dist-packages/gi/__init__.py": ""})
    assert "--system-site-packages" in str(machine.checks()["gstreamer"].remedy)
    bare = made_up(changes={"python": Interpreter("3.12.3", "/usr/bin/python3", is_venv=False, sees_system=True)})
    (bare.root / "usr/lib/python3/dist-packages/gi/__init__.py").unlink()
    (bare.root / "usr/lib/python3/dist-packages/gi").rmdir()
    remedy = bare.checks()["gstreamer"].remedy
    assert remedy == "sudo apt install python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-plugins-good"


def test_elements_are_asked_for_without_the_bindings_too(made_up: Make) -> None:
    there = {f"gst-inspect-1.0 --exists {name}": Ran() for name in ("v4l2src", "rtspsrc")}
    check = made_up(programs={**there, "gst-inspect-1.0": Ran(failure="ended with exit code 1")}).checks()
    assert check["gst-elements"].found == "has v4l2src, rtspsrc; lacks appsink"
    assert check["gst-elements"].remedy == "sudo apt install gstreamer1.0-plugins-base"


def test_a_system_without_apt_is_not_told_to_use_it(made_up: Make) -> None:
    checks = made_up(files={"/etc/os-release": "ID=fedora"}).checks()
    assert not [check.remedy for check in checks.values() if check.remedy and "apt install" in check.remedy]


def test_the_table_of_jetpacks_is_the_one_of_the_documentation() -> None:
    text = (ROOT / "docs" / "tensorrt.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d., ]+?)(?: \(.*\))? \| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    documented = {name: (tensorrt, cuda) for names, tensorrt, cuda in rows for name in names.split(", ")}
    assert {name: (bundled.tensorrt, bundled.cuda) for name, bundled in BUNDLED.items()} == documented
    assert {
        name for jetpack in JETPACK_OF.values() for name in BUNDLED if bundled_with(jetpack) is BUNDLED[name]
    } == set(BUNDLED)
